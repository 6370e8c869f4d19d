"""Small benchmark sets made by the tests: as folders, and as archives of every layout."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.resize import downscale


def noise(seed: int = 0, size: tuple[int, int] = (29, 22)) -> NDArray[np.uint8]:
    """An RGB picture of `size` (width, height)."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_set(folder: Path, names: Iterable[str] = ("ape", "bee", "cow"), scale: int = 0) -> Path:
    """`HR` in the folder and, with a scale, `LR_bicubic/X<scale>` as the benchmarks name it."""
    for seed, name in enumerate(names):
        save(folder / "HR" / f"{name}.png", noise(seed))
        if scale:
            save(folder / f"LR_bicubic/X{scale}" / f"{name}x{scale}.png", downscale(noise(seed), scale))
    return folder


def tar_gz(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """Paths and their bytes, or a header that is written as it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tape:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tape.addfile(content)
            else:
                info.size = len(content)
                tape.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def circular_tiff(path: Path) -> Path:
    """Write a TIFF whose page names itself as the next page."""
    tifffile.imwrite(path, noise(size=(40, 40)), photometric="rgb", byteorder="<")
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    path.write_bytes(data)
    return path
