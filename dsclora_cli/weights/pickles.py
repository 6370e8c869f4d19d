"""Inspect pickles without running them: name the code that a file would run, and stand in for harmless objects.

torch reads pickles with `weights_only=True`. This module explains why torch refused a file, and offers stand-ins for
the harmless objects that training programs store next to the tensors.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self

import torch

from dsclora_cli.paths import open_regular
from dsclora_cli.weights.limits import MOST_PICKLE_BYTES, MOST_PICKLES

_MOST_STEPS = 2_000_000

_PLAIN = re.compile(
    r"torch\.(\w*Storage|Tensor|Size|device|bool|[bu]?(float|int|complex)\w*|double|half|long|short|strided|per_\w+)"
    r"|torch\.(_utils\._rebuild_\w+|nn\.parameter\.\w*Parameter|storage\.\w*Storage|_tensor\._rebuild\w+)"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|argparse\.Namespace|pathlib(\._local)?\.\w*Path"
    r"|numpy\.(dtype|ndarray|dtypes\.\w+|_?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer))"
)
"""Names of torch, and of the stand-ins; used to explain a refusal, never to permit anything."""


class StandIn:
    """An object of another program, of which nothing is kept."""

    def __new__(cls, *_: object) -> Self:
        """Return an empty object for any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the content of the object."""


class StandInDtype(StandIn):
    """The dtype of a NumPy array: only the name is kept."""

    name: object = ""
    """Kind and number of bytes, such as `f4` for float32."""

    def __new__(cls, name: object = "", *_: object) -> Self:
        """Return a dtype with a name."""
        dtype = super().__new__(cls)
        dtype.name = name
        return dtype

    def __setstate__(self, state: object) -> None:
        """Forget the dtype unless the bytes are in little-endian order."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in {"<", "|"}:
            self.name = ""


class StandInArray(StandIn):
    """A NumPy array: the state is kept, and no code of NumPy runs."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        """Keep version, shape, dtype, order and bytes."""
        self.state = state

    def tensor(self) -> torch.Tensor | None:
        """Return the values as a tensor; None for other dtypes than float16, float32 and float64."""
        dtypes = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float64}
        match self.state:
            case (_, tuple(shape), StandInDtype(name=str(name)), order, bytes(data)) if name in dtypes and data:
                values = torch.frombuffer(bytearray(data), dtype=dtypes[name])
                # Fortran's order is the order of the reversed shape, transposed.
                return (
                    values.reshape(shape[::-1]).permute(*reversed(range(len(shape))))
                    if order
                    else values.reshape(shape)
                )
        return None


def _scalar(*_: object) -> None:
    """Stand in for a NumPy scalar, such as a best score: nothing is kept."""


def _array(*_: object) -> StandInArray:
    """Stand in for the empty array that an unpickler then fills."""
    return StandInArray()


def _array_of_bytes(data: object, dtype: object, shape: object, order: object) -> StandInArray:
    """Stand in for an array that pickles of protocol 5 make of bytes."""
    array = StandInArray()
    array.__setstate__((0, shape, dtype, order == "F", data))
    return array


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")

STAND_INS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_array_of_bytes, f"numpy.{core}.numeric._frombuffer") for core in ("core", "_core")),
    *((StandIn, f"pathlib.{name}") for name in _PATHS),
    *((StandIn, f"pathlib._local.{name}") for name in _PATHS),
    (StandIn, "argparse.Namespace"),
    (StandInDtype, "numpy.dtype"),
    (StandInArray, "numpy.ndarray"),
]
"""Callables that torch uses in place of the named ones."""


def find_code(path: Path) -> str:
    """Return the name of the first object in a pickle that is neither data nor a tensor, else an empty text."""
    try:
        for stream in _pickles(path):
            for _ in range(MOST_PICKLES):
                for name in _names(stream):
                    if not _PLAIN.fullmatch(name):
                        return name[:80] if name.isprintable() else ascii(name[:80])
    except Exception:  # noqa: BLE001 (bytes of strangers, which another function has already refused)
        return ""
    return ""


def find_protocol(path: Path) -> int:
    """Return the protocol of a pickle, 0 for an unknown one."""
    try:
        head = next(head for stream in _pickles(path) if (head := stream.read(2)))
    except Exception:  # noqa: BLE001 (as above)
        return 0
    return head[1] if len(head) == 2 and head[0] == 0x80 and head[1] < 10 else 0


def _pickles(path: Path) -> Iterator[BinaryIO]:
    """Yield the pickles in an archive of torch, else the file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl"):
                    with archive.open(entry) as packed:
                        yield BytesIO(packed.read(MOST_PICKLE_BYTES))
    else:
        with open_regular(path) as file:
            yield file


def _names(stream: BinaryIO) -> Iterator[str]:
    """Yield the name of every object that a pickle imports."""
    texts: list[str] = []
    memo: dict[int, str] = {}
    for step, value, _ in islice(pickletools.genops(stream), _MOST_STEPS):
        if step.name in {"GLOBAL", "INST"}:
            yield str(value).replace(" ", ".")
        elif step.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif "UNICODE" in step.name or "STRING" in step.name:
            texts.append(str(value))
        elif step.name == "MEMOIZE" or step.name.endswith("PUT"):
            memo[len(memo) if value is None else int(str(value))] = texts[-1] if texts else "?"
        elif step.name.endswith("GET"):
            texts.append(memo.get(int(str(value)), "?"))
