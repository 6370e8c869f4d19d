"""The images of an evaluation as files: each result, and sheets of the worst."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.evaluation.protocol import Image
from dsclora_cli.imaging.contact_sheet import Strip, contact_sheet
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Frame, Header
from dsclora_cli.upscaling.manifest import ResultKey, is_recorded, result_state, save_result

_LOSSLESS = SaveOptions(format="PNG")


@dataclass(frozen=True)
class Slot:
    """A place for one image, and what makes it."""

    path: Path
    recipe: ResultKey

    @property
    def is_filled(self) -> bool:
        """Whether the file is there, unchanged, and made by this recipe."""
        return result_state(self.path, self.recipe) == "complete"

    def fill(self, image: Image) -> None:
        """Write `(H, W, 3)` uint8. Raises ImageError, and UsageError where a file of another's has that name."""
        if self.path.exists() and not is_recorded(self.path):
            hint = "choose another folder with --save"
            raise UsageError(f"{self.path} is already there and is not from this program", hint)
        height, width = image.shape[:2]
        header = Header("PNG", width, height, 3, np.dtype(np.uint8))
        save_result(self.path, header, [Frame(image)], _LOSSLESS, self.recipe)


class Gallery:
    """Files below `folder`: `SET/ROW/IMAGE.png`, and `SET/worst-ROW.png`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def slot(self, names: tuple[str, str, str], recipe: ResultKey) -> Slot:
        """Where the result for a set, a row and an image goes."""
        return Slot(self._path(*names), recipe)

    def read(self, benchmark: str, row: str, image: str) -> Image:
        """A result as it was saved. Raises ImageError."""
        path = self._path(benchmark, row, image)
        with open_picture(path) as picture:
            pixels = next(iter(picture.frames())).pixels
        if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
            raise ImageError(f"{path} was changed while this ran", "run again")
        return pixels.astype(np.uint8, copy=False)

    def save_sheet(self, benchmark: str, row: str, strips: Sequence[Strip]) -> None:
        """Write the sheet of a row's worst images."""
        path = self._folder / benchmark / f"worst-{_folder_name(row)}.png"
        Slot(path, ResultKey("", "", {"sheet": row})).fill(contact_sheet(strips))

    def _path(self, benchmark: str, row: str, image: str) -> Path:
        return self._folder / benchmark / _folder_name(row) / f"{image}.png"


def _folder_name(row: str) -> str:
    """Rows, unlike sets and images, are not named after files: "a/b + ensemble" -> "a_b_+_ensemble"."""
    return re.sub(r"[^\w.+-]+", "_", row)
