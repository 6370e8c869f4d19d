"""Commands that get too little, or that find the world changed: a success or words, and nothing lost."""

from __future__ import annotations

import errno
import io
import operator
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from batches import save_photo
from jobs import JOBS, Job, environment_of, hub
from kills import Reference, reference
from limited import PROGRAM, Ended, Limits, private_environment, run_limited
from PIL import Image

_BAD = ("Traceback", "this is a bug", "Exception ignored", "Fatal", "core dumped")
"""Words that no command may write."""


@dataclass
class Tally:
    """Counts and findings of a kind of scarcity."""

    cases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def note(self, name: str, ended: Ended, found: Sequence[str] = ()) -> None:
        """Count a command, and keep what is wrong with how the command ended."""
        self.cases += 1
        self.ends[f"exit {ended.code}" if ended.code >= 0 else f"signal {-ended.code}"] += 1
        self.findings += [f"{name}: {text}" for text in (*_judge_words(ended), *found)]


def _judge_words(ended: Ended) -> Iterator[str]:
    words = ended.stdout + ended.stderr
    if ended.code not in {0, 1, 2, 3}:
        yield f"ended with {ended.code}: {words[-200:]!r}"
    if any(bad in words for bad in _BAD):
        yield f"wrote {words[-300:]!r}"
    if ended.code and not words.strip():
        yield f"ended with {ended.code} without a message"


def _judge_files(
    job: Job, place: Path, whole: Reference, ended: Ended, is_equal: Callable[[bytes, bytes], bool] = operator.eq
) -> Iterator[str]:
    """Yield what is wrong with the files: a result is whole or absent, and nothing unfinished stays."""
    there = job.files(place)
    wrong = [name for name, data in there.items() if not job.resume and not is_equal(data, whole.files[name])]
    if wrong:
        yield f"{wrong} differ"
    if ended.code == 0 and there.keys() != whole.files.keys():
        yield f"ended with 0 with {len(there)} of {len(whole.files)} results"
    if left := job.unfinished(place):
        yield f"left {left}"
    if any((place / name).read_bytes() != data for name, data in whole.inputs.items()):
        yield "an input has changed"


def _is_close(data: bytes, other: bytes) -> bool:
    """Return whether files are equal, or pictures that differ by the rounding of another tile size."""
    if data == other:
        return True
    try:
        one, two = (np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), np.int16) for each in (data, other))
    except OSError:
        return False
    # One level of a pixel becomes a few levels in a format with losses.
    return one.shape == two.shape and bool(np.abs(one - two).max() <= 16)


