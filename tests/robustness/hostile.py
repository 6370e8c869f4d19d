"""Hostile weights, archives, catalogues, files of caches, and pictures, made by code and opened under an audit."""

from __future__ import annotations

import builtins
import gzip
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
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from hostile_hubs import ask, lies
from hostile_zips import open_zip, zip_files
from limited import Limits, private_environment, run_limited
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

BUDGET = 500 * 2**20
"""Bytes of memory above which a case is a finding."""

_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "pty.spawn",
    "ctypes.dlopen",
)
_WATCH: dict[str, object] = {"inside": None, "events": [], "is_served": False}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    """Note every event of Python that a file of a stranger must not cause, while a case is open."""
    inside = _WATCH["inside"]
    if inside is None:
        return
    wrong = event in _FORBIDDEN
    if event == "ctypes.dlopen":  # a library of an installed package is no file of a stranger
        wrong = not str(arguments[0]).startswith((sys.prefix, sys.base_prefix))
    if event == "socket.connect" and _WATCH["is_served"]:
        wrong = str(arguments[1]).partition(",")[0] != "('127.0.0.1'"
    if event == "open" and _is_writing(arguments):
        wrong = not str(arguments[0]).startswith((str(inside), "/dev/", "<"))
    if wrong:
        _WATCH["events"].append(f"{event} {arguments!r:.80}")  # type: ignore[attr-defined]


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    """Return whether a file is opened for writing; a number stands for a file that is open already."""
    path, mode, flags = arguments
    if isinstance(path, int):
        return False
    return bool(set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@dataclass
class HostileTally:
    """Counts and findings of one kind."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0

    largest: int = 0
    """Bytes that the process grew for a case at most; 0 where the system does not tell."""


def open_in_worker(kind: str, folder: Path) -> HostileTally:
    """Open every case of a kind in a process with limits, and return counts and findings."""
    folder.mkdir(parents=True)
    report = folder / "report.json"
    command = (sys.executable, __file__, kind, str(folder / "cases"), str(report))
    # A line for each case: a case that hangs writes no line.
    limits = Limits(seconds=1800, silence=SLOW * 1.5, address_space=16 * 2**30)
    # Python would keep compiled modules next to sources, in the middle of a case.
    environment = private_environment(folder / "home", OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    ended = run_limited(command, folder, environment, limits)
    if ended.hung or ended.code or not report.exists():
        last = (ended.stdout.splitlines() or ["none"])[-1]
        end = "was killed" if ended.hung else f"ended with {ended.code}"
        return HostileTally(findings=[f"the process {end} after {last}: {ended.stderr[-300:]!r}"])
    fields = json.loads(report.read_text(encoding="utf-8"))
    return HostileTally(**{**fields, "outcomes": Counter(fields["outcomes"])})


def open_all(kind: str, folder: Path) -> HostileTally:
    """Open every case of a kind in a folder of its own, and return counts and findings."""
    make, consume = KINDS[kind]
    tally = HostileTally()
    if "hook" not in _WATCH:
        sys.addaudithook(_audit)
        _WATCH["hook"] = True
    _WATCH["is_served"] = kind == "hubs"
    for number, (name, data) in enumerate(make()):
        sys.stdout.write(f"{number} {name!r}\n")
        sys.stdout.flush()
        place = folder / str(number)
        place.mkdir(parents=True)
        path = place / name
        path.write_bytes(data)
        tally.cases += 1
        start, before = time.process_time(), _start_peak()
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
        taken, grown = time.process_time() - start, _memory("VmHWM") - before
        tally.slowest, tally.largest = max(tally.slowest, taken), max(tally.largest, grown)
        if grown > BUDGET:
            tally.findings.append(f"{number} {name}: {grown >> 20} MiB")
        tally.outcomes[outcome] += 1
        tally.findings += [f"{number} {name}: {event}" for event in _WATCH["events"]]  # type: ignore[attr-defined]
        if taken > SLOW:
            tally.findings.append(f"{number} {name}: {taken:.1f} s")
        if (folder / "owned").exists() or (folder.parent / "owned").exists():
            tally.findings.append(f"{number} {name}: a file was written outside")
    return tally


def _start_peak() -> int:
    """Let the system measure the largest memory from now on, and return the resident bytes; 0 without Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))
    return 0


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
    yield from _false_zips(good)
    yield from _false_tapes(good)
    random, whole = Random(5), (zipped({"HR/a.png": good, "HR/b.png": good}), tar_gz({"HR/a.png": good}))
    for number in range(60):
        data = bytearray(whole[number % 2])
        for _ in range(3):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        yield "damaged.zip", bytes(data)


