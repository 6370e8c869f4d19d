"""Upscale the same pictures in ways that decide only the speed or the place of the work, and compare the bytes."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from batches import save_animation, save_photo
from jobs import JOBS
from kills import reference
from limited import PROGRAM, Limits, private_environment, run_limited
from numpy.typing import NDArray
from pictures import read_still, saved_still
from PIL import Image

from dsclora_cli.imaging.color import white_level
from dsclora_cli.imaging.types import Pixels
from dsclora_cli.inference import openvino
from dsclora_cli.inference.native import library

OPTIONS = ("--offline", "--device", "cpu", "--json")


@dataclass(frozen=True)
class Command:
    """Describe a command that upscales some of the pictures."""

    options: tuple[str, ...] = ()

    names: tuple[str, ...] = ()
    """Names of the pictures, in this order; empty for all."""

    processes: int = 1
    """Number of processes that run the command at once, into the same folder."""


Way = Sequence[Command]
"""Commands that together upscale every picture, one command after the other."""


@dataclass(frozen=True)
class Upscaled:
    """Hold a result, and the tile that the network ran on."""

    data: bytes
    tile: int


@dataclass
class DeterminismTally:
    """Counts and findings of ways to upscale the same pictures."""

    is_exact: bool = True
    """Demand the same bytes of every result on tiles of the same size."""

    ways: int = 0
    files: int = 0
    equal: int = 0
    """Number of files with the same bytes."""

    retiled: int = 0
    """Number of files that ran on tiles of another size."""

    levels: float = 0
    """Largest difference, in levels of 255, of a lossless result that may have other bytes."""

    findings: list[str] = field(default_factory=list)

    def compare(self, name: str, plain: dict[str, Upscaled], other: dict[str, Upscaled]) -> None:
        """Compare the results of a way with those of the plain command, which ran on the same pictures."""
        self.ways += 1
        if missing := plain.keys() - other.keys():
            self.findings.append(f"{name}: {sorted(missing)} are missing")
        for file, result in other.items():
            self.files += 1
            retiled = result.tile != plain[file].tile
            self.retiled += retiled
            is_equal = result.data == plain[file].data
            self.equal += is_equal
            if is_equal:
                continue
            if self.is_exact and not retiled:
                self.findings.append(f"{name}: {file} has other bytes")
            elif file.endswith((".png", ".tif")):
                levels = _levels(result.data, plain[file].data)
                self.levels = max(self.levels, levels)
                if levels > 1:
                    self.findings.append(f"{name}: {file} is {levels} levels away")


def save_pictures(folder: Path, size: tuple[int, int] = (230, 170)) -> tuple[str, ...]:
    """Write pictures of several formats, depths and numbers of channels, and return their names.

    Args:
        folder: Place of the pictures.
        size: Width and height of the pictures in pixels; one has three times this size.
    """
    for seed, name in enumerate(("a.png", "b.jpg", "c.tif", "d.webp")):
        save_photo(folder / name, size, seed=seed)
    save_animation(folder / "moving.gif")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 4, 4), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    (folder / "alpha.png").write_bytes(saved_still(np.ascontiguousarray(smooth), "PNG"))
    (folder / "deep.tif").write_bytes(saved_still(smooth[..., :3].astype(np.uint16) * 257, "TIFF"))
    (folder / "gray.png").write_bytes(saved_still(np.ascontiguousarray(smooth[..., :1]), "PNG"))
    save_photo(folder / "large.png", (3 * size[0], 3 * size[1]), seed=9)
    return tuple(sorted(path.name for path in folder.iterdir()))


def engines() -> list[str]:
    """Return the engines of this machine."""
    native = [] if library.why_unavailable() else ["native"]
    return [*native, "torch", *(["openvino"] if openvino.is_installed() else [])]


def ways(names: tuple[str, ...]) -> dict[str, list[Way]]:
    """Return ways to upscale the pictures with these names, by kind; every way but a tile size keeps every byte."""
    half = len(names) // 2
    mixed = [tuple(np.random.default_rng(seed).permutation(names).tolist()) for seed in range(3)]
    return {
        "again": [[Command()]] * 3,
        "order of inputs": [[Command(names=order)] for order in (names[::-1], *mixed)],
        "number of inputs": [
            [Command(names=(name,)) for name in names],
            [Command(names=names[:half]), Command(names=names[half:])],
        ],
        "threads": [[Command(("--threads", str(count)))] for count in (1, 3, 2, 4, 7)],
        "shards": [
            [Command(("--shard", f"{index + 1}/{count}")) for index in range(count)] for count in (2, 3, len(names))
        ],
        "processes at once": [[Command(processes=count)] for count in (2, 3)],
        "memory limits": [[Command(("--max-memory", size))] for size in ("500MB", "700MB", "1GB", "2GB", "8GB")],
        "tiles": [[Command(("--tile", str(edge)))] for edge in (0, 32, 64, 100, 150, 256, 512)],
    }


CLUSTER = "workers on a Ray cluster"
"""Kind of the ways that need Ray."""


def cluster_ways() -> list[Way]:
    """Return ways to upscale the pictures on a Ray cluster."""
    return [
        [Command(("--executor", "ray", "--ray-workers", str(workers), "--ray-cpus", str(cpus)))]
        for workers, cpus in ((1, 1), (2, 1), (3, 1), (2, 2))
    ]


def upscale(pictures: Path, place: Path, way: Way, engine: str, variables: dict[str, str]) -> dict[str, Upscaled]:
    """Upscale pictures in a way into a new folder, and return the results by name.

    Args:
        pictures: Folder with the pictures.
        place: Folder to make.
        way: Commands to run.
        engine: Engine, or "auto".
        variables: More variables of the environment.

    Raises:
        AssertionError: A command has failed.
    """
    place.mkdir(parents=True)
    tiles: dict[str, int] = {}
    for number, command in enumerate(way):
        inputs = [str(pictures / name) for name in command.names] or [str(pictures)]
        line = (*PROGRAM, "upscale", *inputs, "-o", "out", "--engine", engine, *OPTIONS, *command.options)
        for report in _run_at_once(line, place, command.processes, f"home{number}", variables):
            if report.get("status") == "done":
                tiles[Path(report["output"]).name] = report["tile"]
    return {path.name: Upscaled(path.read_bytes(), tiles[path.name]) for path in (place / "out").iterdir()}


def _run_at_once(
    line: Sequence[str], place: Path, processes: int, home: str, variables: dict[str, str]
) -> Iterator[dict[str, object]]:
    """Run a command in some processes at once, and yield the objects of their reports."""
    environment = private_environment(place / home, **variables)
    if processes == 1:
        ended = run_limited(line, place, environment, Limits(seconds=600))
        assert ended.code == 0, ended.stderr
        yield from map(json.loads, ended.stdout.splitlines())
        return
    with ExitStack() as others:
        started = [
            subprocess.Popen(line, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(processes)
        ]
        for process in started:
            others.callback(process.kill)
        for process in started:
            out, error = process.communicate(timeout=600)
            assert process.returncode == 0, error.decode()
            yield from map(json.loads, out.splitlines())


def plain_results(folder: Path, engine: str) -> dict[str, Upscaled]:
    """Upscale the pictures in `folder / "pictures"` as users do without thinking of speed, and return the results."""
    return upscale(folder / "pictures", folder / f"{engine} plain", [Command()], engine, {})


def check_ways(
    kind: str, folder: Path, engine: str, plain: dict[str, Upscaled], most: int | None = None
) -> DeterminismTally:
    """Upscale the pictures in `folder / "pictures"` in the ways of a kind, and compare with the plain results.

    Args:
        kind: Key of `ways`.
        folder: Place of the pictures and of all results.
        engine: Engine, or "auto".
        plain: Results of `plain_results`.
        most: Number of ways to try; None for all.
    """
    # With another number of threads, PyTorch adds the same numbers in another order.
    tally = DeterminismTally(is_exact=(engine, kind) != ("torch", "threads"))
    pictures = folder / "pictures"
    for number, way in enumerate(ways(_names(pictures))[kind][:most]):
        name = f"{engine}, {' '.join(way[0].options) or kind}"
        tally.compare(name, plain, upscale(pictures, folder / f"{engine} {kind} {number}", way, engine, {}))
    return tally


def check_cluster(
    kind: str, folder: Path, engine: str, plain: dict[str, Upscaled], most: int | None = None
) -> DeterminismTally:
    """Compare as `check_ways` on a Ray cluster of this machine, with several numbers of workers."""
    tally = DeterminismTally()
    with _cluster() as variables:
        for number, way in enumerate(cluster_ways()[:most]):
            found = upscale(folder / "pictures", folder / f"{engine} {kind} {number}", way, engine, variables)
            tally.compare(f"{engine}, {' '.join(way[0].options)}", plain, found)
    return tally


@contextmanager
def _cluster() -> Iterator[dict[str, str]]:
    """Start a Ray cluster on this machine, and yield the variables that lead there."""
    from clusters import local_cluster

    with tempfile.TemporaryDirectory(prefix="dsclora-ray-") as scrap, local_cluster() as address:
        ray = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        yield {**ray, "RAY_ADDRESS": address, "RAY_TMPDIR": scrap}


def repeat_job(name: str, times: int, folder: Path) -> DeterminismTally:
    """Run another command several times, and compare files and reports with those of the first run."""
    job, tally = JOBS[name], DeterminismTally()
    whole = reference(job, folder / "first", {})
    for number in range(times):
        place = folder / str(number)
        place.mkdir()
        job.prepare(place)
        ended = run_limited(
            job.command(), place, private_environment(place / "home"), Limits(seconds=600), job.given(place)
        )
        assert ended.code == 0, ended.stderr
        files = job.files(place)
        tally.ways += 1
        tally.files += len(files)
        both = files.keys() | whole.files.keys()
        other = sorted(file for file in both if files.get(file) != whole.files.get(file))
        tally.equal += len(both) - len(other)
        if other or job.report(ended) != whole.report:
            tally.findings.append(f"{name}: {other} or the report differ")
    return tally


ENCODED = {
    "PNG": 30_000,
    "TIFF": 10_000,
    "JPEG": 10_000,
    "WEBP": 4_000,
    "AVIF": 1_000,
    "JPEG2000": 2_000,
    "GIF": 1_000,
    "HEIF": 300,
    "JXL": 2_000,
}
"""Number of files to encode at scale 1, by format: about a minute each."""


def repeat_encodings(format: str, times: int) -> DeterminismTally:
    """Encode pictures of many sizes over and over in this process, and compare the bytes with those of the first time.

    Before each picture, memory is filled with other values and given back: an encoder that reads what it has not
    written would write other bytes.

    Args:
        format: Name in `FORMATS`.
        times: Number of files to encode.
    """
    random, tally = np.random.default_rng(0), DeterminismTally()
    pictures = [_picture(random, random.integers(1, 200, 2)) for _ in range(40)]
    first: dict[int, bytes] = {}
    for _ in range(times):
        number = int(random.integers(len(pictures)))
        sizes = random.integers(100, 600_000, 3)
        used = [random.integers(0, 1 << random.integers(1, 17), size // 2).astype(np.uint16) for size in sizes]
        del used
        data = saved_still(pictures[number].copy(), format)
        tally.ways, tally.files = tally.ways + 1, tally.files + 1
        is_equal = first.setdefault(number, data) == data
        tally.equal += is_equal
        if not is_equal and not tally.findings:
            tally.findings.append(f"{format}: a picture of {pictures[number].shape} has other bytes")
    return tally


def _picture(random: np.random.Generator, size: NDArray[np.int64]) -> Pixels:
    """Return a picture `(H, W, 3)`, uint8: few values or many, repeated or not."""
    values = 1 << int(random.integers(1, 9))
    tile = random.integers(0, values, (*(1 + size // random.integers(1, 9)), 3)) * (256 // values)
    return np.resize(tile, (*size, 3)).astype(np.uint8)


def _names(pictures: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in pictures.iterdir()))


def _levels(data: bytes, other: bytes) -> float:
    """Return the largest difference of two pictures in levels of 255, to a tenth of a level."""
    one, two = (read_still(each)[1] for each in (data, other))  # Pillow would read 16 bits of color as 8
    away = float(np.abs(one.astype(float) - two.astype(float)).max())
    return round(away * 255 / white_level(one.dtype), 1)
