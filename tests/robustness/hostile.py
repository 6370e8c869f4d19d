"""Hostile weights, archives, catalogues, files of caches, and pictures, made by code and opened under an audit."""

from __future__ import annotations

import builtins
import io
import itertools
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from mutations import edit_text
from sets import noise, png, tar_gz, zipped
from small_networks import made

from dsclora_cli.datasets.cache import TrainCache
from dsclora_cli.datasets.download import unpack_hr
from dsclora_cli.errors import DscloraError
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.inference.native.weights import load_kept
from dsclora_cli.inference.openvino import load_converted
from dsclora_cli.weights.catalog import packaged_file, read_catalog
from dsclora_cli.weights.checkpoint import describe_file

Case = tuple[str, bytes]
"""Name of the file, and bytes."""

SLOW = 20
"""Seconds of processor time above which a case is a finding."""

_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "pty.spawn",
    "ctypes.dlopen",
)
_WATCH: dict[str, object] = {"inside": None, "events": []}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    """Note every event of Python that a file of a stranger must not cause, while a case is open."""
    inside = _WATCH["inside"]
    if inside is None:
        return
    wrong = event in _FORBIDDEN
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        wrong = not str(arguments[0]).startswith((str(inside), "/dev/", "<"))
    if wrong:
        _WATCH["events"].append(f"{event} {arguments!r:.80}")  # type: ignore[attr-defined]


