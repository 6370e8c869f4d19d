"""Scarce resources: a run ends well or in words, never with a bug, and nothing half-written stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import confined
import pytest
import scarcity
from scarcity import LIMITS, Tally, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")]

SHORT: dict[str, Callable[[Path, Tally], None]] = {
    "read-only places": scarcity.read_only_places,
    "changing inputs": partial(scarcity.changing_inputs, len(scarcity.CHANGES)),
    "wrong clocks": scarcity.clocks,
    "several processes": partial(scarcity.several_processes, 1),
    "full disks": partial(scarcity.fill_disks, "many small pictures", 4),
    "users without a home": confined.users_without_a_home,
    "control groups": confined.small_groups,
    "limits": partial(scarcity.limit, "folder of pictures", list(LIMITS)),
    "failing calls": partial(scarcity.fail_calls, "many small pictures", scarcity.FAULTS[::4]),
}


def require(name: str, folder: Path) -> None:
    """Skip a test that needs a mount, another user, a control group or strace, where the machine has none."""
    if name in {"full disks", "read-only places"}:
        try:
            with small_disk(folder / "try", 1 << 20):
                subprocess.run(["mount", "--bind", str(folder / "try"), str(folder / "try")], check=True)
                subprocess.run(["umount", str(folder / "try")], check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("nothing can be mounted here: needs root")
    if name == "users without a home" and not confined.can_be_a_stranger():
        pytest.skip("no command can run as another user here: needs root and setpriv (apt-get install util-linux)")
    if name == "control groups":
        try:
            with confined.memory_group(1 << 28):
                pass
        except OSError as error:
            pytest.skip(f"no control group with a limit on memory can be made here: {error}")
    if name == "failing calls" and shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")


@pytest.mark.parametrize("name", SHORT)
def test_scarce_resources_end_a_run_in_words(name: str, tmp_path: Path) -> None:
    require(name, tmp_path)
    tally = Tally()
    (tmp_path / "work").mkdir()
    SHORT[name](tally=tally, folder=tmp_path / "work")
    assert tally.findings == [] and tally.cases > 0


@pytest.mark.parametrize("name", [b"new\nline.png", b"not-\xff-utf8.png", b"-dash.png", b"a" * 250 + b".png"])
def test_pictures_with_odd_names_are_upscaled(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scarcity, "ODD", (name,))
    tally = Tally()
    scarcity.odd_names(tmp_path, tally)
    assert tally.findings == [] and tally.cases == 3
