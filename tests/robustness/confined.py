"""Users without a home, and control groups with little memory: a success, or one line that says what to set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batches import save_photo
from jobs import JOBS, hub
from limited import PROGRAM, Limits, private_environment, run_limited
from scarcity import Tally

USER = "12345"
"""Number of a user that no machine knows."""

_RIGHTS = "-all,+dac_read_search"
"""Grant the right to read every file, because Python may lie in a folder of root, and no right to write anywhere."""

AS_STRANGER = (
    *("setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"),
    *("--inh-caps", _RIGHTS, "--ambient-caps", _RIGHTS, "--bounding-set", _RIGHTS),
)
"""Command that runs another command as a user without a name, a home and the rights of root."""

HOMES = {"no HOME": None, "an empty HOME": "", "a HOME that nobody made": "/nonexistent/home", "a HOME of others": "/"}
"""Values of HOME by name; None for no variable."""

UPSCALE = (*PROGRAM, "upscale", "in", "-o", "out", "--device", "cpu", "-s", "2", "-m", "dsclora-x2")

GROUP_MIB = (64, 128, 192, 256, 512)
"""Memory of a control group: from less than Python and its libraries need to more than the picture needs."""

_ENOUGH_MIB = 128
"""Memory below which the system may kill the process before the program has looked at its limits."""


def users_without_a_home(folder: Path, tally: Tally) -> None:
    """Upscale with weights inside the package, set a default, and fetch weights, as a user without a home."""
    job = JOBS["download"]
    with hub(job) as served:
        for number, (name, home) in enumerate(HOMES.items()):
            place = folder / str(number)
            environment = _prepare_place(place, served)
            at_home = ("env", "-u", "HOME") if home is None else ("env", f"HOME={home}")
            commands = {UPSCALE: "", (*PROGRAM, "config", "set", "quality", "90"): "DSCLORA_CONFIG_DIR"}
            for command, hint in {**commands, job.command(): "HF_HUB_CACHE"}.items():
                ended = run_limited((*AS_STRANGER, *at_home, *command), place, environment, Limits(seconds=120))
                told = hint and ended.code and hint in ended.stderr and len(ended.stderr.splitlines()) == 1
                found = [] if told or not ended.code else [f"{ended.code}: {ended.stderr[-300:]!r}"]
                found += [f"made {path}" for path in place.rglob("~*")]
                tally.note(f"{command[len(PROGRAM)]} with {name}", ended, found)
            if not (place / "out" / "00_x2.png").is_file():
                tally.findings.append(f"no result with {name}")


def _prepare_place(place: Path, served: dict[str, str]) -> dict[str, str]:
    """Write a picture into a folder where everybody may write, and return an environment without places of dsclora."""
    save_photo(place / "in" / "00.png", (24, 18), seed=1)
    private = private_environment(place / "logs", **served)
    for each in (place, place / "logs", place / "logs" / "tmp"):
        each.chmod(0o777)
    own = {key: value for key, value in private.items() if not key.startswith("DSCLORA_") and key != "HF_HOME"}
    return own | {"PYTHONDONTWRITEBYTECODE": "1"}


def small_groups(folder: Path, tally: Tally) -> None:
    """Upscale a picture of 1.5 megapixels in control groups with little memory. Raises OSError without such groups."""
    for mib in GROUP_MIB:
        place = folder / str(mib)
        save_photo(place / "in" / "00.png", (1500, 1000), seed=1)
        with memory_group(mib << 20) as group:
            command = ("sh", "-c", f'echo $$ >"{group}" && exec "$@"', "sh", *UPSCALE)
            ended = run_limited(command, place, private_environment(place / "home"), Limits(seconds=300))
        there = [path.name for path in place.glob("out/*") if not path.name.startswith(".")]
        if ended.code == -9 and not there and mib < _ENOUGH_MIB:
            tally.cases += 1
            tally.ends["killed by the system"] += 1
            continue
        is_told = ended.code == 1 and "memory" in ended.stderr and not there
        right = is_told or (ended.code, there) == (0, ["00_x2.png"])
        tally.note(f"{mib} MiB", ended, [] if right else [f"{ended.code}, {there}: {ended.stderr[-300:]!r}"])


@contextmanager
def memory_group(size: int) -> Iterator[Path]:
    """Make a control group with a limit on memory, and yield the file that takes the processes. Raises OSError."""
    group, limit, members = _find_group()
    group.mkdir()
    try:
        (group / limit).write_text(str(size), encoding="ascii")
        yield group / members
    finally:
        group.rmdir()


def _find_group() -> tuple[Path, str, str]:
    """Return a folder for a group, the name of its limit, and the file of its processes, for both versions."""
    top, name = Path("/sys/fs/cgroup"), f"dsclora-test-{os.getpid()}"
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, place = line.split(":", 2)
        if "memory" in controllers.split(","):
            return top / "memory" / place.strip("/") / name, "memory.limit_in_bytes", "cgroup.procs"
    return top / name, "memory.max", "cgroup.procs"


def can_be_a_stranger() -> bool:
    """Return whether a command can run as another user here."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("setpriv") is not None
