"""`dsclora upscale` between URLs: the same results, names, records, reports and errors as between folders."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from batches import fill, save_photo
from PIL import Image

from dsclora_cli.cli.app import main

QUICK = ["-m", "dsclora-x2", "-s", "2", "--engine", "native"]

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """The storage behind memory://, empty before and after a test."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def put_tree(system: fsspec.AbstractFileSystem, top: Path, url: str) -> None:
    for path in top.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{url}/{path.relative_to(top).as_posix()}", path.read_bytes())


def contents(system: fsspec.AbstractFileSystem, url: str) -> dict[str, bytes]:
    """The objects below a URL without the records, by relative name."""
    top = system._strip_protocol(url)
    found = {name.removeprefix(top).lstrip("/"): system.cat_file(name) for name in system.find(top)}
    return {name: data for name, data in found.items() if ".dsclora/" not in name}


def local_contents(top: Path) -> dict[str, bytes]:
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def reports(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def tree(tmp_path: Path) -> Path:
    """Pictures in two folders, of which two compete for a name, a broken picture and hidden files."""
    top = fill(tmp_path / "in")
    save_photo(top / "a.png", seed=4)
    save_photo(top / "sub" / "deep" / "f.png", seed=5)
    save_photo(top / ".hidden" / "g.png", seed=6)
    return top


def test_a_tree_of_objects_becomes_the_results_of_the_tree_of_files(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tree(tmp_path)
    put_tree(memory, top, "memory://in")
    options = ["-r", "-f", "png", *QUICK, "--json"]
    assert main(["upscale", str(top), "-o", str(tmp_path / "out"), *options]) == 1
    local = reports(capsys)
    assert main(["upscale", "memory://in", "-o", "memory://out", *options]) == 1
    remote = reports(capsys)
    assert contents(memory, "memory://out") == local_contents(tmp_path / "out")
    assert {"a_x2.png", "a_x2-2.png", "sub/deep/f_x2.png"} <= set(contents(memory, "memory://out"))

    def words(found: list[dict[str, object]], top: str, out: str) -> list[object]:
        return sorted(
            (
                str(each["input"]).replace(top, ""),
                str(each["output"]).replace(out, ""),
                *(str(each[key]) for key in ("status", "input_size", "output_size", "frames", "model")),
                [str(warning).replace(top, "") for warning in each["warnings"]],
                str(each["error"] and each["error"]["code"]),
            )
            for each in found
        )

    assert words(remote, "memory://in", "memory://out") == words(local, str(top), str(tmp_path / "out"))
    messages = [each["error"]["message"] for each in remote if each["error"]]
    assert len(messages) == 1
    assert messages[0].startswith("memory://in/e.png: the PNG is truncated")


def test_another_machine_skips_what_is_done(
    tmp_path: Path,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_tree(memory, fill(tmp_path / "in"), "memory://in")
    command = ["upscale", "memory://in", "-o", "memory://out", *QUICK, "--json"]
    assert main(command) == 1
    capsys.readouterr()
    monkeypatch.setenv("DSCLORA_STATE_DIR", str(tmp_path / "other"))
    assert main(command) == 1
    assert sorted(str(each["status"]) for each in reports(capsys)) == [
        *("failed", "left-out", "skipped", "skipped", "skipped", "skipped")
    ]
    memory.pipe_file("memory://out/b_x2.png", b"other bytes")
    assert main([*command, "-q"]) == 1
    kept = [each for each in reports(capsys) if each["status"] == "kept"]
    assert [each["output"] for each in kept] == ["memory://out/b_x2.png"]
    assert memory.cat_file("memory://out/b_x2.png") == b"other bytes"
    assert main([*command, "--overwrite"]) == 1
    assert [each["status"] for each in reports(capsys)].count("done") == 4
    assert memory.cat_file("memory://out/b_x2.png") != b"other bytes"


@pytest.mark.parametrize("output", ["memory://out", "out"])
def test_what_is_done_is_skipped_without_reading_the_pictures(
    tmp_path: Path,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    output: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    put_tree(memory, fill(tmp_path / "in"), "memory://in")
    memory.pipe_file("memory://in/a.png", save_photo(tmp_path / "a.png", seed=7).read_bytes())
    command = ["upscale", "memory://in", "-f", "png", *QUICK, "--json", "-o", output]
    assert main(command) == 1
    first = {each["input"]: each for each in reports(capsys) if each["status"] == "done"}
    read: list[str] = []
    real = type(memory).cat_file
    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "cat_file", lambda self, path, **rest: read.append(path) or real(self, path))
        assert main(command) == 1
    # The broken picture has no result. A storage without MD5 sums lets results be compared by their bytes.
    assert [path for path in read if path.startswith("/in/")] == ["/in/e.png"]
    again = {each["input"]: each for each in reports(capsys) if each["status"] == "skipped"}
    same = ("output", "input_size", "output_size", "frames", "scale", "model", "choice", "warnings")
    assert {name: [each[key] for key in same] for name, each in again.items()} == {
        name: [each[key] for key in same] for name, each in first.items()
    }
    assert any("named a_x2-2.png" in str(each["warnings"]) for each in again.values())
    memory.pipe_file("memory://in/b.png", save_photo(tmp_path / "new.png", seed=9).read_bytes())
    assert main(command) == 1
    assert [each["output"] for each in reports(capsys) if each["status"] == "kept"] == [f"{output}/b_x2.png"]


def test_a_record_without_strict_hides_no_loss_from_strict(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(save_photo(tmp_path / "a.png")).convert("RGB").save(tmp_path / "a.ppm")
    memory.pipe_file("memory://in/two.ppm", (tmp_path / "a.ppm").read_bytes() * 2)
    command = ["upscale", "memory://in/two.ppm", "-o", "memory://out/", *QUICK]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--strict"]) == 1
    assert "only the first picture in this PPM was read (leave out --strict" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"version": 1, "source": {"header": {}}}', b"\xff"])
def test_a_damaged_record_counts_as_absent(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.pipe_file("memory://in/a.png", save_photo(tmp_path / "a.png").read_bytes())
    command = ["upscale", "memory://in", *QUICK, "--json", "-o", "memory://out"]
    assert main(command) == 0
    memory.pipe_file("memory://out/.dsclora/a_x2.png.json", damage)
    assert main(command) == 0
    assert [each["status"] for each in reports(capsys)] == ["done", "kept"]


def test_results_next_to_the_objects_are_no_inputs_of_the_next_run(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.pipe_file("memory://in/a.png", save_photo(tmp_path / "a.png").read_bytes())
    command = ["upscale", "memory://in", *QUICK, "--json", "--name", "{stem} large.{ext}"]
    assert main(command) == 0
    assert sorted(contents(memory, "memory://in")) == ["a large.png", "a.png"]
    capsys.readouterr()
    assert main(command) == 0
    found = {str(each["input"]): (each["status"], each["warnings"]) for each in reports(capsys)}
    assert found["memory://in/a.png"] == ("skipped", [])
    assert found["memory://in/a large.png"] == ("left-out", ["a result of an earlier run"])
    assert found["memory://in/.dsclora"] == ("left-out", ["a hidden folder"])


def test_one_object_a_pattern_a_list_and_a_pipe(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = save_photo(tmp_path / "a.png").read_bytes()
    for name in ("a.png", "b.png", "c[1].png", "d.jpg"):
        memory.pipe_file(f"memory://in/{name}", picture)
    memory.pipe_file("memory://list.txt", f"memory://in/*.png\n{tmp_path / 'a.png'}\n".encode())
    assert main(["upscale", "memory://in/a.png", "-o", "memory://one/big.jpg", *QUICK]) == 0
    assert memory.cat_file("memory://one/big.jpg")[:2] == b"\xff\xd8"
    assert main(["upscale", "memory://in/c[1].png", "-o", str(tmp_path / "here") + "/", *QUICK]) == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["c[1]_x2.png"]
    assert main(["upscale", "@memory://list.txt", "-o", "memory://listed", *QUICK]) == 0
    names = ["a_x2-2.png", "a_x2.png", "b_x2.png", "c[1]_x2.png"]
    assert sorted(contents(memory, "memory://listed")) == names
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(picture)))
    assert main(["upscale", "-", "-o", "memory://piped/x.png", *QUICK]) == 0
    assert contents(memory, "memory://piped")["x.png"] == contents(memory, "memory://listed")["a_x2.png"]


def test_pictures_of_an_archive(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    fill(tmp_path / "in")
    save_photo(tmp_path / "in" / "sub" / "f.png", seed=5)
    (tmp_path / "in" / "e.png").unlink()
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", tmp_path / "in")
    memory.put_file(archive, "memory://scans.zip")
    for number, source in enumerate((f"zip://::{archive}", "zip://::memory://scans.zip")):
        assert main(["upscale", source, "-r", "-o", f"memory://out{number}", *QUICK]) == 0
        assert sorted(contents(memory, f"memory://out{number}")) == [
            *("a_x2.jpg", "b_x2.png", "c_x2.webp", "d_x2.gif", "sub/f_x2.png")
        ]
    assert main(["upscale", f"zip://*.png::{archive}", "-o", "memory://glob/", *QUICK]) == 0
    assert sorted(contents(memory, "memory://glob")) == ["b_x2.png"]


@pytest.mark.parametrize("written", ["{folder}/scans.zip", "scans.zip", "{folder}/scans.zip/sub/b.png", "sub/b.png"])
def test_the_hint_for_a_url_without_an_archive_works_when_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "in" / "b.png")
    save_photo(tmp_path / "in" / "sub" / "b.png")
    shutil.make_archive("scans", "zip", tmp_path / "in")
    given = f"zip://{written.format(folder=tmp_path)}"
    assert main(["upscale", given, "-o", "out/", *QUICK]) == 2
    hint = re.search(r"\(write (\S+)\)", capsys.readouterr().err)
    assert hint is not None
    followed = hint[1].replace("ARCHIVE.zip", "scans.zip")
    assert main(["upscale", followed, "-o", "out/", *QUICK]) == 0, followed
    assert local_contents(tmp_path / "out").keys() == {"b_x2.png"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["https://h/a.png"], "https://h/a.png: no result can be written to https:// (name another place with -o)"),
        (["a.png", "-o", "zip://x.png::a.zip"], "zip://x.png::a.zip: no result can be written to zip://"),
        (["memory://in", "--watch"], "--watch takes folders of this machine, not memory://in"),
        (["memory://in/a.png", "--compare-page"], "--compare-page takes pictures of this machine, and no URLs"),
        (["@memory://absent.txt"], "the list cannot be read: memory://absent.txt does not exist"),
        (["foo://in/a"], "foo:// is no kind of storage that fsspec knows"),
        (["zip://a.png", "-o", "out"], "zip://a.png names no archive (write zip://a.png::ARCHIVE.zip)"),
        (["zip://a.png::", "-o", "out"], "zip://a.png:: names no archive (write zip://a.png::ARCHIVE.zip)"),
        (
            ["zip://u:pw@h/a.png", "-o", "out"],
            "zip://...@h/a.png names no archive (write zip://...@h/a.png::ARCHIVE.zip)",
        ),
        (["tar://a.png::a.tar"], "tar:// archives are not read (unpack the archive, and name the folder)"),
        (["a.png", "-o", "libarchive://x.png::a.7z"], "libarchive:// archives are not read"),
    ],
)
def test_what_a_url_cannot_be_is_said_before_the_run(
    memory: fsspec.AbstractFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "a.png")
    assert main(["upscale", *arguments, *QUICK]) == 2
    assert f"error: {line}" in capsys.readouterr().err


def test_a_place_that_refuses_is_a_failure_of_the_picture_and_leaves_nothing(
    tmp_path: Path,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    put_tree(memory, fill(tmp_path / "in"), "memory://in")
    real = type(memory).put_file

    def refuse(self: object, source: str, path: str, **rest: object) -> None:
        if path.endswith("b_x2.png"):
            raise PermissionError("Access Denied")
        real(self, source, path, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "put_file", refuse)
        assert main(["upscale", "memory://in", "-o", "memory://out", *QUICK, "--json"]) == 1
    failed = {each["input"]: each["error"] for each in reports(capsys) if each["status"] == "failed"}
    assert failed["memory://in/b.png"]["code"] == "image-unwritable"
    assert failed["memory://in/b.png"]["message"] == "memory://out/b_x2.png: access denied (Access Denied)"
    assert sorted(contents(memory, "memory://out")) == ["a_x2.jpg", "c_x2.webp", "d_x2.gif"]
    assert list((tmp_path / "temporary").iterdir()) == []
    assert main(["upscale", "memory://in", "-o", "memory://out", *QUICK, "-q"]) == 1
    assert "b_x2.png" in contents(memory, "memory://out")