def _false_zips(good: bytes) -> Iterator[Case]:
    """Yield ZIP archives with links, devices, passwords, doubled and false entries, and more bytes at both ends."""
    for kind in (0o120777, 0o060666, 0o020666, 0o010666, 0o140777):
        info = zipfile.ZipInfo("HR/b.png")
        info.external_attr = kind << 16
        yield "set.zip", _zip_of([("HR/a.png", good), (info, b"/etc/passwd")])
    for flag in (0x1, 0x20, 0x40, 0x2000):
        whole = bytearray(_zip_of([("HR/a.png", good)]))
        whole[6] |= flag & 0xFF
        at = whole.rindex(b"PK\x01\x02")
        whole[at + 8] |= flag & 0xFF
        whole[at + 9] |= flag >> 8
        yield "set.zip", bytes(whole)
    yield "set.zip", _zip_of([("HR/a.png", good)] * 3)
    yield "set.zip", _zip_of([("HR/a.png", good), ("HR/A.png", good), ("HR/a.PNG", good)])
    yield "set.zip", _zip_of([(f"HR/{number}.png", b"") for number in range(20_001)])
    yield "set.zip", _zip_of([("HR/" + "a/" * 5000 + "a.png", good)])
    whole = _zip_of([("HR/a.png", good)])
    at, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    for place, size, values in (
        (at + 20, 4, (0, 1, 2**31, 2**32 - 1)),  # packed bytes
        (at + 24, 4, (0, 1, 2**31, 2**32 - 1)),  # unpacked bytes
        (at + 28, 2, (0, 1, 65535)),  # length of the name
        (at + 42, 4, (1, 2**31, 2**32 - 1)),  # place of the entry
        (end + 10, 2, (0, 2, 65535)),  # number of entries
        (end + 16, 4, (0, 1, 2**32 - 1)),  # place of the list
    ):
        for value in values:
            yield "set.zip", whole[:place] + value.to_bytes(size, "little") + whole[place + size :]
    yield "set.zip", b"MZ" * 4000 + whole
    yield "set.zip", whole + bytes(70_000)
    yield "set.zip", whole[:end]


def _zip_of(entries: Sequence[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        warnings.simplefilter("ignore")  # doubled names
        for name, data in entries:
            packed.writestr(name, data)
    return buffer.getvalue()


def _false_tapes(good: bytes) -> Iterator[Case]:
    """Yield tapes whose headers lie: names in pax headers, names of gigabytes, sizes, sparse files, many members."""
    for header in (
        {"path": "../owned.png"},
        {"path": "/tmp/owned.png"},
        {"size": "99999999999"},
        {"size": "-1"},
        {"linkpath": "/etc/passwd"},
    ):
        tape = io.BytesIO()
        with tarfile.open(fileobj=tape, mode="w", format=tarfile.PAX_FORMAT, pax_headers=header) as packed:
            info = tarfile.TarInfo("HR/a.png")
            info.size, info.pax_headers = len(good), header
            packed.addfile(info, io.BytesIO(good))
        yield "set.tgz", gzip.compress(tape.getvalue())
    for kind in (b"L", b"K", b"x", b"g", b"S", b"V", b"M"):
        for size in (0, 2**30, 2**33 - 1):
            head = bytearray(tarfile.TarInfo("HR/a.png").tobuf())
            head[124:136], head[156:157] = b"%011o\0" % size, kind
            head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
            yield "set.tgz", gzip.compress(bytes(head) + good.ljust(2048, b"\0") + bytes(1024))
    yield "set.tgz", gzip.compress(tar_gz({"HR/a.png": good}))
    yield "set.tgz", tar_gz({"HR/a.png": good}) * 2
    yield "set.tgz", tar_gz({"HR/a.png": good})[:-9]
    yield "set.tgz", tar_gz({f"HR/{number}.png": b"" for number in range(20_001)})


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


def hubs() -> Iterator[Case]:
    """Yield the numbers of the lies of a Hub."""
    for number, (name, _) in enumerate(lies()):
        yield f"{number}", name.encode(errors="replace")


def _ask(path: Path) -> object:
    home = path.parent / "home"
    home.mkdir()
    return ask(next(itertools.islice(lies(), int(path.name), None))[1], home)


KINDS: dict[str, tuple[Callable[[], Iterator[Case]], Callable[[Path], object]]] = {
    "weights": (weights, describe_file),
    "archives": (archives, _unpack),
    "archives behind zip://": (lambda: itertools.chain(zip_files(), _false_zips(png(noise(1)))), open_zip),
    "catalogues": (catalogues, lambda path: read_catalog(path, path.parent)),
    "caches": (caches, _read_cache),
    "pictures": (bombs, _decode),
    "hubs": (hubs, _ask),
}
"""Maker of the cases and reader, by kind."""


if __name__ == "__main__":
    _result = open_all(sys.argv[1], Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(vars(_result)), encoding="utf-8")
