"""`dsclora models`: list, info, fetch, verify, prune and path."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dsclora_cli.cli import console
from dsclora_cli.cli.app import main
from dsclora_cli.paths import atomic_write
from dsclora_cli.weights import catalog, download, pruning


def test_the_table_shows_where_weights_are(dsclora) -> None:
    code, out, err = dsclora("models", "list")
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()
    columns = ["name", "scale", "arch", "size", "where", "auto", "measured", "published", "licence"]
    assert header.split() == columns
    (embedded,) = (row for row in rows if row.split()[0] == "dsclora-x4")
    assert embedded.split()[:3] == ["dsclora-x4", "x4", "span"]
    assert "embedded" in embedded and "Set5 31." in embedded
    (remote,) = (row for row in rows if row.split()[0] == "dscf-x4")
    assert "on the Hub" in remote


def test_json_has_every_entry_with_its_sha256(dsclora) -> None:
    code, out, _ = dsclora("models", "list", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {"dscf-x4", "dsclora-x4"} <= {row["name"] for row in rows}
    assert all(len(row["sha256"]) == 64 or (row["sha256"], row["place"]) == ("", "on the web") for row in rows)


def test_the_table_marks_adapters_and_models_for_photographs(dsclora, tmp_path, monkeypatch) -> None:
    entry = 'arch = "span"\nscale = 2\nchannels = 4\nsize = 1\nlicence = "MIT"\nsource = "me"\n'
    text = '[auto]\n2 = ["plain"]\n[photo.2]\nmodel = "photo"\njpeg = 82.5\nwebp = 80\navif = 70.5\n'
    for index, (name, more) in enumerate({"plain": 'repo = "a/b"\n', "photo": "", "plus": 'base = "plain"\n'}.items()):
        text += f'[weights.{name}]\nfile = "{name}.pth"\nsha256 = "{index:064}"\n{more}{entry}'
    packaged = tmp_path / "weights.toml"
    packaged.write_text(text)
    monkeypatch.setattr(catalog, "packaged_file", lambda: packaged)

    rows = {line.split()[0]: line for line in dsclora("models", "list").out.splitlines()}
    assert rows["plain"].split()[-5:] == ["on", "the", "Hub", "1.", "MIT"]
    assert "JPEG < 82.5, WebP < 80, AVIF < 70.5" in rows["photo"]
    assert "missing, over plain" in rows["plus"]
    found = [json.loads(line) for line in dsclora("models", "list", "--json").out.splitlines()]
    assert [(row["photo"], row["base"]) for row in found] == [(None, None), (82.5, None), (None, "plain")]
    assert [(row["photo_webp"], row["photo_avif"]) for row in found] == [(None, None), (80, 70.5), (None, None)]


def test_fetch_prints_the_path_and_the_sha256(dsclora) -> None:
    code, out, err = dsclora("models", "fetch", "dsclora-x4")
    assert (code, err) == (0, "")
    assert out.startswith("dsclora-x4: ") and "dsclora-x4.safetensors, sha256 " in out
    code, _, err = dsclora("models", "fetch", "nobody")
    assert code == 2 and "no model is called 'nobody'" in err


def test_fetch_takes_names_or_all(dsclora) -> None:
    for arguments in (["--json"], ["dsclora-x4", "--all"]):
        code, _out, err = dsclora("models", "fetch", *arguments)
        assert code == 2 and "give names, as `dsclora models list` shows them, or --all" in err


def test_a_hint_of_fetch_names_only_what_fetch_takes(dsclora, monkeypatch) -> None:
    code, _, err = dsclora("models", "fetch", "dscf-x4")
    assert code == 3 and "(check the internet connection, proxy and HF_ENDPOINT)" in err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("dscf-x4", "rcan-x8", "someone/something"):
        code, _, err = dsclora("models", "fetch", name)
        assert code == 3 and err.endswith("(run once without HF_HUB_OFFLINE)\n")


def test_fetch_all_goes_on_after_a_failure_and_names_what_it_leaves_out(dsclora) -> None:
    # No Hub and no web: only the embedded models can be had.
    code, out, _err = dsclora("models", "fetch", "--all", "--json")
    models = {model["name"]: model for model in map(json.loads, out.splitlines())}
    assert code == 3 and len(models) == len(catalog.load_catalog().entries)
    assert models["dsclora-x2"]["status"] == "here" and models["dsclora-x2"]["path"].endswith("dsclora-x2.safetensors")
    assert models["dscf-x4"]["status"] == "failed" and models["dscf-x4"]["error"]["code"] == "weights-unusable"
    assert models["rcan-x2"] == {
        "version": 1,
        "name": "rcan-x2",
        "status": "left-out",
        "path": None,
        "sha256": "",
        "error": None,
        "note": "",
    }


def test_fetch_all_asks_for_trust_in_files_without_a_sha256(dsclora, own_catalog) -> None:
    own_catalog(embedded_file="")
    code, out, err = dsclora("models", "fetch", "--all")
    assert code == 0 and out.startswith("embedded_file: ")
    assert "left out, because the catalogue has no sha256: unpinned (add --trust-unpinned to accept any bytes)" in err


@pytest.fixture
def own_catalog(tmp_path, monkeypatch):
    """Return a function that writes the only catalog: embedded, Hub and web files of 7 bytes, by name."""

    def write(**more: str) -> Path:
        text = "[auto]\n2 = ['embedded_file']\n"
        for name, place in {**more, "unpinned": 'url = "http://127.0.0.1:9/file.pth"'}.items():
            digest = hashlib.sha256(b"weights").hexdigest()
            file = "" if "url" in place else f'file = "{name}.pth"\n'
            pin = "" if name == "unpinned" else f'size = 7\nsha256 = "{digest}"\n'
            text += f'[weights.{name}]\narch = "span"\nscale = 2\nchannels = 4\n{file}{pin}{place}\n'
            text += 'licence = "MIT"\nsource = "me"\n'
        (tmp_path / "embedded_file.pth").write_bytes(b"weights")
        (tmp_path / "weights.toml").write_text(text)
        monkeypatch.setattr(catalog, "packaged_file", lambda: tmp_path / "weights.toml")
        monkeypatch.setattr(catalog, "EMBEDDED", tmp_path)
        monkeypatch.setattr(download, "EMBEDDED", tmp_path)
        return tmp_path

    return write


def test_info_tells_what_the_tensors_of_an_embedded_model_say(dsclora) -> None:
    code, out, err = dsclora("models", "info", "dsclora-x4", "--json")
    model = json.loads(out)
    assert (code, err) == (0, "")
    assert (model["name"], model["place"], model["licence"], model["auto"]) == ("dsclora-x4", "embedded", "MIT", 2)
    network = model["network"]
    assert (network["channels"], network["blocks"], network["halo"], network["exact_tiles"]) == (26, 6, 21, True)
    assert network["parameters"] == 130_828
    assert model["training"]["step"] == 3000 and model["reference"]["Set5"]["psnr_y"] > 31

    text = dsclora("models", "info", "dsclora-x4").out
    assert "\nhalo  " in text and "  21 pixels\n" in text
    assert "measured on Set5" in text and "sha256" in text


def test_info_of_an_adapter_names_its_base(dsclora) -> None:
    model = json.loads(dsclora("models", "info", "dscf-x4-plus", "--json").out)
    assert model["base"] == "dscf-x4" and model["network"] is None  # the base is not on this machine
    assert model["adapter"]["base_sha256"] == catalog.load_catalog().entry("dscf-x4").sha256
    assert model["adapter"]["layers"] == 20
    err = dsclora("models", "info", "dscf-x4-plus").err
    assert err == "note: the base, dscf-x4, is not on this machine (run `dsclora models fetch dscf-x4-plus`)\n"


def test_info_of_a_file_recognizes_a_copy_of_known_weights(dsclora, tmp_path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((catalog.EMBEDDED / "dsclora-x3.safetensors").read_bytes())
    model = json.loads(dsclora("models", "info", copy, "--json").out)
    assert (model["name"], model["place"], model["path"]) == ("dsclora-x3", "file", str(copy))
    assert model["scale"] == model["network"]["scale"] == 3


def test_info_of_an_exported_file_has_the_licence_and_the_source_in_it(dsclora, tmp_path) -> None:
    exported = tmp_path / "mine.safetensors"
    assert dsclora("export", "dsclora-x2", "-o", exported).code == 0
    model = json.loads(dsclora("models", "info", exported, "--json").out)
    entry = catalog.load_catalog().entry("dsclora-x2")
    assert (model["name"], model["licence"], model["source"]) == ("mine", entry.licence, entry.source)


def test_info_of_a_model_elsewhere_says_how_to_get_the_file(dsclora) -> None:
    code, out, err = dsclora("models", "info", "rcan-x8")
    assert code == 0 and "on the web" in out and "halo" not in out
    assert "(run `dsclora models fetch rcan-x8 --trust-unpinned`)" in err


def test_info_of_anything_else_is_one_line(dsclora, tmp_path) -> None:
    code, _, err = dsclora("models", "info", "dsclora-x5")
    assert code == 2 and err.startswith("error: no model is called 'dsclora-x5' (choose dsclora-x4")
    code, _, err = dsclora("models", "info", tmp_path / "absent.pth")
    assert code == 3 and "cannot read" in err and err.count("\n") == 1
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04half")
    code, out, err = dsclora("models", "info", broken, "--json")
    assert code == 3 and json.loads(out)["error"]["code"] == "weights-unusable"


def test_verify_finds_a_changed_byte(dsclora, own_catalog) -> None:
    folder = own_catalog(embedded_file="", hub_file='repo = "a/b"')
    code, out, err = dsclora("models", "verify")
    assert code == 0 and "done: 1 of 1 files (7 bytes) are intact; 2 are not on this machine" in err

    (folder / "embedded_file.pth").write_bytes(b"Weights")
    code, out, err = dsclora("models", "verify")
    assert code == 3 and "embedded_file  damaged" in out
    assert "error: embedded_file is damaged: " in err and "(install dsclora again)" in err
    (folder / "embedded_file.pth").unlink()
    code, out, err = dsclora("models", "verify", "embedded_file", "--json")
    assert code == 3 and json.loads(out)["state"] == "missing"


def put_in_hub_cache(home: Path, data: bytes, blob: str) -> tuple[Path, Path]:
    """Put bytes into the Hub's cache as its client does: a blob, and a link in a snapshot."""
    repo = home / "hf" / "hub" / "models--a--b"
    link = repo / "snapshots" / ("c" * 40) / "hub_file.pth"
    for folder in (repo / "blobs", link.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (repo / "blobs" / blob).write_bytes(data)
    link.symlink_to(Path("..") / ".." / "blobs" / blob)
    return repo / "blobs" / blob, link


def test_a_damaged_file_in_the_cache_of_the_hub_is_found_and_pruned(dsclora, own_catalog, private_folders) -> None:
    own_catalog(embedded_file="", hub_file='repo = "a/b"')
    pin = hashlib.sha256(b"weights").hexdigest()
    blob, link = put_in_hub_cache(private_folders, b"weights", pin)
    assert dsclora("models", "verify", "hub_file").code == 0
    assert dsclora("models", "prune", "--yes").err == "done: there is nothing to remove\n"

    blob.write_bytes(b"weighty")
    code, _, err = dsclora("models", "verify", "hub_file")
    assert code == 3 and "(run `dsclora models prune`, then run `dsclora models fetch hub_file`)" in err
    code, _out, err = dsclora("models", "prune", "--yes")
    assert code == 0 and "done: removed 1 file; freed 7 bytes" in err
    assert not blob.exists() and not link.is_symlink() and not link.parent.exists()


def test_another_revision_in_the_cache_of_the_hub_is_left_alone(dsclora, own_catalog, private_folders) -> None:
    own_catalog(hub_file='repo = "a/b"', embedded_file="")
    blob, _ = put_in_hub_cache(private_folders, b"newer", hashlib.sha256(b"newer").hexdigest())
    assert json.loads(dsclora("models", "verify", "hub_file", "--json").out)["state"] == "not-here"
    dsclora("models", "prune", "--all", "--yes")
    assert blob.read_bytes() == b"newer"


@pytest.fixture
def caches(own_catalog, private_folders):
    """A cache with a file for every reason to prune, and files that must stay."""
    own_catalog(embedded_file="", hub_file='repo = "a/b"', web='url = "http://127.0.0.1:9/web.pth"')
    cache = private_folders / "cache"
    files = {
        "half": private_folders / "hf/hub/models--a--b/blobs/0123.incomplete",
        "young": private_folders / "hf/hub/models--a--b/blobs/4567.incomplete",
        "gone": cache / "weights/gone/old.pth",
        "damaged": cache / "weights/web/web.pth",
        "trusted": cache / "weights/web/web.pth.sha256",
        "converted": cache / "engines/abc-openvino-0.0.1-1.zip",
        "kept": cache / "engines/abc-native-0.npz",
        "record": cache / "engines/abc-spandrel-0.0.1-1.json",
        "picture": cache / "datasets/Set5/HR/baby.png",
        "other": private_folders / "hf/hub/models--other--one/blobs/0123.incomplete",
    }
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some bytes")
        if path != files["young"]:
            os.utime(path, (0, 0))
    return files


def test_prune_shows_and_removes_what_nothing_uses(dsclora, caches) -> None:
    code, out, err = dsclora("models", "prune", "--dry-run")
    assert code == 0 and all(path.exists() for path in caches.values())
    assert [line.split()[2] for line in out.splitlines()[1:]] == [
        *("half-downloaded", "damaged", "no-catalogue-entry", "outdated", "outdated", "outdated")
    ]
    assert "note: removing 6 files would free 60 bytes" in err

    code, out, err = dsclora("models", "prune", "--yes", "--json")
    removed = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [(file["reason"], file["removed"]) for file in removed] == [
        *(("half-downloaded", True), ("damaged", True), ("no-catalogue-entry", True), *[("outdated", True)] * 3)
    ]
    assert {name for name, path in caches.items() if path.exists()} == {"young", "trusted", "picture", "other"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell one start of the machine from another")
def test_prune_leaves_what_is_still_written_and_takes_what_a_killed_process_left(dsclora, caches, monkeypatch) -> None:
    cache = caches["damaged"].parent.parent.parent
    places = [cache / "engines/new.zip", cache / "weights/web/new.pth", cache / "weights/url-1/2/new.pth"]
    killed = []
    with ExitStack() as written:
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = written.enter_context(atomic_write(place))
            temporary.write_bytes(b"half")
            os.utime(temporary, (0, 0))
            # A killed process holds no lock.
            killed.append(temporary.with_name(temporary.name.replace(".part", "0.part")))
            killed[-1].write_bytes(b"left")
        removed = [json.loads(line) for line in dsclora("models", "prune", "--yes", "--json").out.splitlines()]
        half = [Path(file["path"]) for file in removed if file["reason"] == "half-downloaded"]
        assert half == [caches["half"], killed[1], killed[0]]
        assert not [file for file in removed if Path(file["path"]).name == "url-1"]
    assert all(place.read_bytes() == b"half" for place in places)

    # The file is claimed between the look and the removal.
    real = pruning.is_abandoned
    monkeypatch.setattr(pruning, "is_abandoned", lambda part, remove=False: real(part, remove) if remove else True)
    with atomic_write(places[0]) as temporary:
        temporary.write_bytes(b"whole")
        files = [json.loads(line) for line in dsclora("models", "prune", "--yes", "--json").out.splitlines()]
        (file,) = (file for file in files if file["reason"] == "half-downloaded")
        assert (file["path"], file["removed"], file["error"]) == (str(temporary), False, "")
    assert places[0].read_bytes() == b"whole"


def test_a_file_that_another_process_has_removed_counts_as_removed(dsclora, caches) -> None:
    part = caches["kept"].parent / ".dsclora-0.part"
    part.touch()
    os.utime(part, (0, 0))
    found = [file for file in pruning.find_prunable() if file.path == part]
    part.unlink()
    assert [(file.removed, file.error) for file in pruning.remove_files(found)] == [(True, "")]


def test_prune_asks_and_takes_no_for_an_answer(dsclora, caches, monkeypatch) -> None:
    code, _, err = dsclora("models", "prune")
    assert code == 2 and "cannot ask for confirmation: stdin is no terminal (add --yes, or --dry-run" in err
    monkeypatch.setattr("dsclora_cli.cli.console.can_ask", lambda: True)
    for answer, stays in (("", True), ("no", True), ("Y", False)):
        monkeypatch.setattr("builtins.input", lambda answer=answer: answer)
        code, out, err = dsclora("models", "prune")
        assert code == 0 and "outdated" in out and "Remove these files? [y/N] " in err
        assert caches["half"].exists() == stays


def test_prune_all_frees_intact_downloads_and_keeps_the_trust(dsclora, caches) -> None:
    caches["damaged"].write_bytes(b"weights")
    assert dsclora("models", "prune", "--all", "--yes").code == 0
    assert not caches["damaged"].exists() and caches["trusted"].exists()


def test_prune_names_what_cannot_be_removed_and_goes_on(dsclora, caches, monkeypatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("dsclora_cli.weights.pruning.shutil.rmtree", refuse)
    code, _, err = dsclora("models", "prune", "--yes")
    assert code == 1 and not caches["half"].exists()
    assert "cannot be removed: Permission denied (check the permissions of its folder)" in err
    assert "done: removed 5 files; freed 50 bytes" in err


def test_path_is_for_scripts(dsclora, private_folders) -> None:
    code, out, err = dsclora("models", "path", "dsclora-x2")
    assert (code, err) == (0, "") and Path(out.strip()) == catalog.EMBEDDED / "dsclora-x2.safetensors"
    code, out, err = dsclora("models", "path", "rcan-x2")
    assert (code, out) == (3, "")
    hint = "run `dsclora models fetch rcan-x2 --trust-unpinned`"
    assert err == f"error: rcan-x2 is not on this machine ({hint})\n"
    folders = json.loads(dsclora("models", "path", "--json").out)
    assert folders["hub"] == str(private_folders / "hf" / "hub") and folders["embedded"] == str(catalog.EMBEDDED)
    assert [line.split()[0] for line in dsclora("models", "path").out.splitlines()] == list(folders)[1:]


def test_models_alone_shows_the_help(dsclora) -> None:
    code, out, err = dsclora("models")
    assert code == 2 and all(name in out + err for name in ("list", "info", "fetch", "verify", "prune", "path"))


def test_a_narrow_terminal_loses_columns_and_says_so(capfd, monkeypatch) -> None:
    monkeypatch.setattr(console, "stdout_width", lambda: 60)
    assert main(["models", "list"]) == 0
    out, err = capfd.readouterr()
    header = out.splitlines()[0].split()
    assert header[:2] == ["name", "scale"] and "where" in header and "licence" not in header
    assert max(map(len, out.splitlines())) <= 60
    assert "note: the terminal has no room for " in err and "--json shows everything" in err
