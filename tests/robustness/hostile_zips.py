"""Hostile archives behind `zip://`: names that lead out, bombs, passwords, false ends, and lists without end."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

from sets import noise, png

from dsclora_cli.config import BatchOptions, ReadOptions, UpscaleOptions
from dsclora_cli.errors import DscloraError
from dsclora_cli.upscaling.inputs import find_inputs, open_input
from dsclora_cli.upscaling.output_names import OutputNamer
from dsclora_cli.upscaling.sizes import SizePlan

OPENED = 50
"""Pictures of an archive that are opened; all others are only listed."""

NAMES = (
    *("../owned.png", "../../../owned.png", "/tmp/owned.png", "a/../../owned.png", "..\\owned.png", "C:/owned.png"),
    *("./a.png", "a/./b.png", "a//b.png", "//a.png", "...png", "..", ".", "a/..", "./", "../", "/", "~/owned.png"),
    *("a\n.png", "a\x1b[31m.png", "\u202egnp.a", "a::b.png", "a?x=1.png", "a*.png", "con.png", "a.png/", " .png"),
)
"""Names of entries that lead out, that name the folder itself, or that mean something elsewhere."""


def zip_files() -> Iterator[tuple[str, bytes]]:
    """Yield archives."""
    good = png(noise(1))
    for name in NAMES:
        yield "names.zip", pack([(name, good)])
        yield "names.zip", pack([("good.png", good), (name, good), (f"{name}/deep/er.png", good)])
    yield from _bombs(good)
    yield from _locked(good)
    yield from _false_ends(good)
    random, whole = Random(8), pack([("a.png", good), ("sub/b.png", good)])
    for at in range(0, len(whole), len(whole) // 20):
        yield "short.zip", whole[:at]
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(3):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        yield "damaged.zip", bytes(data)


def pack(entries: list[tuple[str, bytes]]) -> bytes:
    """Return an archive whose names are exactly the given ones."""
    return raw([(name, 0, zlib.crc32(data), data, len(data), 8) for name, data in entries])


def raw(entries: list[tuple[str, int, int, bytes, int, int]], prefix: bytes = b"") -> bytes:
    """Return an archive of entries: name, flags, checksum, bytes, stated size, method; method 8 packs the bytes."""
    body, listed = io.BytesIO(), io.BytesIO()
    body.write(prefix)
    for name, flags, checksum, data, size, method in entries:
        packer = zlib.compressobj(9, wbits=-15)
        stored = packer.compress(data) + packer.flush() if method == 8 else data
        title = name.encode()
        fields = struct.pack("<4H3L2H", flags, method, 0, 33, checksum, len(stored), size, len(title), 0)
        listed.write(b"PK\x01\x02\x14\x00\x14\x00" + fields)
        listed.write(struct.pack("<3H2L", 0, 0, 0, 0, body.tell()) + title)
        body.write(b"PK\x03\x04\x14\x00" + fields + title + stored)
    return body.getvalue() + listed.getvalue() + end(len(entries), len(listed.getvalue()), body.tell())


def end(count: int, size: int, offset: int, comment: bytes = b"") -> bytes:
    """Return the last record of an archive."""
    few = min(count, 65535)
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, few, few, size, offset, len(comment)) + comment


def _bombs(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield archives that unpack to gigabytes, that state other sizes, and whose lists take all memory."""
    zeros = bytes(2**28)
    yield "bomb.zip", pack([("good.png", good), ("bomb.png", zeros)])
    yield "bombs.zip", pack([(f"{number}.png", zeros[: 2**25]) for number in range(4)])
    for size in (0, 1, 2**26, 2**31, 2**32 - 2):
        yield "size.zip", raw([("a.png", 0, zlib.crc32(good), good, size, 8)])
    for method, packed in ((12, bz2.compress(zeros)), (14, _lzma(zeros)), (93, good), (9, good), (99, good), (1, good)):
        for size in (10, 2**25, 2**32 - 2):
            yield "method.zip", raw([("a.png", 0, 0, packed, size, method)])
    entries = b"".join(
        b"PK\x01\x02" + bytes(24) + struct.pack("<HHHHHLL", 11, 0, 0, 0, 0, 0, 0) + b"%07d.png" % number
        for number in range(10**6)
    )
    local = b"PK\x03\x04" + bytes(26)
    yield "million.zip", local + entries + end(10**6, len(entries), len(local))
    yield "quarter.zip", local + entries[: 57 * 10**5 // 2] + end(50_000, 57 * 10**5 // 2, len(local))
    yield "deep.zip", pack([("a/" * 30_000 + "a.png", good)])
    yield "deep.zip", pack([(f"{number}/" + f"{'x' * 600}/" * 90 + "a.png", good) for number in range(200)])
    yield "nested.zip", pack([("inner.zip", pack([("bomb.png", zeros)])), ("a.png", good)])


def _lzma(data: bytes) -> bytes:
    """Return a stream as method 14 has it, with a dictionary of 1 GiB."""
    properties = b"\x5d" + struct.pack("<L", 2**30)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 2**24}]
    return b"\x09\x04\x05\x00" + properties + lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def _locked(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield entries with passwords, of hidden lists, and links and devices."""
    for flags in (0x1, 0x9, 0x20, 0x41, 0x2001, 0xFFFF):
        yield "locked.zip", raw([("a.png", flags, zlib.crc32(good), good, len(good), 8)])
    for kind in (0o120777, 0o060666, 0o020666, 0o010666):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            info = zipfile.ZipInfo("link.png")
            info.external_attr = kind << 16
            archive.writestr(info, b"/etc/passwd")
        yield "link.zip", packed.getvalue()


def _false_ends(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield archives with false numbers in the last record, with several last records, and in the long form."""
    whole = pack([("a.png", good)])
    at = whole.rindex(b"PK\x05\x06")
    listed = at - whole.rindex(b"PK\x01\x02")
    for count, size, offset in ((0, 0, 0), (2, listed, 0), (1, 2**32 - 1, 2**32 - 1), (65535, 2**31, 0), (1, 2**24, 9)):
        yield "end.zip", whole[:at] + end(count, size, offset)
    true = end(1, listed, at - listed)
    yield "two.zip", whole[:at] + end(1, listed, at - listed, b"PK\x05\x06" + bytes(18))
    yield "two.zip", whole[:at] + true + end(1, 2**31, 0)
    yield "sign.zip", whole[:at] + end(1, listed, int.from_bytes(b"PK\x05\x06", "little"))
    for size in (listed, 2**31, 2**62, 2**64 - 1):
        long = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, at - listed)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
        for between in (b"", bytes(16)):
            yield "long.zip", whole[:at] + long + between + locator + end(65535, 2**32 - 1, 2**32 - 1)
    for other in (b"", b"PK", b"PK\x05\x06", bytes(10**6), b"\x89PNG\r\n\x1a\n", good):
        yield "other.zip", other


def open_zip(path: Path) -> object:
    """List an archive with all folders, name the results, and decode the first pictures.

    Returns:
        The path of the archive.

    Raises:
        DscloraError: The first failure.
        AssertionError: A result would lie outside the folder of results.
    """
    tempfile.tempdir = str(path.parent)
    out = path.parent / "out"
    batch = BatchOptions(recursive=True, output=str(out))
    failures: list[DscloraError] = []
    for form in ("zip://::", "zip://**::"):
        found = find_inputs([f"{form}{path}"], batch)
        namer = OutputNamer(found, UpscaleOptions(batch=batch))
        for file in found.inputs[:OPENED]:
            try:
                if file.problem:
                    raise file.problem
                target = namer.target(file, SizePlan(4, 4, (2,), 2.0), "model", "PNG").path
                assert Path(str(target)).resolve().is_relative_to(out.resolve()) or not found.many, (
                    f"{target} is outside"
                )
                with ExitStack() as opened:
                    frames = open_input(file, ReadOptions(), in_bands=False, opened=opened)[1].frames()
                    assert [frame.shape for frame in frames]
            except DscloraError as error:
                failures.append(error)
    assert not any("\n" in str(error) for error in failures), failures
    if failures:
        raise failures[0]
    return path
