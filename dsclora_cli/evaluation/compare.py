"""Compare models and finished files on one picture: results of one size, scores, a contact sheet and a page.

`compare` makes the results; `contact_sheet.py` draws them side by side, and `compare_page.py` writes the page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.config import CompareOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.color import convert_pixels
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.imaging.metrics import SSIM_WINDOW, crop_border, luma, psnr, ssim
from dsclora_cli.imaging.profiles import fitting_profile
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.resize import BICUBIC, FILTERS, resize_with
from dsclora_cli.imaging.types import Header, Pixels
from dsclora_cli.storage.places import is_url
from dsclora_cli.upscaling.faithfulness import measure_pixels
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.part import Part, check_part, cut_part, place_part, upscale_part
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.sizes import to_result
from dsclora_cli.weights.hub_models import WEIGHT_SUFFIXES
from dsclora_cli.weights.resolve import AUTO, named_options, names_file

_LARGEST_RESULT = 16_000_000
"""Pixels of a result shown without a crop: a page holds all results, and browsers must decode them."""

_MIDDLE = 512  # pixels of the input on each side of the part that is chosen instead
_NO_PICTURES = WEIGHT_SUFFIXES | {".ckpt"}


@dataclass(frozen=True)
class ComparedResult:
    """A candidate, upscaled."""

    name: str
    """Model, filter or file as the user named it, or the model that `auto` selected."""
    kind: str
    """model, weights, filter, file, or hr."""
    seconds: float | None
    """Time of decoding, network and conversion; None for files."""
    psnr_y: float | None
    """PSNR of luma against HR in dB, without a border as wide as the factor; None without HR."""
    ssim_y: float | None
    """SSIM of luma against HR inside the same border; None without HR."""
    faithfulness: float | None
    """PSNR of luma in dB between the input and the result reduced to the size of the input by MATLAB's bicubic."""


@dataclass(frozen=True)
class CompareResult:
    """Results on one picture, and the files written."""

    picture: str
    crop: Part | None
    """Part in input pixels; None for the whole picture."""
    input_size: tuple[int, int]
    """(width, height) of the part in pixels."""
    output_size: tuple[int, int]
    """(width, height) of every result in pixels."""
    results: tuple[ComparedResult, ...]
    sheet: str | None = None
    """Contact sheet, a PNG."""
    page: str | None = None
    """Page for browsers, HTML."""


@dataclass(frozen=True)
class ComparedPixels:
    """Result with pixels, all of one size."""

    result: ComparedResult
    pixels: NDArray[np.uint8]
    """`(H, W, 3)`."""
    profile: bytes | None
    """ICC profile of the colors; None for sRGB."""


@dataclass(frozen=True)
class _Input:
    """Picture to upscale."""

    header: Header
    pixels: Pixels
    """`(H, W, 1 to 4)` of the whole picture."""
    part: Part


def compare(
    picture: Path, options: CompareOptions, callbacks: Callbacks
) -> tuple[CompareResult, tuple[ComparedPixels, ...]]:
    """Upscale a picture, or a part of a picture, with every candidate.

    Args:
        picture: File of the picture; of an animation or of several pages, the first.
        options: Candidates, part, HR and factor.
        callbacks: Receives notes.

    Returns:
        The results without and with pixels. HR, if given, is the last.

    Raises:
        ImageError: A picture cannot be read, or has another size than the results.
        UsageError: A candidate is unknown or is named twice, or the part is outside the picture.
        WeightsError: Weights cannot be read or downloaded.
    """
    names = options.candidates or (BICUBIC, AUTO)
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{', '.join(sorted(twice))} is named twice", "name each candidate once")
    candidates = [(name, sharp) for name in names for sharp in _sharpnesses(name, options)]
    if options.sharp and len(candidates) == len(names):
        raise UsageError("--sharp is given without a model to sharpen", "name one with --model")
    source = _open_input(picture, options, callbacks)
    small = _read_rgb(picture, cut_part(source.pixels, source.part, 1))
    upscaled = [_upscale(name, sharp, source, options, callbacks) for name, sharp in candidates]
    if options.hr is not None:
        upscaled.append(_read_finished(options.hr, "hr", source, options))
    height, width = (min(each.pixels.shape[axis] for each in upscaled) for axis in (0, 1))
    upscaled = [replace(each, pixels=each.pixels[:height, :width]) for each in upscaled]
    truth = upscaled[-1].pixels if options.hr is not None else None
    scored = tuple(_score(each, truth, small, round(options.scale)) for each in upscaled)
    whole = (0, 0, source.header.width, source.header.height)
    result = CompareResult(
        picture=str(picture),
        crop=None if source.part == whole else source.part,
        input_size=source.part[2:],
        output_size=(width, height),
        results=tuple(each.result for each in scored),
    )
    return result, scored


def _sharpnesses(name: str, options: CompareOptions) -> tuple[float | None, ...]:
    """Return the sharpnesses of a candidate: None, which is the candidate itself; for a model also the options'."""
    return (None,) if name in FILTERS or _is_finished(name) else (None, *options.sharp)


def _is_finished(name: str) -> bool:
    """Return whether a candidate is a picture, and not weights."""
    is_named_so = is_picture_name(Path(name)) or names_file(name)
    return is_named_so and not is_url(name) and Path(name).suffix.lower() not in _NO_PICTURES


def _open_input(picture: Path, options: CompareOptions, callbacks: Callbacks) -> _Input:
    header, pixels = _read(picture, options)
    return _Input(header, pixels, _choose_part(header, options, callbacks))


