"""Count the functions that a picture, or the options about it, passes on its way through a command.

    python benchmarks/call_path.py upscale photo.jpg -o large.jpg --overwrite --offline
    python benchmarks/call_path.py --list eval --dataset Set5 --data-dir DIR -m dsclora-x4 --offline --fresh

A function of the package counts once, at the first call that hands it something of the work: an object of the package,
an array, a tensor, a picture, or a file of the command line. Not counted are libraries, comprehensions, special
methods, properties, and calls that hand on nothing but networks or entries of the catalog.

Prints the number of functions, how many of these functions hand the work on to another one, the number of files, and
how often two functions in a row lie in different files. With `--list`, prints the functions first, in the order of
first calls: docs/architecture.md.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType

import dsclora_cli
from dsclora_cli.cli.app import main

PACKAGE = f"{Path(dsclora_cli.__file__).parent}{os.sep}"
NO_WORK = ("dsclora_cli.models", "dsclora_cli.weights.catalog")
"""Modules of networks and of the catalog: their objects are no picture and no options."""

WORK = {"ndarray", "Tensor", "Image", "JpegImageFile", "PngImageFile", "generator"}
"""Types from outside the package that carry pixels."""

FEWEST_BYTES = 1000
"""Fewest bytes that count as a picture; shorter values are parts of a header."""


class CallPath:
    """Profile function that records first calls, in all threads.

    Args:
        files: arguments of the command that name files.
    """

    def __init__(self, files: tuple[str, ...]) -> None:
        self._files = files
        self._seen: set[CodeType] = set()
        self.calls: list[tuple[str, str]] = []
        """File and qualified name of each function, in the order of first calls."""
        self.hand_on: set[tuple[str, str]] = set()
        """Members of `calls` that call another member."""

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call; `sys.setprofile` gives the signature."""
        code = frame.f_code
        # Called for every function of every library: the cheap questions come first.
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name.startswith(("<", "__")):
            return
        if code not in self._seen and self._is_handed_work(frame):
            self._seen.add(code)
            self.calls.append(_place(code))
            self._mark_caller(frame.f_back)

    def _mark_caller(self, frame: FrameType | None) -> None:
        """Record the nearest caller that is a member of `calls`."""
        while frame is not None and frame.f_code not in self._seen:
            frame = frame.f_back
        if frame is not None:
            self.hand_on.add(_place(frame.f_code))

    def _is_handed_work(self, frame: FrameType) -> bool:
        code, values = frame.f_code, frame.f_locals
        owner = values.get("self")
        if isinstance(getattr(type(owner), code.co_name, None), property | cached_property):
            return False
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        # `self` counts where it is data, as dataclasses are. Other methods count by what else they are handed.
        is_data = hasattr(owner, "__dataclass_fields__")
        return any(self._is_work(values.get(name)) for name in arguments if is_data or name != "self")

    def _is_work(self, value: object, depth: int = 0) -> bool:
        kind = type(value)
        if kind.__module__.startswith(NO_WORK):
            return False
        if kind.__module__.startswith("dsclora_cli") or kind.__name__ in WORK:
            return True
        if isinstance(value, bytes | bytearray | memoryview):
            return len(value) > FEWEST_BYTES
        if isinstance(value, str | Path):
            return bool(self._files) and str(value).endswith(self._files)
        # The first element stands for all: lists of pictures, lists of lists of tensors.
        return depth < 2 and isinstance(value, list | tuple) and bool(value) and self._is_work(value[0], depth + 1)


def _place(code: CodeType) -> tuple[str, str]:
    """Return file and qualified name of a function of the package."""
    return code.co_filename.removeprefix(PACKAGE).replace(os.sep, "/"), code.co_qualname


def run(arguments: list[str]) -> CallPath:
    """Run a command of `dsclora`, and return the record of the functions that its work passes."""
    path = CallPath(tuple(argument for argument in arguments if Path(argument).suffix))
    threading.setprofile(path)
    sys.setprofile(path)
    try:
        with suppress(SystemExit):
            main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return path


if __name__ == "__main__":
    is_list = sys.argv[1:2] == ["--list"]
    path = run(sys.argv[2 if is_list else 1 :])
    if is_list:
        for call in path.calls:
            print(f"{call[0]:32} {call[1]}")
    changes = sum(one != other for (one, _), (other, _) in pairwise(path.calls))
    files = len({file for file, _ in path.calls})
    print(f"{len(path.calls)} functions in {files} files, {changes} changes of file; {len(path.hand_on)} hand on")
