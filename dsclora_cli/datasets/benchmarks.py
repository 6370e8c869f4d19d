"""Benchmark sets: HR pictures and their LR versions, by the name of a known set or from any folders.

`open_set` and `open_folder` pair files by name and check every picture; `BenchmarkSet.load` reads a pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.config import ReadOptions
from dsclora_cli.datasets.download import OnUnpack, fetch_set, set_name
from dsclora_cli.datasets.pages import check_regular
from dsclora_cli.errors import ImageError, UsageError, list_some
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.imaging.reader import PictureReader, open_picture
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import is_file, is_folder, is_taken

_HINT = "replace it by an 8-bit RGB or grey picture"
_MAX_PIXELS = ReadOptions.max_pixels


@dataclass(frozen=True)
class Pair:
    """An HR picture and the LR picture made from the HR picture."""

    name: str
    """Name of the HR file without suffix, `_HR` and `_SRF_4_HR`."""

    hr: Path

    lr: Path | None
    """LR file; None where LR is to be made from the HR picture."""


@dataclass(frozen=True)
class BenchmarkSet:
    """Pictures to score at one scale."""

    name: str
    scale: int

    pairs: tuple[Pair, ...]
    """At least one pair, sorted by name."""

    sizes: tuple[tuple[int, int], ...]
    """Width and height of the HR picture of each pair, before cropping to a multiple of the scale."""

    max_pixels: int = _MAX_PIXELS
    """Most pixels of a picture."""

    def load(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read a pair. Where the pair has no LR file, make LR from HR by MATLAB's bicubic.

        Returns:
            LR, `(h, w, 3)` uint8, and HR, `(scale*h, scale*w, 3)` uint8, cropped to a multiple of the scale.

        Raises:
            ImageError: a picture cannot be read or scored, see `read_rgb`.
        """
        hr = read_rgb(pair.hr, self.max_pixels)
        lr = read_rgb(pair.lr, self.max_pixels) if pair.lr else downscale(hr, self.scale)
        return lr, hr[: lr.shape[0] * self.scale, : lr.shape[1] * self.scale]


def open_set(
    name: str,
    scale: int,
    data_dir: Path | None = None,
    offline: bool = False,
    on_progress: OnUnpack | None = None,
    max_pixels: int = _MAX_PIXELS,
) -> BenchmarkSet:
    """Open a known set: from `data_dir`, else from the cache of this program, else from the Hub.

    Args:
        name: name of the set, in any case.
        scale: factor between the sides of LR and HR.
        data_dir: folder with `NAME/HR` and, where LR is not to be made, `NAME/LR_bicubic/X4`. The LR of a set from the
            Hub is always made from the HR, see docs/datasets.md.
        offline: do not access the internet.
        on_progress: callback for unpacking a set that is fetched for the first time.
        max_pixels: most pixels of a picture.

    Raises:
        UsageError: the name is unknown, a folder is missing, or HR and LR files do not pair.
        ImageError: the set cannot be fetched, or a picture cannot be scored.
    """
    name = set_name(name)
    if data_dir is None:
        return _open_pairs(name, fetch_set(name, offline, on_progress), None, scale, max_pixels)
    lr = data_dir / name / "LR_bicubic" / f"X{scale}"
    return _open_pairs(name, data_dir / name / "HR", lr if is_taken(lr) else None, scale, max_pixels)


def open_folder(hr: Path, lr: Path | None, scale: int, max_pixels: int = _MAX_PIXELS) -> BenchmarkSet:
    """Open the pictures directly in a folder as a set with the name of the folder; without `lr`, make LR.

    A picture has at most `max_pixels`.

    Raises UsageError and ImageError as `open_set` does.
    """
    return _open_pairs(hr.resolve().name, hr, lr, scale, max_pixels)


