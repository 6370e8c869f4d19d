"""Links with the names of results: a link counts as the file that the link leads to, and is never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from batches import leftovers, save_photo
from PIL import Image

from dsclora_cli.cli.app import main

UPSCALE = ["upscale", "in/t.png", "-m", "dsclora-x2", "-s", "2", "-q"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        Path("probe").symlink_to("absent")
    except OSError:  # Windows gives few users the right
        pytest.skip("no link can be made here")
    Path("probe").unlink()
    save_photo(Path("in/t.png"))


@pytest.mark.parametrize("target", ["absent/t.png", "absent.png", "t_x2.png"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("output", ["o", "o/t_x2.png"])
def test_a_link_that_leads_nowhere_is_never_replaced(
    target: str, overwrite: list[str], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("o").mkdir()
    link = Path("o/t_x2.png")
    link.symlink_to(target)
    arguments = [*UPSCALE, "-o", output, *overwrite]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"{link} is a link to a place that cannot be reached (" in error
    assert "remove the link" in error
    assert main([*arguments, "--dry-run"]) == 1
    assert str(link.readlink()) == target
    assert list(Path("o").iterdir()) == [link] and not Path("absent").exists()


def test_overwrite_replaces_the_file_behind_a_link() -> None:
    Path("o").mkdir()
    real = save_photo(Path("target/real.png"), seed=3)
    link = Path("o/t_x2.png")
    link.symlink_to("../target/real.png")
    before = real.read_bytes()
    assert main([*UPSCALE, "-o", "o"]) == 0
    assert real.read_bytes() == before, "kept without --overwrite"
    assert main([*UPSCALE, "-o", "o", "--overwrite"]) == 0
    assert link.is_symlink() and str(link.readlink()) == str(Path("../target/real.png"))
    assert not real.is_symlink() and Image.open(real).size == (24, 18)
    assert not leftovers(Path())
    written = real.stat().st_mtime_ns
    assert main([*UPSCALE, "-o", "o"]) == 0
    assert real.stat().st_mtime_ns == written, "recorded, so a later run skips the picture"


def test_no_input_is_replaced_through_a_link() -> None:
    other = save_photo(Path("in/u.png"), seed=3)
    before = other.read_bytes()
    Path("o").mkdir()
    Path("o/t_x2.png").symlink_to("../in/u.png")
    assert main(["upscale", "in", *UPSCALE[2:], "-o", "o", "--overwrite"]) == 0
    assert other.read_bytes() == before
    assert sorted(path.name for path in Path("o").iterdir()) == ["t_x2-2.png", "t_x2.png", "u_x2.png"]


def test_two_links_to_one_file_do_not_give_two_results_one_place() -> None:
    save_photo(Path("in/u.png"), seed=3)
    save_photo(Path("real.png"), seed=4)
    Path("o").mkdir()
    for name in ("t", "u"):
        Path(f"o/{name}_x2.png").symlink_to("../real.png")
    assert main(["upscale", "in", *UPSCALE[2:], "-o", "o", "--overwrite"]) == 0
    assert sorted(path.name for path in Path("o").iterdir()) == ["t_x2.png", "u_x2-2.png", "u_x2.png"]