# A disk that is full.


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """Mount a disk of `size` bytes at a folder. Raises PermissionError where nobody may mount."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        raise PermissionError(errno.EPERM, "nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_disks(name: str, count: int, folder: Path, tally: Tally) -> None:
    """Run a job on disks of `count` sizes, from one that holds the inputs only to one that holds nearly all.

    After each run the disk grows, and the same command must end as on a large disk.
    """
    job = JOBS[name]
    with hub(job) as served:
        whole, least, most = _measure(job, folder, served)
        for number in range(count):
            # The size 0 would stand for a disk without a limit.
            size = max(least + (most - least) * number // count, 1 << 14)
            place = folder / f"disk{number}"
            with small_disk(place, size):
                job.prepare(place)
                environment = _environment_on_disk(place, folder / f"home{number}", served)
                ended = run_limited(job.command(), place, environment, Limits(seconds=300), job.given(place))
                found = list(_judge_files(job, place, whole, ended))
                subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
                again = run_limited(
                    job.command(resumed=True), place, environment, Limits(seconds=300), job.given(place)
                )
                if again.code and not (job.refuses and again.code == 2):
                    found.append(f"with more space, the command ended with {again.code}: {again.stderr[-200:]!r}")
                elif job.files(place) != whole.files:
                    found.append("with more space, the results differ")
                tally.note(f"{name} on {size >> 10} KiB", ended, found)


def _measure(job: Job, folder: Path, served: dict[str, str]) -> tuple[Reference, int, int]:
    """Return an undisturbed run, the bytes of the inputs alone, and the bytes on the disk after the run."""
    whole = reference(job, folder, served)
    place = folder / "measured"
    with small_disk(place, 1 << 28):
        job.prepare(place)
        environment = _environment_on_disk(place, folder / "home", served)
        least = _used(place)
        run_limited(job.command(), place, environment, Limits(seconds=300), job.given(place))
        return whole, least, _used(place)


def _environment_on_disk(place: Path, home: Path, served: dict[str, str]) -> dict[str, str]:
    """Return an environment with every folder of the program on the small disk, and the log of the test elsewhere."""
    home.mkdir(exist_ok=True)
    return environment_of(place, served) | {"HOME": str(home)}


def _used(place: Path) -> int:
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


# Limits of the system.

LIMITS = {
    **{f"files of {size} bytes": Limits(file_size=size) for size in (1, 500, 3000, 20_000)},
    **{f"{count} descriptors": Limits(files=count) for count in (24, 32, 48, 96)},
    **{f"{size} MB of addresses": Limits(address_space=size << 20) for size in (300, 500, 800, 1500)},
    **{f"{size} MB of data": Limits(data=size << 20) for size in (60, 120, 250)},
}
"""Limits of a process, from far too little to nearly enough."""


def limit(name: str, limits: Sequence[str], folder: Path, tally: Tally) -> None:
    """Run a job under each of some limits."""
    job = JOBS[name]
    with hub(job) as served:
        whole = reference(job, folder, served)
        for number, each in enumerate(limits):
            place = folder / f"limit{number}"
            place.mkdir()
            job.prepare(place)
            environment = environment_of(place, served)
            ended = run_limited(job.command(), place, environment, LIMITS[each], job.given(place))
            # Little memory leads to small tiles.
            tally.note(f"{name} with {each}", ended, list(_judge_files(job, place, whole, ended, _is_close)))


# Calls of the system that fail.

FAULTS = (
    *(f"fsync:error=EIO:when={number}" for number in (1, 2, 3, 4)),
    *(f"rename:error={reason}:when={number}" for number in (1, 2, 3) for reason in ("ENOSPC", "EACCES")),
    *(f"mkdir:error={reason}:when={number}" for number in (1, 2, 3) for reason in ("ENOSPC", "EROFS")),
    *("flock:error=ENOLCK:when=1+", "flock:error=ENOSYS:when=1+", "rename:error=EIO:when=1+"),
    *("fsync:error=ENOSPC:when=1+", "fsync:error=EDQUOT:when=2+", "mkdir:error=EDQUOT:when=1+"),
    "unlink:error=EACCES:when=1+",
)
"""Faults that strace injects: call, error, and which of the calls fail."""


def fail_calls(name: str, faults: Sequence[str], folder: Path, tally: Tally) -> None:
    """Run a job while calls of the system fail, then once more without a fault."""
    job = JOBS[name]
    with hub(job) as served:
        whole = reference(job, folder, served)
        for number, fault in enumerate(faults):
            place = folder / f"fault{number}"
            place.mkdir()
            job.prepare(place)
            environment = environment_of(place, served)
            call = fault.partition(":")[0]
            strace = ("strace", "-f", "-qqq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={fault}")
            ended = run_limited((*strace, *job.command()), place, environment, Limits(seconds=300), job.given(place))
            # A file that must not be removed may stay.
            found = [text for text in _judge_files(job, place, whole, ended) if call != "unlink" or "left" not in text]
            again = job.start_again(place, environment)
            if again.code and not (job.refuses and again.code == 2):
                found.append(f"without the fault, the command ended with {again.code}: {again.stderr[-200:]!r}")
            elif job.files(place) != whole.files:
                found.append("without the fault, the results differ")
            tally.note(f"{name} with {fault}", ended, found)


# A world that is odd, or changes.

UPSCALE = (*PROGRAM, "upscale", "in", "-o", "out", "--offline", "--device", "cpu", "-s", "2")

ODD = (
    *(b"new\nline.png", b"not-\xff\xfe-utf8.png", b"-dash.png", b"--help.png", b"a" * 250 + b".png", b" .png"),
    *(b"%s{0}$HOME.png", b"'quote\".png", b"\xe2\x80\xaeright-to-left.png", b"\x1b[31mred.png", b"tab\t.png", b"*.png"),
    *(b"\xf0\x9f\x98\x80.png", b"[a-z]?.png", b"~.png", b"@list.png", b"C:\\con.png", b"a.png.png"),
)
"""Names of pictures, as bytes."""


def read_only_places(folder: Path, tally: Tally) -> None:
    """Upscale where the results, or the folders of the program, cannot be written. Raises PermissionError."""
    for name, places in {"results": ("out",), "caches": ("home",), "everything": ("out", "home", "in")}.items():
        place = folder / name
        _pictures(place, 3)
        environment = private_environment(place / "home") | {"HOME": str(folder), "TMPDIR": str(folder)}
        with small_disk(place / "elsewhere", 1 << 20):
            for each in places:
                (place / each).mkdir(exist_ok=True)
                _bind(place / each)
            try:
                ended = run_limited(UPSCALE, place, environment, Limits(seconds=120))
            finally:
                for each in places:
                    subprocess.run(["umount", "-l", str(place / each)], check=False)
        wanted, there = (0, 3) if name == "caches" else (1, 0)
        found = [] if ended.code == wanted else [f"ended with {ended.code}: {ended.stderr[-200:]!r}"]
        found += [] if len(_shown(place / "out")) == there else [f"{len(_shown(place / 'out'))} results"]
        tally.note(f"read-only {name}", ended, found)


def _bind(place: Path) -> None:
    """Make a folder read-only, also for root."""
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)


def odd_names(folder: Path, tally: Tally) -> None:
    """Upscale pictures with odd names, in a folder and by name; the longest name has no room for a suffix."""
    for number, name in enumerate(ODD):
        place = folder / str(number)
        _pictures(place, 1)
        (place / "in" / "00.png").rename(place / "in" / os.fsdecode(name))
        options, environment = UPSCALE[5:], private_environment(folder / "home")
        forms = {
            "in a folder": (UPSCALE, ""),
            "by path": ((*UPSCALE[:4], *options, "--", os.fsdecode(b"in/" + name)), ""),
            "by name": ((*UPSCALE[:4], *options, "-o", "../out", "--", os.fsdecode(name)), "in"),
        }
        for form, (command, at) in forms.items():
            shutil.rmtree(place / "out", ignore_errors=True)
            ended = run_limited(command, place / at, environment, Limits(seconds=120))
            there = len(_shown(place / "out"))
            right = (ended.code, there) == (0, 1) or (len(name) > 200 and (ended.code, there) == (1, 0))
            found = [] if right else [f"{ended.code}, {there} results: {ended.stderr[-200:]!r}"]
            tally.note(f"{name!r:.30} {form}", ended, found)


def changing_inputs(rounds: int, folder: Path, tally: Tally) -> None:
    """Upscale while pictures are cut off, replaced, removed and touched, and folders vanish."""
    for number in range(rounds):
        place = folder / str(number)
        _pictures(place, 24)
        change = CHANGES[number % len(CHANGES)]
        done = threading.Event()
        thread = threading.Thread(target=_change, args=(place, change, done))
        thread.start()
        ended = run_limited(UPSCALE, place, private_environment(place / "home"), Limits(seconds=120))
        done.set()
        thread.join()
        found = [f"{path.name} cannot be read" for path in _shown(place / "out") if not _is_picture(path)]
        tally.note(change.__name__.strip("_"), ended, found)


def _change(place: Path, change: Callable[[Path, int], None], done: threading.Event) -> None:
    """Change the pictures one after the other, the last ones first, while results come."""
    while not done.is_set() and not (place / "out").exists():
        time.sleep(0.001)
    for number in reversed(range(24)):
        with suppress(OSError):
            change(place, number)
        if done.wait(0.01):
            return


def _cut_off(place: Path, number: int) -> None:
    os.truncate(place / "in" / f"{number:02}.png", 60)


def _replace(place: Path, number: int) -> None:
    save_photo(place / "in" / f"{number:02}.png", (31, 17), seed=99)


def _remove(place: Path, number: int) -> None:
    (place / "in" / f"{number:02}.png").unlink()


def _touch(place: Path, number: int) -> None:
    os.utime(place / "in" / f"{number:02}.png", (2e9, 2e9))


def _become_a_folder(place: Path, number: int) -> None:
    _remove(place, number)
    (place / "in" / f"{number:02}.png").mkdir()


def _become_a_pipe(place: Path, number: int) -> None:
    _remove(place, number)
    os.mkfifo(place / "in" / f"{number:02}.png")


def _lose_the_inputs(place: Path, number: int) -> None:
    shutil.rmtree(place / "in")


def _lose_the_results(place: Path, number: int) -> None:
    shutil.rmtree(place / "out")


def _lose_the_records(place: Path, number: int) -> None:
    shutil.rmtree(place / "home" / "state")


CHANGES = (_cut_off, _replace, _remove, _touch, _become_a_folder, _become_a_pipe)
CHANGES += (_lose_the_inputs, _lose_the_results, _lose_the_records)

CLOCKS = {
    "jumps back": "time.time = lambda: 1.8e9 - 3600 * next(calls)",
    "stands still": "time.time = lambda: 1.8e9",
    "before 1970": "time.time = lambda: -86400.0",
    "year 2100": "time.time = lambda: 4.1e9",
    "jumps": "time.time = lambda: 1.8e9 + (-1) ** next(calls) * 1e8",
}
"""Clocks, as Python that runs before the program."""


def clocks(folder: Path, tally: Tally) -> None:
    """Upscale twice under wrong clocks, and with file times far in the past and in the future."""
    for name, patch in {**CLOCKS, "file times": "", "negative file times": ""}.items():
        place = folder / name.replace(" ", "-")
        _pictures(place, 2)
        if "file times" in name:
            os.utime(place / "in" / "00.png", (-1e9, -1e9) if name.startswith("negative") else (4e9, 4e9))
            os.utime(place / "in" / "01.png", (0, 0))
        (place / "patch").mkdir()
        text = f"import itertools, time\ncalls = itertools.count()\n{patch}\n"
        (place / "patch" / "sitecustomize.py").write_text(text, encoding="utf-8")
        environment = private_environment(place / "home")
        environment["PYTHONPATH"] = f"{place / 'patch'}{os.pathsep}{environment['PYTHONPATH']}"
        for words in ("2 done", "nothing to do"):
            ended = run_limited(UPSCALE, place, environment, Limits(seconds=120))
            right = ended.code == 0 and words in ended.stderr and len(_shown(place / "out")) == 2
            tally.note(f"{name}, {words}", ended, [] if right else [f"{ended.code}: {ended.stderr[-200:]!r}"])


def several_processes(rounds: int, folder: Path, tally: Tally) -> None:
    """Upscale the same pictures into one folder by three processes, of which the first is killed; then once more."""
    job = JOBS["many small pictures"]
    whole = reference(job, folder, {})
    for number in range(rounds):
        place = folder / str(number)
        place.mkdir()
        job.prepare(place)
        environment = environment_of(place, {})
        started = [
            subprocess.Popen(
                job.command(), cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        while len(job.names(place)) <= number and started[0].poll() is None:
            time.sleep(0.001)
        started[0].kill()
        for each in started[1:]:
            ended = Ended(0, "", each.communicate(timeout=300)[1], 0, 0, 0, hung=False)
            tally.note("beside others", Ended(each.returncode, "", ended.stderr, 0, 0, 0, hung=False))
        started[0].communicate(timeout=60)
        again = job.start_again(place, environment)
        tally.note("after the others", again, list(_judge_files(job, place, whole, again)))


def _pictures(place: Path, count: int) -> None:
    for seed in range(count):
        save_photo(place / "in" / f"{seed:02}.png", (24, 18), seed=seed)


def _shown(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return False
    return True
