"""Files of `dsclora eval --save`: the result for each image, and contact sheets of the worst images.

`dsclora compare` writes contact sheets too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path

import numpy as np

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.evaluation.protocol import Image
from dsclora_cli.evaluation.score_cache import PixelKey
from dsclora_cli.imaging.contact_sheet import Strip, contact_sheet
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Frame, Header, Pixels
from dsclora_cli.paths import is_taken
from dsclora_cli.upscaling.manifest import ResultKey, is_recorded, result_state, save_result

_LOSSLESS = SaveOptions(format="PNG")


ResultName = tuple[str, str, str]
"""Names of a set, a row and an image."""


class SavedImages:
    """Folder of results: `SET/ROW/IMAGE.png`, and `SET/worst-ROW.png` for contact sheets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, str] = {}
        """Names of folders by row, in the order of the first use, which is the order of the rows."""

    def has(self, name: ResultName, key: PixelKey) -> bool:
        """Return whether the file of a result exists, was made with the key and is unchanged since."""
        return result_state(self._path(name), _result_key(key)) == "complete"

    def save(self, name: ResultName, key: PixelKey, image: Image) -> None:
        """Write a result, `(H, W, 3)` uint8, as PNG.

        Raises ImageError where the file cannot be written, and UsageError where a file of another origin is there.
        """
        _save(self._path(name), _result_key(key), image)

    def read(self, name: ResultName) -> Image:
        """Return a saved result, `(H, W, 3)` uint8. Raises ImageError."""
        path = self._path(name)
        pixels = _read(path)
        if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
            raise ImageError(f"{path} changed during the run", "run again")
        return pixels.astype(np.uint8, copy=False)

    def save_sheet(self, benchmark: str, row: str, strips: Sequence[Strip]) -> None:
        """Write the contact sheet of the worst images of a row. Raises as `save` does."""
        path = self._folder / benchmark / f"worst-{self._row_folder(row)}.png"
        _save(path, _sheet_key(row), contact_sheet(strips))

    def _path(self, name: ResultName) -> Path:
        benchmark, row, image = name
        return self._folder / benchmark / self._row_folder(row) / f"{image}.png"

    def _row_folder(self, row: str) -> str:
        """Return the folder of a row, which no other row has: "a b" and "a/b" would both be "a_b"."""
        if row not in self._rows:
            taken = {name.casefold() for name in self._rows.values()}  # some systems ignore the case of names
            plain = _folder_name(row)
            names = chain([plain], (f"{plain}_{number}" for number in count(2)))
            self._rows[row] = next(name for name in names if name.casefold() not in taken)
        return self._rows[row]


def save_sheet(path: Path, sheet: Image) -> None:
    """Write a contact sheet, `(H, W, 3)` uint8, as PNG, and record the file: `upscale` leaves the file out as a result.

    Raises ImageError where the file cannot be written.
    """
    _write(path, _sheet_key(path.stem), sheet)


def _sheet_key(name: str) -> ResultKey:
    # Sheets are written in every run, so the key need not name the images. Still a key marks the file as ours.
    return ResultKey("", "", {"sheet": name})


def _result_key(key: PixelKey) -> ResultKey:
    return ResultKey(key.lr, key.weights, asdict(key))


def _save(path: Path, key: ResultKey, image: Image) -> None:
    """Write a picture that replaces no file of another origin. Raises ImageError and UsageError as `save` does."""
    # A user may point --save at a folder of their own pictures: only files that this program wrote are replaced, and
    # files with the same pixels, which an earlier run may have written without a place for its record.
    if is_taken(path) and not is_recorded(path) and not _shows(path, image):
        hint = "choose another folder with --save"
        raise UsageError(f"{path} already exists and was not written by this program", hint)
    _write(path, key, image)


def _write(path: Path, key: ResultKey, image: Image) -> None:
    """Write `(H, W, 3)` uint8 as PNG and record the key. Raises ImageError."""
    height, width = image.shape[:2]
    save_result(path, Header("PNG", width, height, 3, np.dtype(np.uint8)), [Frame(image)], _LOSSLESS, key)


def _shows(path: Path, image: Image) -> bool:
    """Return whether a file is a picture of these pixels."""
    try:
        return np.array_equal(_read(path), image)
    except ImageError:
        return False


def _read(path: Path) -> Pixels:
    """Return the pixels of the first frame of a picture. Raises ImageError."""
    with open_picture(path, in_bands=False) as picture:
        return next(iter(picture.frames())).pixels


def _folder_name(row: str) -> str:
    """Return a folder name for a row: "a/b + ensemble" -> "a_b_+_ensemble". Names of rows are not file names."""
    return re.sub(r"[^\w.+-]+", "_", row).strip(".") or "_"
