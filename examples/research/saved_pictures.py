"""Score models on held-out pictures that were saved in many ways: as cameras, phones and the web do.

    python examples/research/saved_pictures.py HELD-OUT MODEL... [--scale 4] [--camera JPEGS] [--largest 512]
    python examples/research/saved_pictures.py HELD-OUT BODY PHOTO --crossover jpeg|webp|avif

A model is a file or a name of the catalogue. Each row of the first table is a way to save LR; each model has two
columns, PSNR-Y against HR and NIQE. The settings of `--degrade` in training are good where a model gains in the rows
that matter and loses little on clean LR. `--camera` adds a row for real camera JPEGs, which have no HR: NIQE alone.
`--crossover` prints the lowest quality at which BODY is better than PHOTO; the numbers of `[photo]` in weights.toml are
this or a little lower, where the gain above is within its standard error.
Nothing is random: equal commands print equal tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from folders import pictures_in
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dsclora_cli.config import EngineOptions
from dsclora_cli.datasets.degradation import jpeg, webp
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.niqe import niqe
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.upscaling.engines import load_engine
from dsclora_cli.weights.resolve import find_named_weights

Pixels = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""
Chain = Callable[[Pixels], Pixels]
"""From clean LR to LR of the same size as a file of the world holds it."""

QUALITIES = (10, 30, 50, 60, 70, 75, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 100)


def avif(picture: Pixels, quality: int) -> Pixels:
    """Return a picture after compression as AVIF with 4:2:0 chroma, at the speed at which `upscale` writes AVIF."""
    file = BytesIO()
    Image.fromarray(picture).save(file, format="AVIF", quality=quality, speed=8, max_threads=1)
    return np.array(Image.open(file).convert("RGB"))


def twice(first: int, second: int, factor: float = 1.0) -> Chain:
    """Return a chain: saved as JPEG at `factor` times the size, reduced, cropped by 3 pixels, saved as JPEG again."""

    def chain(lr: Pixels) -> Pixels:
        height, width = lr.shape[:2]
        # Three rows and columns more, which the crop takes away: the blocks of the two files do not meet.
        padded = Image.fromarray(np.pad(lr, ((3, 0), (3, 0), (0, 0)), mode="edge"))
        size = round(padded.width * factor), round(padded.height * factor)
        saved = Image.fromarray(jpeg(np.array(padded.resize(size, Image.Resampling.BICUBIC)), first))
        reduced = np.array(saved.resize((width + 3, height + 3), Image.Resampling.BICUBIC))
        return jpeg(np.ascontiguousarray(reduced[3:, 3:]), second)

    return chain


def sharpened(percent: int, quality: int) -> Chain:
    """Return a chain: an unsharp mask of radius 1 and `percent`, then JPEG."""
    mask = ImageFilter.UnsharpMask(1, percent, threshold=0)
    return lambda lr: jpeg(np.array(Image.fromarray(lr).filter(mask)), quality)


def noisy(deviation: float, quality: int) -> Chain:
    """Return a chain: noise of a standard deviation in 8-bit levels, the same for every call, then JPEG."""

    def chain(lr: Pixels) -> Pixels:
        values = lr + np.random.default_rng(0).normal(0, deviation, lr.shape)
        return jpeg(np.clip(np.rint(values), 0, 255).astype(np.uint8), quality)

    return chain


CHAINS: dict[str, Chain] = {
    "clean": lambda lr: lr,
    **{f"JPEG {quality}": lambda lr, quality=quality: jpeg(lr, quality) for quality in (30, 50, 75, 90, 95)},
    "JPEG 75, 4:2:2": lambda lr: jpeg(lr, 75, "4:2:2"),
    "JPEG 75, 4:4:4": lambda lr: jpeg(lr, 75, "4:4:4"),
    "JPEG 50, cropped, JPEG 90": twice(50, 90),
    "JPEG 75, cropped, JPEG 75": twice(75, 75),
    "JPEG 75 at twice the size, JPEG 85": twice(75, 85, 2.0),
    "JPEG 75 at two thirds of the size, JPEG 85": twice(75, 85, 2 / 3),
    **{f"WebP {quality}": lambda lr, quality=quality: webp(lr, quality) for quality in (50, 75, 90)},
    "sharpened by 100 %, JPEG 75": sharpened(100, 75),
    "sharpened by 100 %, JPEG 95": sharpened(100, 95),
    "noise 4, JPEG 75": noisy(4, 75),
}
"""Ways to save a picture, by name."""

SAVERS: dict[str, Callable[[Pixels, int], Pixels]] = {"jpeg": jpeg, "webp": webp, "avif": avif}
"""Formats whose quality decides between two networks."""


def open_model(name: str) -> tuple[int, Callable[[Pixels], Pixels]]:
    """Return the scale of a model, and a function that upscales LR with the model."""
    engine = load_engine(find_named_weights(name), "cpu", EngineOptions())
    return engine.descriptor.scale, lambda lr: upscale_array(lr, engine, TileOptions(256)).astype(np.uint8, copy=False)


def open_models(names: Iterable[str], scale: int) -> dict[str, Callable[[Pixels], Pixels]]:
    """Return the functions of `open_model` by name. Raises SystemExit for a model of another scale."""
    models = {}
    for name in names:
        own, models[name] = open_model(name)
        if own != scale:
            raise SystemExit(f"{name} upscales by {own}, not by {scale}: give --scale")
    return models


def read(folder: Path, largest: int, multiple: int) -> list[Pixels]:
    """Return the middle of each picture: at most `largest` pixels a side, a multiple of `multiple`."""
    pictures = []
    for path in pictures_in(folder):
        whole = np.array(Image.open(path).convert("RGB"))
        edges = [min(side, largest) // multiple * multiple for side in whole.shape[:2]]
        top, left = ((side - edge) // 2 // 8 * 8 for side, edge in zip(whole.shape[:2], edges, strict=True))
        pictures.append(np.ascontiguousarray(whole[top : top + edges[0], left : left + edges[1]]))
    return pictures


def mean_finite(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN without any."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def print_chains(models: dict[str, Callable[[Pixels], Pixels]], held_out: Sequence[Pixels], scale: int) -> None:
    """Print a table in Markdown: PSNR-Y in dB and NIQE of each model for each way to save LR."""
    for name, chain in CHAINS.items():
        cells = []
        for upscale in models.values():
            results = [(upscale(chain(downscale(hr, scale))), hr) for hr in held_out]
            cells.append(f"{mean_finite(psnr_y(result, hr, scale) for result, hr in results):.3f}")
            cells.append(f"{mean_finite(niqe(result) for result, _ in results):.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_crossover(body: Callable[[Pixels], Pixels], photo: Callable[[Pixels], Pixels], held_out: Sequence[Pixels],
                    scale: int, save: Callable[[Pixels, int], Pixels]) -> None:  # fmt: skip
    """Print the gain of the photo network at each quality, and the quality from which the body is better."""
    gains = []
    print("| quality | gain of the photo network, dB | standard error | better on |\n| --- | --- | --- | --- |")
    for quality in QUALITIES:
        saved = [(save(downscale(hr, scale), quality), hr) for hr in held_out]
        each = np.array([psnr_y(photo(lr), hr, scale) - psnr_y(body(lr), hr, scale) for lr, hr in saved])
        error = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
        gains.append(each.mean())
        print(f"| {quality} | {gains[-1]:+.3f} | {error:.3f} | {(each > 0).mean():.0%} |", flush=True)
    worse = [quality for quality, gain in zip(QUALITIES, gains, strict=True) if gain <= 0]
    print(f"below = {min(worse)}" if worse else "the photo network is better at every quality")


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--camera", type=Path)
    parser.add_argument("--largest", type=int, default=512, help="pixels a side of HR; the middle counts")
    parser.add_argument("--crossover", choices=tuple(SAVERS))
    options = parser.parse_args(arguments)
    models = open_models(options.models, options.scale)
    held_out = read(options.held_out, options.largest, options.scale)
    if options.crossover:
        if len(models) != 2:
            raise SystemExit("--crossover compares two models: BODY PHOTO")
        print_crossover(*models.values(), held_out, options.scale, SAVERS[options.crossover])
        return
    columns = [f"{Path(name).stem}, {metric}" for name in models for metric in ("PSNR-Y", "NIQE")]
    print(f"| LR | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}", flush=True)
    print_chains(models, held_out, options.scale)
    if options.camera:
        # A camera's own file, cut on its blocks: what people upscale.
        pictures = read(options.camera, options.largest // options.scale, 1)
        cells = [f" | {mean_finite(niqe(upscale(lr)) for lr in pictures):.2f}" for upscale in models.values()]
        print(f"| as the camera saved | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