def _read(path: Path, options: CompareOptions) -> tuple[Header, Pixels]:
    """Return the header and the pixels of the first frame of a file."""
    with open_picture(path, options.read, in_bands=False) as reader:
        frame = next(iter(reader.frames()))
        return reader.header, frame.pixels


def _choose_part(header: Header, options: CompareOptions, callbacks: Callbacks) -> Part:
    """Return the part to compare, in input pixels."""
    whole = header.width, header.height
    if options.crop is not None:
        check_part(options.crop, header, "--crop")
        return options.crop
    if whole[0] * whole[1] * options.scale**2 <= _LARGEST_RESULT:
        return (0, 0, *whole)
    width, height = min(_MIDDLE, whole[0]), min(_MIDDLE, whole[1])
    part = ((whole[0] - width) // 2, (whole[1] - height) // 2, width, height)
    callbacks.note_once(
        f"the whole result would be too large for a page: the middle {width}x{height} pixels of the input are compared;"
        " choose a part with --crop X,Y,W,H"
    )
    return part


def _upscale(
    name: str, sharp: float | None, source: _Input, options: CompareOptions, callbacks: Callbacks
) -> ComparedPixels:
    """Return the part of the picture, upscaled by a candidate; `sharp` is the sharpness of a model."""
    if _is_finished(name):
        return _read_finished(Path(name), "file", source, options)
    begin = perf_counter()
    if name in FILTERS:
        kind, upscaled = "filter", _filter(name, source, options.scale)
    else:
        name, kind, upscaled = _run_model(name, sharp, source, options, callbacks)
    result = ComparedResult(name, kind, perf_counter() - begin, None, None, None)
    return ComparedPixels(result, _to_rgb(_limited(upscaled)), fitting_profile(source.header.metadata.icc, 3))


def _filter(name: str, source: _Input, factor: float) -> Pixels:
    """Return the part of the picture, upscaled by a filter of `FILTERS`."""
    before = source.header.width, source.header.height
    across, down = (to_result(side, factor) for side in before)
    width, height, place = place_part(source.part, before, (across, down), factor)
    return resize_with(name, _to_rgb(_limited(source.pixels)), width, height, place)


def _limited(pixels: Pixels) -> Pixels:
    """Return floats limited to [0, 1]: what overshoots next to the part, which lies in [0, 1], is not shown."""
    return pixels.clip(0, 1) if pixels.dtype.kind == "f" else pixels


def _run_model(
    name: str, sharp: float | None, source: _Input, options: CompareOptions, callbacks: Callbacks
) -> tuple[str, str, Pixels]:
    """Return the name and the kind of a model or of a file of weights, and the upscaled part."""
    model = named_options(name, options.offline)
    if sharp is not None:
        model = replace(model, sharp=sharp, sharp_weights=options.sharp_weights)
    asked = UpscaleOptions(model=model, size=SizeOptions(scale=options.scale), engine=options.engine)
    job = JobPlanner.for_arrays(asked).plan_in_memory(source.header)
    for note in job.notes:
        callbacks.note_once(note)
    upscaled, _, warnings = upscale_part(PictureUpscaler(asked), job, source.pixels, source.part)
    for warning in warnings:
        callbacks.note_once(warning)
    kind = "model" if model.weights is None else "weights"
    if name == AUTO:
        return f"{job.model} (auto)", kind, upscaled
    return name if sharp is None else f"{name}, sharpness {sharp:g}", kind, upscaled


def _read_finished(path: Path, kind: str, source: _Input, options: CompareOptions) -> ComparedPixels:
    """Return the part of a file that was upscaled before, or of HR."""
    found, pixels = _read(path, options)
    sides = source.header.width, source.header.height
    width, height = (to_result(side, options.scale) for side in sides)
    # Programs round sides in several ways.
    if max(abs(found.width - width), abs(found.height - height)) > 1:
        raise ImageError(
            f"{path}: {found.width}x{found.height} is not {options.scale:g} times"
            f" {source.header.width}x{source.header.height}",
            f"{width}x{height} is expected; choose the factor with -s",
        )
    result = ComparedResult("HR" if kind == "hr" else str(path), kind, None, None, None, None)
    cut = _read_rgb(path, cut_part(pixels, source.part, options.scale))
    return ComparedPixels(result, cut, fitting_profile(found.metadata.icc, 3))


def _read_rgb(path: Path, pixels: Pixels) -> NDArray[np.uint8]:
    """Return pixels of a file as `_to_rgb` does. Raise ImageError, with the path, for floats outside [0, 1]."""
    try:
        return _to_rgb(pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", error.hint) from error


def _to_rgb(pixels: Pixels) -> NDArray[np.uint8]:
    """Return `(H, W, 1 to 4)` as `(H, W, 3)` uint8; transparent pixels lie on white."""
    return convert_pixels(pixels, 3, np.uint8).astype(np.uint8, copy=False)


def _score(
    compared: ComparedPixels, truth: NDArray[np.uint8] | None, small: NDArray[np.uint8], border: int
) -> ComparedPixels:
    """Return the result with scores against HR, where there is HR, and against the input."""
    pixels, result = compared.pixels, compared.result
    result = replace(result, faithfulness=measure_pixels(small, pixels))
    if truth is not None and result.kind != "hr" and min(truth.shape[:2]) >= 2 * border + SSIM_WINDOW:
        planes = luma(crop_border(pixels, border)), luma(crop_border(truth, border))
        result = replace(result, psnr_y=psnr(*planes), ssim_y=ssim(*planes))
    return replace(compared, result=result)
