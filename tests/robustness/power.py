"""What a power cut would cost: the order of writes, syncs and renames of a command, traced by strace."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from jobs import JOBS, Job, environment_of, hub
from limited import Limits, run_limited

CALLS = (
    *("write", "pwrite64", "writev", "pwritev", "ftruncate", "copy_file_range", "sendfile"),
    *("fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat"),
)
"""Calls of the system that change what a disk holds, or wait for the disk."""

EXPENDABLE = {
    "*.lock": "holds nothing",
    "home/cache/training/index.jsonl": "a picture without a line is hashed again",
    "run/tensorboard/*": "a copy of the log, for people",
    "home/.cache/matplotlib/*": "the list of fonts of another package, which is made again",
    "home/tmp/*": "gone after the run",
    "home/.std*": "what the test itself catches",
}
"""Files that are written under their final names, or not synced, with the reason why nothing is lost."""

_CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_DESCRIPTOR = re.compile(r"\d+<(?P<path>/[^>]*)>")
_NAMES = re.compile(r'"(?P<path>(?:[^"\\]|\\.)*)"')


def is_available() -> bool:
    """Return whether strace is installed."""
    return shutil.which("strace") is not None


@dataclass
class Trace:
    """Files and folders of a traced command, by what a power cut would leave of them."""

    folder: Path
    """The folder of the command; changes elsewhere are left out."""

    final: int = 0
    """Number of files that got a final name."""

    syncs: int = 0
    findings: list[str] = field(default_factory=list)

    in_place: set[str] = field(default_factory=set)
    """Expendable files that were written."""

    _dirty: set[str] = field(default_factory=set)
    """Files with bytes that are not on the disk."""

    _unlisted: dict[str, str] = field(default_factory=dict)
    """Files whose names are not on the disk, each with its folder."""

    def read(self, lines: Sequence[str]) -> None:
        """Read the lines of strace, and finish the account."""
        for name, arguments in _whole_calls(lines):
            self._apply(name, arguments)
        self.findings += [f"{name}: its folder was not synced after the rename" for name in sorted(self._unlisted)]
        self.findings += [f"{name}: written under its final name and not synced" for name in sorted(self._dirty)]

    def _apply(self, name: str, arguments: str) -> None:
        descriptors = [self._inner(match["path"]) for match in _DESCRIPTOR.finditer(arguments)]
        if name in {"fsync", "fdatasync"}:
            self._sync(descriptors[0] if descriptors else None)
        elif name.startswith(("rename", "link")):
            names = [self._inner(match["path"]) for match in _NAMES.finditer(arguments)]
            self._rename(*names[:2])
        elif descriptors and (written := descriptors[-1 if name == "copy_file_range" else 0]):
            self._write(written)

    def _inner(self, path: str) -> str | None:
        """Return a path relative to the folder of the command; None elsewhere."""
        place = self.folder / path
        return place.relative_to(self.folder).as_posix() if place.is_relative_to(self.folder) else None

    def _write(self, name: str) -> None:
        if any(fnmatch(name, glob) for glob in EXPENDABLE):
            self.in_place.add(name)
        else:
            self._dirty.add(name)

    def _sync(self, name: str | None) -> None:
        if name is None:
            return
        self.syncs += 1
        self._dirty.discard(name)
        for file in [file for file, folder in self._unlisted.items() if folder == name]:
            del self._unlisted[file]

    def _rename(self, old: str | None, new: str | None) -> None:
        if old is None or new is None or any(fnmatch(new, glob) for glob in EXPENDABLE):
            return
        self.final += 1
        if old in self._dirty:
            self._dirty.discard(old)
            self.findings.append(f"{new}: renamed before its bytes were on the disk")
        for file in [file for file in self._dirty if PurePosixPath(file).is_relative_to(old)]:
            self._dirty.discard(file)
            self.findings.append(f"{new}: renamed before the bytes of {file} were on the disk")
        self._unlisted[new] = PurePosixPath(new).parent.as_posix()


def _whole_calls(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and arguments of each call that succeeded, in the order in which the calls ended."""
    begun: dict[tuple[str, str], str] = {}
    for line in lines:
        if match := _RESUMED.match(line):
            arguments = begun.pop((match["pid"], match["name"]), "") + match["rest"]
        elif match := _CALL.match(line):
            arguments = match["arguments"]
            if arguments.endswith("<unfinished ...>"):
                begun[match["pid"], match["name"]] = arguments.removesuffix("<unfinished ...>")
                # Bytes of a write may reach the disk after a sync that ended in between.
                if match["name"] in {"fsync", "fdatasync"} or match["name"].startswith(("rename", "link")):
                    continue
                yield match["name"], arguments
                continue
        else:
            continue
        if "= -1 E" not in arguments:
            yield match["name"], arguments


def trace(name: str, folder: Path) -> Trace:
    """Run a job under strace, and return the account of what the job has written."""
    job: Job = JOBS[name]
    job.prepare(folder)
    log = folder.parent / f"{folder.name}.strace"
    with hub(job) as served:
        environment = environment_of(folder, served)
        strace = ("strace", "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={','.join(CALLS)}", "--seccomp-bpf")
        ended = run_limited((*strace, *job.command()), folder, environment, Limits(seconds=600), job.given(folder))
    assert ended.code == 0, ended.stderr
    account = Trace(folder)
    account.read(log.read_text(encoding="utf-8", errors="replace").splitlines())
    return account
