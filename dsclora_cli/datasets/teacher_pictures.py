"""A folder of a teacher's pictures: a network in any framework can be the teacher.

`with_teacher_pictures` gives every training picture the teacher's picture of the same name.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.datasets.benchmarks import hr_name, list_pictures, lr_name
from dsclora_cli.datasets.pages import open_pages
from dsclora_cli.datasets.patches import FIXED_POINT, MAX_THREADS, OnPicture, Picture, TrainSet
from dsclora_cli.errors import ImageError, UsageError, list_some
from dsclora_cli.host import usable_cpus
from dsclora_cli.imaging.color import convert_pixels, white_level


def with_teacher_pictures(data: TrainSet, folder: Path, on_picture: OnPicture | None = None) -> TrainSet:
    """Return the set with a teacher's pictures, decoded into the cache by their content.

    Args:
        data: Training pictures. The teacher's picture has the name of the file, whatever the suffix; `x4` or `_x4` for
            the scale may follow. Pages belong to the pages of the same number.
        folder: Pictures of the size of LR times the scale, 8 or 16 bits, or floats in [0, 1].
        on_picture: Receives progress.

    Raises:
        UsageError: A picture is missing, cannot be read, has another size, or could belong to two training pictures.
        DscloraError: The cache cannot be written.
    """
    files = _pair(data, folder)
    pool = ThreadPoolExecutor(min(MAX_THREADS, usable_cpus()))
    pictures = []
    try:
        for picture in pool.map(lambda picture: _taught(picture, files[picture.file], data), data.pictures):
            pictures.append(picture)
            if on_picture:
                on_picture(len(pictures), len(data.pictures))
    finally:
        # After an error or Ctrl-C, do not decode the pictures that wait.
        pool.shutdown(cancel_futures=True)
    return replace(data, pictures=tuple(pictures))


def _pair(data: TrainSet, folder: Path) -> dict[Path, Path]:
    """Return the teacher's file of each training file.

    Raises UsageError for a training file with none or with two, and for a teacher's file of two training files.
    """
    try:
        paths = list_pictures(folder, "teacher's")
    except UsageError as error:
        hint = "give a folder of a teacher's pictures, or one of the words patch, whole and ensemble"
        raise UsageError(f"--teacher-images: {error.message}", hint) from error
    by_name: dict[str, list[Path]] = {}
    by_plain_name: dict[str, list[Path]] = {}
    for path in paths:
        by_name.setdefault(path.stem, []).append(path)
        by_plain_name.setdefault(lr_name(path, data.recipe.network.scale), []).append(path)
    files: dict[Path, Path] = {}
    taught: dict[Path, Path] = {}
    missing = []
    for file in dict.fromkeys(picture.file for picture in data.pictures):
        tries = [
            (by_name, file.stem),
            (by_plain_name, file.stem),
            (by_name, hr_name(file)),
            (by_plain_name, hr_name(file)),
        ]
        found = next((names[name] for names, name in tries if name in names), [])
        if len(found) > 1:
            raise UsageError(f"{list_some(list(map(str, found)))}: all belong to {file.name}", "keep one of them")
        if not found:
            missing.append(file.name)
            continue
        files[file] = found[0]
        if (other := taught.setdefault(found[0], file)) != file:
            hint = "rename one of them, and its teacher's picture"
            raise UsageError(f"{other} and {file} would share the teacher's picture {found[0]}", hint)
    if missing:
        hint = f"add {Path(missing[0]).stem}.png and the like, or leave the pictures out of --data"
        raise UsageError(f"{folder} has no teacher's picture for {list_some(missing)}", hint)
    return files


def _taught(picture: Picture, path: Path, data: TrainSet) -> Picture:
    """Return a training picture with the teacher's picture in the cache."""
    cache, scale = data.cache, data.recipe.network.scale
    try:
        # Named by the content of both pictures: a teacher's picture that changes is read again.
        name = f"{picture.lr.removesuffix('.npy')}-{cache.hash_of(path)[:16]}.npy"
        stored = cache.add(name, lambda: _fixed_point(path, picture.page, cache.max_pixels))
        height, width = cache.open(stored).shape[:2]
        expected_height, expected_width = (side * scale for side in picture.size)
        if (height, width) != (expected_height, expected_width):
            found, page = f"{path} has {width} x {height} pixels", f" page {picture.page + 1}" if picture.page else ""
            raise ImageError(f"{found}, but {picture.file.name}{page} needs {expected_width} x {expected_height}")
    except ImageError as error:
        hint = f"make the teacher's picture of {picture.file.name} again, or leave {picture.file.name} out of --data"
        raise UsageError(error.message, hint) from error
    return replace(picture, teacher=stored)


def _fixed_point(path: Path, page: int, max_pixels: int) -> NDArray[np.int16]:
    """Return a page of a file as `(H, W, 3)`, where `FIXED_POINT` is white.

    Raises ImageError, also for a picture of more than `max_pixels`.
    """
    with open_pages(path, max_pixels) as pages:
        for index, pixels in enumerate(pages.stored()):
            if index == page:
                rgb = convert_pixels(pixels, 3, pixels.dtype)
                fixed = np.rint(rgb.astype(np.float64) / white_level(rgb.dtype) * FIXED_POINT)
                return np.clip(fixed, -32768, 32767).astype(np.int16)
    raise ImageError(f"{path}: has no page {page + 1}")
