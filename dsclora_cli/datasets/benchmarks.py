"""Benchmark sets: HR pictures and their LR, by the name of a known set or from any folders.

HR and LR pictures of two folders, paired by name and never by order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.datasets.download import OnUnpack, fetch_set, set_name
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.imaging.reader import PictureReader, open_picture
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.imaging.types import Header

__all__ = ["BenchmarkSet", "Pair", "open_folder", "open_set", "read_rgb"]

_HINT = "replace it by an 8-bit RGB or grey picture"


@dataclass(frozen=True)
class BenchmarkSet:
    """Pictures to score at one scale; `pairs` is sorted by name and never empty."""

    name: str
    scale: int
    pairs: tuple[Pair, ...]

    def load(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """LR `(h, w, 3)` and HR `(s*h, s*w, 3)`, uint8: HR cropped to a multiple of the scale, LR read or made.

        Raises ImageError as `read_rgb` does.
        """
        hr = read_rgb(pair.hr)
        lr = read_rgb(pair.lr) if pair.lr else downscale(hr, self.scale)
        return lr, hr[: lr.shape[0] * self.scale, : lr.shape[1] * self.scale]


def open_set(
    name: str,
    scale: int,
    data_dir: Path | None = None,
    offline: bool = False,
    on_progress: OnUnpack | None = None,
) -> BenchmarkSet:
    """A known set, its name in any case: from `data_dir`, else from our cache, else from the Hub.

    `data_dir` holds `NAME/HR` and, where LR is not to be made, `NAME/LR_bicubic/X4`. The LR of a set from the Hub is
    always made from its HR, see docs/datasets.md. Raises UsageError for an unknown name, as `pair_folders` does, and
    ImageError as `fetch_set` does and for a picture that cannot be scored.
    """
    name = set_name(name)
    if data_dir is None:
        return _checked(BenchmarkSet(name, scale, pair_folders(fetch_set(name, offline, on_progress), None, scale)))
    lr = data_dir / name / "LR_bicubic" / f"X{scale}"
    return _checked(BenchmarkSet(name, scale, pair_folders(data_dir / name / "HR", lr if lr.exists() else None, scale)))


def open_folder(hr: Path, lr: Path | None, scale: int) -> BenchmarkSet:
    """The pictures directly in a folder, as a set of its name; without `lr` LR is made. Raises as `open_set` does."""
    return _checked(BenchmarkSet(hr.resolve().name, scale, pair_folders(hr, lr, scale)))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The picture as `(H, W, 3)` uint8, grey expanded.

    Raises ImageError where it cannot be read or holds alpha, more than 8 bits or several frames, which no paper scores.
    """
    with _open(path) as reader:
        (frame,) = reader.frames()
    return np.array(np.broadcast_to(frame.pixels, (*frame.pixels.shape[:2], 3)), np.uint8, order="C")


@contextmanager
def _open(path: Path) -> Iterator[PictureReader]:
    try:
        with open_picture(path) as reader:
            problem = _problem(reader.header)
            if problem:
                raise ImageError(f"{path} {problem}, which no paper scores")
            yield reader
    except ImageError as error:
        raise ImageError(error.message, error.hint or _HINT) from error


def _problem(header: Header) -> str | None:
    if header.channels in {2, 4}:
        return "has an alpha channel"
    if header.dtype != np.uint8:
        return f"has {header.dtype.itemsize * 8} bits per channel"
    return f"has {header.frames} frames" if header.frames > 1 else None


def _checked(benchmark: BenchmarkSet) -> BenchmarkSet:
    """Every file's header read, so that what cannot be scored is known before hours of work."""
    scale = benchmark.scale
    for pair in benchmark.pairs:
        width, height = _size(pair.hr)
        if min(width, height) < scale:
            raise ImageError(f"{pair.hr} has {width} x {height} pixels, too few for x{scale}", "remove it")
        wanted = (width // scale, height // scale)
        if pair.lr and _size(pair.lr) != wanted:
            found, right = (f"{size[0]} x {size[1]}" for size in (_size(pair.lr), wanted))
            hint = f"give the LR of x{scale}, or none: it is then made from the HR"
            raise ImageError(f"{pair.lr} has {found} pixels, but x{scale} of {pair.hr} needs {right}", hint)
    return benchmark


def _size(path: Path) -> tuple[int, int]:
    with _open(path) as reader:
        return reader.header.width, reader.header.height


_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """One picture of a set. `name` is the HR file's, without suffix and `_HR`; without `lr` it is made from the HR."""

    name: str
    hr: Path
    lr: Path | None


def pair_folders(hr: Path, lr: Path | None, scale: int) -> tuple[Pair, ...]:
    """Pairs of the pictures directly in two folders, sorted by name.

    An LR picture belongs to the HR picture of its own name, or of its name without what says that it is LR: `x4` or
    `_x4` for the scale, `_LR` (also `_LRx4`), `_SRF_4_LR`, and the m, w or d of DIV2K's `x4m`. The HR name may end in
    `_HR` or `_SRF_4_HR`. Raises UsageError where a folder is missing or empty, or naming what does not pair.
    """
    truths: dict[str, list[Path]] = {}
    for path in _pictures(hr, "HR"):
        truths.setdefault(_hr_name(path), []).append(path)
    _refuse([path for paths in truths.values() for path in paths[1:]], f"named like another picture of {hr}")
    if lr is None:
        return tuple(Pair(name, paths[0], None) for name, paths in sorted(truths.items()))
    partners: dict[str, list[Path]] = {}
    strays = []
    exact = {path.stem: name for name, paths in truths.items() for path in paths}
    for path in _pictures(lr, "LR"):
        plain = _lr_name(path, scale)
        name = exact.get(path.stem) or exact.get(plain) or (plain if plain in truths else None)
        if name is None:
            strays.append(path)
        else:
            partners.setdefault(name, []).append(path)
    alone = [paths[0] for name, paths in truths.items() if name not in partners]
    _refuse(alone, f"without an LR picture in {lr}, such as {alone[0].stem}x{scale}.png" if alone else "")
    _refuse(strays, f"in {lr} without an HR picture in {hr}")
    _refuse([path for paths in partners.values() for path in paths[1:]], "a second LR picture of one HR picture")
    return tuple(Pair(name, paths[0], partners[name][0]) for name, paths in sorted(truths.items()))


def _pictures(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", f"put the {what} pictures there, or give another folder")
    paths = sorted(path for path in folder.iterdir() if is_picture_name(path) and path.is_file())
    visible = [path for path in paths if not path.name.startswith(".")]
    if not visible:
        raise UsageError(f"{folder} holds no pictures", f"give the folder that the {what} pictures are directly in")
    return visible


def _hr_name(path: Path) -> str:
    return re.sub(r"(?<=.)(_SRF_\d+)?(_HR)?$", "", path.stem, count=1, flags=re.IGNORECASE)


def _lr_name(path: Path, scale: int) -> str:
    marks = rf"(?<=.)(_SRF_{scale})?(_LR)?(_?x{scale}[mwd]?)?(_LR)?$"
    return re.sub(marks, "", path.stem, count=1, flags=re.IGNORECASE)


def _refuse(paths: Sequence[Path], problem: str) -> None:
    if paths:
        shown = ", ".join(path.name for path in paths[:_SHOWN])
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        raise UsageError(f"{shown}{more}: {problem}", "HR and LR are paired by name: add, rename or remove files")
