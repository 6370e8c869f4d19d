"""The catalog: packaged entries match their files, own entries are added, and errors name the place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsclora_cli.errors import ExitCode, UsageError, WeightsError
from dsclora_cli.paths import config_dir, sha256_of
from dsclora_cli.weights import catalog
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.catalog import EMBEDDED, load_catalog, packaged_file
from dsclora_cli.weights.checkpoint import load_network

ENTRY = {
    "arch": '"span"',
    "scale": "2",
    "channels": "48",
    "file": '"mine.pth"',
    "size": "1234",
    "sha256": f'"{"ab" * 32}"',
    "licence": '"MIT"',
    "source": '"my photographs"',
}


def write_own(text: str) -> Path:
    config_dir().mkdir(parents=True, exist_ok=True)
    path = config_dir() / "weights.toml"
    path.write_text(text, encoding="utf-8")
    return path


def entry(name: str = "mine", **changes: str | None) -> str:
    lines = [f"{key} = {value}" for key, value in {**ENTRY, **changes}.items() if value is not None]
    return f"[weights.{name}]\n" + "\n".join(lines) + "\n"


def test_packaged_entries_that_are_embedded_match_their_files() -> None:
    embedded = [entry for entry in load_catalog().entries.values() if not entry.repo and not entry.url]
    assert {path.name for path in EMBEDDED.iterdir() if not path.name.startswith(".")} == {e.file for e in embedded}
    for known in embedded:
        path = EMBEDDED / known.file
        assert (path.stat().st_size, sha256_of(path)) == (known.size, known.sha256), f"correct {known.name}"
        if known.base is not None:
            assert load_adapters(path).base_sha256 == load_catalog().entry(known.base).sha256
            continue
        network = load_network(path)
        assert network.config.descriptor.arch == known.arch
        assert (network.config.scale, network.config.channels) == (known.scale, known.channels)


def test_the_released_student_is_the_file_that_was_released(shared: Path) -> None:
    known = load_catalog().entry("dscf-x4")
    path = shared / "weights/team23_DSCF.pth"
    assert (path.stat().st_size, sha256_of(path)) == (known.size, known.sha256)
    assert (known.repo, known.file) == ("sssefe/DSCLoRA", "model_zoo/team23_DSCF.pth")
    assert known.revision is None
    config = load_network(path).config
    assert (config.scale, config.channels) == (known.scale, known.channels)


def test_auto_at_x4_tries_our_adapter_of_the_released_student_then_our_network() -> None:
    # The third has a sharp model, so `--sharp` finds it; without `--sharp` the second is always there.
    assert load_catalog().auto[4] == ("dscf-x4-plus", "dsclora-x4", "dsclora-x4-photo")
    assert load_catalog().entry("dscf-x4-plus").base == "dscf-x4"


def test_scores_are_by_set_and_metric() -> None:
    known = load_catalog().entry("dscf-x4")
    assert known.published == {"Manga109": {"psnr_y": 29.60, "ssim_y": 0.8971}}
    assert known.reference["Set5"]["psnr_y"] == pytest.approx(31.7462)


def test_own_entries_are_added() -> None:
    write_own(entry(repo='"me/mine"', revision='"v1"') + entry("other", base='"mine"'))
    loaded = load_catalog()
    mine, other = loaded.entry("mine"), loaded.entry("other")
    assert list(loaded.entries)[-2:] == ["mine", "other"]
    assert (mine.scale, mine.channels, mine.repo, mine.revision) == (2, 48, "me/mine", "v1")
    assert (other.repo, other.folder, other.base) == (None, config_dir(), "mine")
    assert loaded.with_sha256(loaded.entry("dscf-x4").sha256) == loaded.entry("dscf-x4")
    assert loaded.with_sha256("0" * 64) is None


def test_the_catalog_is_read_again_only_after_a_change() -> None:
    first = load_catalog()
    assert load_catalog() is first
    own = write_own(entry())
    assert "mine" in load_catalog().entries
    own.unlink()
    assert load_catalog() == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": '"4"'}, "[weights.mine] scale: '4' is not a whole number above 0"),
        ({"scale": "true"}, "[weights.mine] scale: True is not a whole number above 0"),
        ({"size": "0"}, "[weights.mine] size: 0 is not a whole number above 0"),
        ({"size": None}, "[weights.mine] size: missing"),
        ({"channels": "-1"}, "[weights.mine] channels: -1 is not a whole number above 0"),
        ({"sha256": '"ABC"'}, "[weights.mine] sha256: 'ABC' is not text like [0-9a-f]{64}"),
        ({"arch": '"rcan9"'}, "[weights.mine] arch: 'rcan9' is not text like span"),
        ({"licence": '" "'}, "[weights.mine] licence: ' ' is not text"),
        ({"repo": '"no-owner"'}, "[weights.mine] repo: 'no-owner' is not text like"),
        ({"repo": '"me/mine"', "file": '"../up.pth"'}, "[weights.mine] file: '../up.pth' is not a path inside the"),
        ({"revision": '"main"'}, "[weights.mine] revision: 'main' is not given together with `repo`"),
        ({"chanels": "3"}, "[weights.mine] chanels: unknown key"),
        ({"base": '"nobody"'}, "[weights.mine] base: 'nobody' is not the name of weights of scale 2"),
        ({"base": '"mine"'}, "[weights.mine] base: 'mine' is not the name of weights of scale 2"),
        ({"published": '"good"'}, "[weights.mine] published: 'good' is not a table"),
        ({"published": "{ Set5 = { psnr_y = nan } }"}, "[weights.mine.published.Set5] psnr_y: nan is not a number"),
        ({"reference": "{ Set5 = { psnr = 3 } }"}, "[weights.mine.reference.Set5] psnr: unknown key"),
    ],
)
def test_errors_in_a_table_name_file_table_and_key(changes: dict[str, str | None], message: str) -> None:
    path = write_own(entry(**changes))
    with pytest.raises(UsageError) as caught:
        load_catalog()
    assert caught.value.message.startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[weights.mine\n", "Expected ']'"),
        ("[auto]\n2 = ['dscf-x4']\n", "[auto] belongs to the packaged catalogue"),
        (entry("auto"), "[weights.auto] name: 'auto' is not free"),
        (entry("dscf-x4"), "[weights.dscf-x4]: the packaged catalogue has that name"),
        ("[wieghts.mine]\n", "wieghts: unknown key"),
        ("weights = 3\n", "weights: 3 is not a table"),
    ],
)
def test_errors_in_a_file_name_the_file(text: str, message: str) -> None:
    path = write_own(text)
    with pytest.raises(UsageError) as caught:
        load_catalog()
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("bad", ["4 = ['nobody']", "8 = ['dscf-x4']", "4 = []", "4 = 'dscf-x4'", "x = ['dscf-x4']"])
def test_a_wrong_auto_table_is_an_error(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = packaged_file().read_text(encoding="utf-8")
    broken = tmp_path / "weights.toml"
    broken.write_text(original.replace('4 = ["dscf-x4-plus", "dsclora-x4", "dsclora-x4-photo"]', bad), encoding="utf-8")
    monkeypatch.setattr(catalog, "packaged_file", lambda: broken)
    with pytest.raises(UsageError, match=r"weights\.toml: \[auto\] "):
        load_catalog()


def test_the_error_for_an_unknown_name_lists_similar_names_if_there_are_any() -> None:
    with pytest.raises(UsageError, match="no model is called 'dcsf-x4'") as caught:
        load_catalog().entry("dcsf-x4")
    assert "dscf-x4" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        load_catalog().entry("???")
    assert caught.value.hint == "see `dsclora models list`"


def test_the_catalog_in_the_wheel_comes_before_the_one_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "dsclora_cli"
    package.mkdir()
    monkeypatch.setattr(catalog, "_PACKAGE", package)
    with pytest.raises(WeightsError, match=r"weights\.toml is missing"):
        packaged_file()
    (tmp_path / "weights.toml").touch()
    assert packaged_file() == tmp_path / "weights.toml"
    (package / "weights.toml").touch()
    assert packaged_file() == package / "weights.toml"


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".", "a\\\\b", "C:evil", "a\\nb", "\\u001b[2J", "x" * 300])
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name: str) -> None:
    write_own(entry(f'"{name}"'))
    with pytest.raises(UsageError, match="part of a file name"):
        load_catalog()


@pytest.mark.parametrize("file", ["../a.pth", "/a.pth", "a//b.pth", "a\\\\..\\\\b.pth", "C:a.pth"])
def test_a_path_that_leads_out_of_its_repository_is_refused(file: str) -> None:
    write_own(entry(repo='"me/nets"', file=f'"{file}"'))
    with pytest.raises(UsageError, match="a path inside the repository"):
        load_catalog()


def test_a_folder_that_may_not_be_entered_holds_no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", lambda self: refuse(self) if self.parent == config_dir() else self.exists())
    assert "dscf-x4" in load_catalog().entries


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_the_users_catalog_is_an_error_and_never_waits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DSCLORA_CONFIG_DIR", str(tmp_path))
    os.mkfifo(tmp_path / "weights.toml")
    with pytest.raises(UsageError, match=r"weights\.toml: not a regular file \("):
        load_catalog()
