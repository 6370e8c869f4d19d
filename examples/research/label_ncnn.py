"""Compute a teacher's pictures for training with a network in ncnn's format (`pip install ncnn`).

    python examples/research/label_ncnn.py TEACHER.param PHOTOS... ANSWERS

TEACHER.bin lies next to TEACHER.param. LR is HR cut to a multiple of the scale and reduced by MATLAB's bicubic, as
`--teacher-images` expects. Pictures that ANSWERS holds already are not computed again, so the command resumes.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from folders import pictures_in
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.resize import downscale

Upscale = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Enlarge an LR picture `(3, h, w)` in [0, 1] to `(3, scale * h, scale * w)`."""


def open_teacher(param: Path, blobs: tuple[str, str], threads: int) -> Upscale:
    """Return the network in `param` and in the `.bin` file next to `param`, as a function.

    Args:
        param: Layers of the network, in ncnn's text format.
        blobs: Names of the input and of the output.
        threads: CPU threads.

    Raises:
        SystemExit: A file cannot be loaded, or a blob is missing.
    """
    ncnn = importlib.import_module("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = threads
    # Answers shall be exact: half precision changes an 8-bit level here and there.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise SystemExit(f"{param} and {param.with_suffix('.bin').name} cannot be loaded")

    def upscale(lr: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = net.create_extractor()
        # A Mat shares the memory of the array without keeping the array: the name keeps the array until `clone` has
        # copied. Without the name, other values land in the first pixels.
        held = np.ascontiguousarray(lr)
        failed = extractor.input(blobs[0], ncnn.Mat(held).clone())
        if not failed:
            failed, answer = extractor.extract(blobs[1])
        if failed:
            raise SystemExit(f"{param} has no input {blobs[0]!r} or no output {blobs[1]!r}")
        return np.array(answer)

    return upscale


def upscale_by_tiles(lr: NDArray[np.uint8], scale: int, upscale: Upscale, tile: int, overlap: int) -> NDArray[np.uint8]:
    """Return the teacher's picture `(scale * h, scale * w, 3)`, uint8, for an LR picture `(h, w, 3)`, uint8.

    Args:
        lr: The LR picture.
        scale: Factor of the network.
        upscale: The network.
        tile: Edge of a tile without overlap, in LR pixels.
        overlap: LR pixels that each tile sees on every side. From the reach of the network on, tiles change nothing.
    """
    height, width = lr.shape[:2]
    result = np.empty((height * scale, width * scale, 3), np.uint8)
    unit = np.moveaxis(lr, 2, 0).astype(np.float32) / 255
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            above, before = max(0, top - overlap), max(0, left - overlap)
            answer = upscale(unit[:, above : bottom + overlap, before : right + overlap])
            rows = slice((top - above) * scale, (bottom - above) * scale)
            columns = slice((left - before) * scale, (right - before) * scale)
            levels = np.clip(np.rint(answer[:, rows, columns] * 255), 0, 255)
            result[top * scale : bottom * scale, left * scale : right * scale] = np.moveaxis(levels, 0, 2)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Write the teacher's picture of every training picture as PNG, and print the time for a megapixel of LR."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("param", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("answers", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--blobs", nargs=2, default=("data", "output"), metavar=("INPUT", "OUTPUT"))
    parser.add_argument("--tile", type=int, default=192)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    upscale = open_teacher(options.param, tuple(options.blobs), options.threads)
    options.answers.mkdir(parents=True, exist_ok=True)
    pictures = pictures_in(*options.photos)
    pixels, started = 0, time.process_time()
    for number, path in enumerate(pictures, start=1):
        target = options.answers / f"{path.stem}.png"
        if target.exists():
            continue
        hr = np.array(Image.open(path).convert("RGB"))
        height, width = (side // options.scale * options.scale for side in hr.shape[:2])
        lr = downscale(hr[:height, :width], options.scale)
        answer = upscale_by_tiles(lr, options.scale, upscale, options.tile, options.overlap)
        # Renamed when whole: a stopped run must not leave half a picture that counts as done.
        temporary = target.with_suffix(".tmp")
        Image.fromarray(answer).save(temporary, "PNG", compress_level=1)
        temporary.replace(target)
        pixels += lr.shape[0] * lr.shape[1]
        seconds = (time.process_time() - started) / pixels * 1e6
        print(f"{number} of {len(pictures)}: {path.name}, {seconds:.1f} s of CPU for a megapixel of LR", flush=True)


if __name__ == "__main__":
    main()
