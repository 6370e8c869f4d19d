"""The short form of the check of power cuts; `run.py power` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest
from power import Trace, is_available, trace


def account(folder: Path, *lines: str) -> Trace:
    found = Trace(folder)
    found.read([f"7 {line}".replace("HERE", str(folder)) for line in lines])
    return found


WRITE, SYNC = 'write(3<HERE/.part>, ""..., 5) = 5', "fsync(3<HERE/.part>) = 0"
RENAME, FOLDER = 'rename("HERE/.part", "HERE/out.png") = 0', "fsync(4<HERE>) = 0"


@pytest.mark.parametrize(
    ("lines", "findings"),
    [
        ((WRITE, SYNC, RENAME, FOLDER), []),
        ((WRITE, RENAME, FOLDER), ["out.png: renamed before its bytes were on the disk"]),
        ((SYNC, WRITE, RENAME, FOLDER), ["out.png: renamed before its bytes were on the disk"]),
        ((WRITE, SYNC, RENAME), ["out.png: its folder was not synced after the rename"]),
        ((WRITE, SYNC, FOLDER, RENAME), ["out.png: its folder was not synced after the rename"]),
        ((WRITE.replace(".part", "out.png"),), ["out.png: written under its final name and not synced"]),
        ((WRITE.replace("HERE", "/elsewhere"), RENAME.replace("HERE/out", "/elsewhere/out")), []),
        ((WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), RENAME, FOLDER), ["out.png: renamed before"]),
    ],
)
def test_the_account_tells_what_a_power_cut_would_cost(
    lines: tuple[str, ...], findings: list[str], tmp_path: Path
) -> None:
    found = account(tmp_path, *lines).findings
    assert [text[: len(start)] for text, start in zip(found, findings, strict=True)] == findings


@pytest.mark.slow
@pytest.mark.parametrize("name", ["many small pictures", "download", "benchmark set", "training"])
def test_bytes_are_on_the_disk_before_their_name_and_names_before_the_end(name: str, tmp_path: Path) -> None:
    if not is_available():
        pytest.skip("strace is not installed (apt-get install strace)")
    (tmp_path / "job").mkdir()
    found = trace(name, tmp_path / "job")
    assert found.findings == [] and found.final > 0