@dataclass
class HostileTally:
    """Counts and findings of one kind."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0


def open_all(kind: str, folder: Path) -> HostileTally:
    """Open every case of a kind in a folder of its own, and return counts and findings."""
    make, consume = KINDS[kind]
    tally = HostileTally()
    if "hook" not in _WATCH:
        sys.addaudithook(_audit)
        _WATCH["hook"] = True
    for number, (name, data) in enumerate(make()):
        place = folder / str(number)
        place.mkdir(parents=True)
        path = place / name
        path.write_bytes(data)
        tally.cases += 1
        start = time.process_time()
        _WATCH["events"], _WATCH["inside"] = [], place
        try:
            outcome = "opened" if consume(path) is not None else "left out"
        except DscloraError as error:
            outcome = "refused"
            if "\n" in str(error):
                tally.findings.append(f"{number} {name}: a message of several lines")
        except Exception as error:  # noqa: BLE001 - every other exception is a finding
            outcome = "other"
            tally.findings.append(f"{number} {name}: {type(error).__name__}: {error!s:.100}")
        finally:
            _WATCH["inside"] = None
        taken = time.process_time() - start
        tally.slowest = max(tally.slowest, taken)
        tally.outcomes[outcome] += 1
        tally.findings += [f"{number} {name}: {event}" for event in _WATCH["events"]]  # type: ignore[attr-defined]
        if taken > SLOW:
            tally.findings.append(f"{number} {name}: {taken:.1f} s")
        if (folder / "owned").exists() or (folder.parent / "owned").exists():
            tally.findings.append(f"{number} {name}: a file was written outside")
    return tally


class Call:
    """A pickle that calls a function."""

    def __init__(self, function: Callable[..., object], *values: object) -> None:
        self.call = (function, values)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def weights() -> Iterator[Case]:
    """Yield weight files that would run code, in every form and protocol, and files with false claims."""
    gadgets = {
        "system": Call(os.system, "touch ../owned"),
        "popen": Call(subprocess.Popen, ["touch", "../owned"]),
        "exec": Call(builtins.exec, "open('../owned', 'w')"),
        "eval": Call(builtins.eval, "1"),
        "import": Call(builtins.__import__, "os"),
        "getattr": Call(getattr, "a", "upper"),
        "open": Call(open, "../owned", "w"),
        "load": Call(torch.load, "x"),
        "numpy": Call(np.load, "x"),
        "thread": Call(threading.Thread),
        "remove": Call(os.remove, "net.pth"),
    }
    state = made("span without norm").state_dict()
    for (name, gadget), protocol in itertools.product(gadgets.items(), range(6)):
        yield f"bare-{name}-{protocol}.pth", pickle.dumps(gadget, protocol)
        for is_zip in (True, False):
            buffer = io.BytesIO()
            content = {"params": state, "x": gadget}
            torch.save(content, buffer, pickle_protocol=max(2, protocol), _use_new_zipfile_serialization=is_zip)
            yield f"{name}-{protocol}.pth", buffer.getvalue()
    yield from _false_claims()


def _false_claims() -> Iterator[Case]:
    """Yield safetensors files with headers that lie about sizes, offsets and types."""
    for shape, ends, kind in itertools.product(
        ([2, 2], [2**31, 2**31], [-1, 4], [], [0] * 1000), ([0, 16], [0, 2**62], [16, 0]), ("F32", "F64", "X9", "BOOL")
    ):
        header = json.dumps({"conv_cat.bias": {"dtype": kind, "shape": shape, "data_offsets": ends}}).encode()
        yield "net.safetensors", struct.pack("<Q", len(header)) + header + bytes(16)
    for size in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield "net.safetensors", struct.pack("<Q", size) + b"{" * 64


def archives() -> Iterator[Case]:
    """Yield archives of sets with names that lead out, links, devices, bombs and false heads."""
    good = png(noise(1))
    names = (
        "../owned",
        "/tmp/owned",
        "a/../../owned",
        "..\\owned",
        "C:/owned",
        "HR/\x00a.png",
        "HR/a\n.png",
        "~/owned",
        "HR/" + "x" * 300,
    )
    for name, pack in itertools.product(names, (tar_gz, zipped)):
        with suppress(ValueError, OSError):
            yield "set.zip", pack({"HR/good.png": good, f"{name}.png": good})
    for kind, target in itertools.product(
        (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE),
        ("/etc/passwd", "../../owned", "/dev/zero"),
    ):
        info = tarfile.TarInfo("HR/b.png")
        info.type, info.linkname = kind, target
        yield "set.tgz", tar_gz({"HR/a.png": good, "HR/b.png": info})
    for size in (2**20, 2**24, 2**27):
        yield "bomb.zip", zipped({"HR/a.png": bytes(size)})
        yield "bomb.tgz", tar_gz({"HR/a.png": bytes(size)})
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as packed:
            packed.writestr("HR/a.png", good)
        yield "set.zip", buffer.getvalue()
    random, whole = Random(5), (zipped({"HR/a.png": good, "HR/b.png": good}), tar_gz({"HR/a.png": good}))
    for number in range(30):
        data = bytearray(whole[number % 2])
        for _ in range(3):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        yield "damaged.zip", bytes(data)


def catalogues() -> Iterator[Case]:
    """Yield catalogues with names, addresses and numbers that lead elsewhere."""
    whole = packaged_file().read_bytes()
    first = whole[: whole.index(b"\n[", whole.index(b"[weights.") + 1)]
    values = (
        "'../../owned'",
        "'/etc/passwd'",
        "'a\\b'",
        "''",
        "-1",
        "1e999",
        "nan",
        "true",
        "[]",
        "{}",
        "'" + "x" * 70000 + "'",
    )
    keys = ("file", "scale", "sha256", "size", "channels", "licence")
    for key, value in itertools.product(keys, values):
        lines = [
            f"{key} = {value}".encode() if line.startswith(key.encode() + b" ") else line for line in first.split(b"\n")
        ]
        yield "weights.toml", b"\n".join(lines)
    random = Random(6)
    for _ in range(40):
        yield "weights.toml", edit_text(first, random)
    for text in (
        b"a = " + b"[" * 5000,
        b"a = " + b"9" * 5000,
        b"\xff\xfe",
        b"[weights.'..']\n",
        b"[weights.'a/b']\n",
        b"",
    ):
        yield "weights.toml", text


def caches() -> Iterator[Case]:
    """Yield files of the caches that hold objects, false shapes or other archives."""
    arrays: dict[str, np.ndarray] = {
        name: tensor.numpy() for name, tensor in made("span without norm").state_dict().items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    random, whole = Random(7), buffer.getvalue()
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(random.choice((1, 4, 16))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        yield "kept.npz", bytes(data)
    objects = io.BytesIO()
    np.savez(objects, **{"conv_cat.bias": np.array([Call(os.system, "touch ../owned")], dtype=object)})
    yield "kept.npz", objects.getvalue()
    for shape in ("(2**40,)", "(1000000000000,)", "(-1,)", "(4,", "__import__('os').system('touch ../owned')"):
        head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("conv_cat.bias.npy", array)
        yield "kept.npz", packed.getvalue()
    for name in ("descriptor.json", "graph.xml", "numbers.bin"):
        for content in (b"", b"[" * 100_000, b'{"arch": 1}', b"null", bytes(64)):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr(name, content)
            yield "network.zip", packed.getvalue()


def bombs() -> Iterator[Case]:
    """Yield small picture files that claim or unpack to much."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    sides = ((2**31 - 1, 1), (1, 2**31 - 1), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (14_000, 14_000), (0, 9))
    for (width, height), depth, color in itertools.product(sides, (8, 16), (0, 2, 6)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
        yield (
            "a.png",
            b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6), 9)) + chunk(b"IEND", b""),
        )
    plain = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    packed = zlib.compress(bytes(2**27), 9)
    for kind, prefix in ((b"iCCP", b"a\0\0"), (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        for repeat in (1, 8):
            yield "a.png", b"\x89PNG\r\n\x1a\n" + plain + chunk(kind, prefix + packed) * repeat + chunk(b"IEND", b"")
    for width, height in sides:
        yield "a.gif", b"GIF89a" + struct.pack("<HHBBB", width % 65536, height % 65536, 0x80, 0, 0) + bytes(6) + b"\x3b"
        yield "a.ppm", b"P6 %d %d 255\n" % (width, height)
        yield (
            "a.bmp",
            struct.pack(
                "<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, min(width, 2**31 - 1), height, 1, 24, 0, 0, 0, 0, 0, 0
            ),
        )
        yield "a.tga", struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, width % 65536, height % 65536, 24, 0)


def _decode(path: Path) -> object:
    with open_picture(path) as reader:
        return [frame.shape for frame in reader.frames()]


def _unpack(path: Path) -> object:
    unpack_hr(path, path.parent / "set" / "HR")
    return path


def _read_cache(path: Path) -> object:
    cache = TrainCache(path.parent / "training")
    with suppress(DscloraError):
        cache.open(path.name)
    return load_kept(path) or load_converted(path)


KINDS: dict[str, tuple[Callable[[], Iterator[Case]], Callable[[Path], object]]] = {
    "weights": (weights, describe_file),
    "archives": (archives, _unpack),
    "catalogues": (catalogues, lambda path: read_catalog(path, path.parent)),
    "caches": (caches, _read_cache),
    "pictures": (bombs, _decode),
}
"""Maker of the cases and reader, by kind."""