def _open_pairs(name: str, hr: Path, lr: Path | None, scale: int, max_pixels: int) -> BenchmarkSet:
    """Pair two folders and check the header of every file, so that bad files are known before hours of work."""
    pairs = pair_folders(hr, lr, scale)
    _refuse_shared_names(pairs)
    sizes = []
    for pair in pairs:
        width, height = _size(pair.hr, max_pixels)
        sizes.append((width, height))
        if min(width, height) < scale:
            raise ImageError(f"{pair.hr} has {width} x {height} pixels, too few for x{scale}", "remove it")
        expected = (width // scale, height // scale)
        if pair.lr and (found := _size(pair.lr, max_pixels)) != expected:
            raise ImageError(
                f"{pair.lr} has {found[0]} x {found[1]} pixels, but x{scale} of {pair.hr} needs "
                f"{expected[0]} x {expected[1]}",
                f"give the LR of x{scale}, or none: LR is then made from the HR",
            )
    return BenchmarkSet(name, scale, pairs, tuple(sizes), max_pixels)


def _refuse_shared_names(pairs: Sequence[Pair]) -> None:
    """Raise UsageError for two pictures of one name: the scores of a set are told apart by name."""
    for pair, other in pairwise(pairs):
        if pair.name == other.name:
            problem = f"{pair.hr} and {other.hr} share the name {pair.name}, so their scores would too"
            raise UsageError(problem, "rename one of them")


def pair_folders(hr: Path, lr: Path | None, scale: int, held_out: Path | None = None) -> tuple[Pair, ...]:
    """Pair the pictures directly in two folders by name, and sort the pairs by name.

    Without `lr` nothing is paired: every picture is a pair with an HR file only, and two pictures may have one name.

    An LR file belongs to the HR file of the same name, or of the same name without a mark of LR: `x4` or `_x4` for the
    scale, `_LR` (also `_LRx4`), `_SRF_4_LR`, and the m, w or d of DIV2K's `x4m`. An HR name may end in `_HR` or
    `_SRF_4_HR`.

    Args:
        hr: Folder of HR pictures.
        lr: Folder of LR pictures.
        scale: Factor between the sides of LR and HR.
        held_out: Another folder of HR pictures, whose LR may be in `lr` as well.

    Raises:
        UsageError: a folder is missing or empty, or files do not pair; the error names the files.
    """
    if lr is None:
        return pair_as_present(hr, None, scale)
    pairs, strays = _pair(list_pictures(hr, "HR"), list_pictures(lr, "LR"), scale)
    if held_out is not None:
        _, strays = _pair(list_pictures(held_out, "HR"), strays, scale)
    alone = [pair.hr for pair in pairs if pair.lr is None]
    _refuse(alone, f"without an LR picture in {lr}, such as {alone[0].stem}x{scale}.png" if alone else "")
    _refuse(strays, f"in {lr} without an HR picture in {hr}")
    return pairs


def pair_as_present(hr: Path, lr: Path | None, scale: int) -> tuple[Pair, ...]:
    """Pair as `pair_folders` does, but let HR pictures have no LR, and leave out LR pictures without HR."""
    return _pair(list_pictures(hr, "HR"), () if lr is None else list_pictures(lr, "LR"), scale)[0]


def _pair(originals: Sequence[Path], candidates: Sequence[Path], scale: int) -> tuple[tuple[Pair, ...], list[Path]]:
    """Return the HR files with their LR files, where there are any, sorted by name, and the LR files without HR file.

    Raises UsageError for two files that claim one partner.
    """
    named: dict[str, list[Path]] = {}
    for path in originals:
        named.setdefault(hr_name(path), []).append(path)
    partners: dict[str, list[Path]] = {}
    strays = []
    by_stem = {path.stem: name for name, paths in named.items() for path in paths}
    for path in candidates:
        plain = lr_name(path, scale)
        # The full name comes first: an HR file may be called `max4.png`, and the `x4` is no mark then.
        name = by_stem.get(path.stem) or by_stem.get(plain) or (plain if plain in named else None)
        if name is None:
            strays.append(path)
        else:
            partners.setdefault(name, []).append(path)
    for name, paths in partners.items():
        _refuse(paths if len(paths) > 1 else (), f"LR pictures of one HR picture, {named[name][0]}")
        _refuse(named[name] if len(named[name]) > 1 else (), f"HR pictures of one LR picture, {paths[0]}")
    pairs = ((name, path, partners.get(name, [None])[0]) for name, paths in named.items() for path in paths)
    return tuple(Pair(*pair) for pair in sorted(pairs, key=lambda pair: pair[:2])), strays


def list_pictures(folder: Path, kind: str) -> list[Path]:
    """Return what is called like a picture directly in a folder, sorted, without hidden files and folders.

    Pipes and broken links are among the paths: whoever opens the pictures reports what cannot be read.

    Args:
        folder: Where to look.
        kind: HR, LR or another word for errors.
    """
    if is_file(folder):
        raise UsageError(f"{folder} is a file, not a folder", f"give the folder of the {kind} pictures")
    if not is_folder(folder):
        raise UsageError(f"there is no folder {folder}", f"put the {kind} pictures there, or give another folder")
    try:
        paths = sorted(path for path in folder.iterdir() if is_picture_name(path) and not is_folder(path))
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}", "check the permissions") from error
    visible = [path for path in paths if not path.name.startswith(".")]
    if not visible:
        raise UsageError(f"{folder} holds no pictures", f"give the folder that the {kind} pictures are directly in")
    return visible


