"""Rewrite pickles of the protocols 3 to 5 in protocol 2, the only protocol that torch reads safely.

Nothing runs: opcodes are replaced one by one, and torch then reads the result with `weights_only=True`.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dsclora_cli.paths import open_regular
from dsclora_cli.weights.limits import MOST_PICKLE_BYTES, MOST_PICKLES

_PROTOCOL_2 = pickle.PROTO + b"\2"
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
_GETS = ("BINGET", "LONG_BINGET")
_PUTS = ("BINPUT", "LONG_BINPUT")
_DROPPED = ("FRAME", "PROTO")
_NUMBERS = {"BININT": "<i", "BININT1": "<B", "BININT2": "<H", "BINFLOAT": ">d"}
"""Opcodes of numbers, with the format of the number."""


def with_protocol_2(path: Path) -> BinaryIO:
    """Return a file of torch in memory, zipped or old-style, with its pickles in protocol 2.

    Raises:
        Exception: The file is damaged, or a pickle is too long.
    """
    rewritten = io.BytesIO()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(rewritten, "w") as target:
            for entry in archive.infolist():
                data = archive.read(entry)
                is_pickle = entry.filename.endswith(".pkl")
                target.writestr(entry.filename, _rewrite(io.BytesIO(data)) if is_pickle else data)
    else:
        with open_regular(path) as file:
            for _ in range(MOST_PICKLES):
                rewritten.write(_rewrite(file))
            rewritten.write(file.read())
    rewritten.seek(0)
    return rewritten


def _rewrite(stream: BinaryIO) -> bytes:
    """Return the next pickle of a stream in protocol 2."""
    parts, size = [_PROTOCOL_2], 0
    for part in _Rewriting().parts(stream):
        parts.append(part)
        size += len(part)
        if size > MOST_PICKLE_BYTES:
            raise ValueError("a pickle is too long")
    return b"".join(parts)


class _Rewriting:
    """A walk over the opcodes of a pickle. Texts are written where they are used, and never remembered."""

    def __init__(self) -> None:
        self._pending: list[str] = []
        """The last texts: STACK_GLOBAL takes two from the stack, and protocol 2 has them in the opcode."""
        self._texts: dict[int, str] = {}
        """Texts that the pickle remembers, by number."""
        self._remembered = 0

    def parts(self, stream: BinaryIO) -> Iterator[bytes]:
        """Yield opcodes of protocol 2."""
        after_text = False
        value: Any
        for opcode, value, _ in pickletools.genops(stream):
            name = opcode.name
            text = value if name in _TEXTS else self._texts.get(value) if name in _GETS else None
            if isinstance(text, str):
                self._pending.append(text)
                after_text = True
                continue
            if name == "MEMOIZE" or name in _PUTS:
                number = self._remembered if name == "MEMOIZE" else value
                self._remembered += 1
                if after_text:
                    self._texts[number] = self._pending[-1]
                else:
                    yield pickle.LONG_BINPUT + struct.pack("<I", number)
                continue
            after_text = False
            if name == "STACK_GLOBAL":
                *self._pending, module, attribute = self._pending
                yield from self._flush()
                yield pickle.GLOBAL + _line(module) + _line(attribute)
                continue
            yield from self._flush()
            if name in _BYTES:
                yield _coded_bytes(value)
            elif name not in _DROPPED:
                yield _coded(name, opcode.code.encode("latin-1"), value)

    def _flush(self) -> Iterator[bytes]:
        yield from map(_coded_text, self._pending)
        self._pending = []


def _line(text: str) -> bytes:
    if not text.isprintable():
        raise ValueError("the name of an object is no name")
    return text.encode() + b"\n"


def _coded_text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _coded_bytes(data: bytes) -> bytes:
    """Return the opcodes for bytes: protocol 2 has none, and encodes a text of the same numbers."""
    texts = _coded_text(data.decode("latin-1")) + _coded_text("latin1")
    return pickle.GLOBAL + b"_codecs\nencode\n" + texts + pickle.TUPLE2 + pickle.REDUCE


def _coded(name: str, code: bytes, value: Any) -> bytes:  # noqa: ANN401 - as the opcode demands
    """Return an opcode as in the file. Raises ValueError for opcodes that no file of weights needs."""
    if value is None:
        return code
    if name in _NUMBERS:
        return code + struct.pack(_NUMBERS[name], value)
    if name in _GETS:
        return pickle.LONG_BINGET + struct.pack("<I", value)
    if name == "LONG1":
        data = pickle.encode_long(value)
        return code + bytes((len(data),)) + data
    if name == "GLOBAL":
        module, _, attribute = value.partition(" ")
        return code + _line(module) + _line(attribute)
    raise ValueError(f"a pickle with {name}")