def hr_name(path: Path) -> str:
    """Return the name of an HR file without suffix and marks of HR."""
    # `(?<=.)` keeps at least one character: a file called `_HR.png` keeps the name `_HR`.
    return re.sub(r"(?<=.)(_SRF_\d+)?(_HR)?$", "", path.stem, count=1, flags=re.IGNORECASE)


def lr_name(path: Path, scale: int) -> str:
    """Return the name of an LR file without suffix and marks of LR and of the scale."""
    marks = rf"(?<=.)(_SRF_{scale})?(_LR)?(_?x{scale}[mwd]?)?(_LR)?$"
    return re.sub(marks, "", path.stem, count=1, flags=re.IGNORECASE)


def _refuse(paths: Sequence[Path], problem: str) -> None:
    """Raise UsageError with the names of the files, if there are any."""
    if paths:
        names = list_some([path.name for path in paths])
        raise UsageError(f"{names}: {problem}", "HR and LR are paired by name: add, rename or remove files")


def read_rgb(path: Path, max_pixels: int = _MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as `(H, W, 3)` uint8, C-contiguous; gray becomes three equal channels.

    Raises:
        ImageError: the file is no regular file, cannot be read, has more than `max_pixels`, or holds alpha, more than
            8 bits or several frames, which no paper scores.
    """
    with _open_scorable(path, max_pixels) as reader:
        (frame,) = reader.frames()
    return np.array(np.broadcast_to(frame.pixels, (*frame.pixels.shape[:2], 3)), np.uint8, order="C")


def _size(path: Path, max_pixels: int) -> tuple[int, int]:
    """Return width and height of a picture from the header alone."""
    with _open_scorable(path, max_pixels) as reader:
        return reader.header.width, reader.header.height


@contextmanager
def _open_scorable(path: Path, max_pixels: int) -> Iterator[PictureReader]:
    """Open a picture. Raise ImageError for pictures that no paper scores; every error inside gets a next step."""
    try:
        check_regular(path)
        with open_picture(path, ReadOptions(max_pixels), in_bands=False) as reader:
            header = reader.header
            problem = None
            if header.channels in {2, 4}:
                problem = "has an alpha channel"
            elif header.dtype != np.uint8:
                problem = f"has {header.dtype.itemsize * 8} bits per channel"
            elif header.frames > 1:
                problem = f"has {header.frames} frames"
            if problem:
                raise ImageError(f"{path} {problem}, which no paper scores")
            yield reader
    except ImageError as error:
        raise error.reworded(hint=error.hint or _HINT) from error
