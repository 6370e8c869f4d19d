"""The self-test of `dsclora doctor`: engines, tiles, the golden picture, weight files and picture formats.

Every check ends with an outcome, and never with an exception: an installation to diagnose may be broken anywhere.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsclora_cli.config import EngineOptions, ModelOptions, SaveOptions
from dsclora_cli.diagnosis.report import (
    Check,
    Device,
    DoctorCallbacks,
    EngineState,
    Folder,
    FormatState,
    Outcome,
    Package,
)
from dsclora_cli.errors import DscloraError, class_and_line
from dsclora_cli.imaging.metrics import psnr
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Frame, Header, Pixels
from dsclora_cli.imaging.writer import fit_format, write_picture
from dsclora_cli.inference.engine import Engine
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.methods import MethodPlugin, find_plugin, load_method
from dsclora_cli.paths import is_file
from dsclora_cli.settings import read_file, settings_file
from dsclora_cli.upscaling.engines import choose_device, load_engine
from dsclora_cli.weights.resolve import FoundWeights, find_weights
from dsclora_cli.weights.verification import BAD_STATES, FileState, verify_models

TESTED_MODEL = "dsclora-x2"
"""Model of the checks: inside the package, and the quickest."""

_LEVEL = 1
"""Largest allowed difference of 8-bit results: sums in another order change the rounding of a value."""

_HALF_PSNR = 45.0
"""Least PSNR of float16 against float32 in dB; 60 dB were measured for the picture of the check, on a CPU."""

_LOSSY_PSNR = 25.0
"""Least PSNR of a picture after a lossy format, in dB."""

_LOSSLESS = frozenset(("PNG", "TIFF", "BMP", "PPM", "TGA", "JPEG2000"))
_TILE = 32
_REPORT = "report what `dsclora doctor` shows"

_Result = tuple[bool, str, str]
"""Whether a check has passed, the finding, and the next step after a failure."""


@dataclass(frozen=True)
class Surroundings:
    """Facts about the machine, from which the list of checks follows."""

    packages: Sequence[Package]
    engines: Sequence[EngineState]
    devices: Sequence[Device]
    formats: Sequence[FormatState]
    folders: Sequence[Folder]
    methods: Sequence[MethodPlugin] = ()


def run_checks(
    found: Surroundings, callbacks: DoctorCallbacks, check_settings: Callable[[], object]
) -> Iterator[Check]:
    """Yield the outcome of every check; `check_settings` raises UsageError."""
    # From the installation to the pictures: the first failure of the list is often the reason for the others.
    steps: list[tuple[str, Callable[[], _Result | str]]] = [
        ("packages are installed", lambda: _check_packages(found.packages)),
        ("settings are valid", lambda: _check_settings(check_settings)),
        ("weight files are intact", _check_weights),
        ("folders can be written", lambda: _check_folders(found.folders)),
        ("golden picture", _check_golden),
        ("tiles equal the whole picture", _check_tiles),
    ]
    steps += [
        (f"{engine.name} on {device.name} equals PyTorch", _engine_check(engine, device))
        for engine in found.engines
        for device in found.devices
    ]
    steps += [(f"{format.name} keeps a picture", _format_check(format)) for format in found.formats]
    steps += [(f"method {plugin.name} can be imported", _method_check(plugin)) for plugin in found.methods]
    for name, step in steps:
        callbacks.on_step(name)
        yield _run_check(name, step)


def _run_check(name: str, step: Callable[[], _Result | str]) -> Check:
    """Return the outcome of a check; a text instead of a result gives the reason for skipping the check."""
    start = time.perf_counter()
    try:
        result = step()
    except DscloraError as error:
        result = False, error.message, error.hint or _REPORT
    # Also SystemError and the exceptions of every library that fails to start: nothing may hide the other checks.
    except Exception as error:  # noqa: BLE001
        result = False, class_and_line(error), _REPORT
    seconds = round(time.perf_counter() - start, 3)
    if isinstance(result, str):
        return Check(name, Outcome.SKIP, result, seconds=seconds)
    passed, detail, hint = result
    return Check(name, Outcome.PASS if passed else Outcome.FAIL, detail, "" if passed else hint, seconds)


def _check_packages(packages: Sequence[Package]) -> _Result | str:
    if not packages:
        return "dsclora runs from a folder and was not installed with pip"
    missing = [package.name for package in packages if not package.version and not package.extra]
    present = sum(bool(package.version) for package in packages)
    detail = f"missing: {', '.join(missing)}" if missing else f"{present} of {len(packages)}, optional ones included"
    return not missing, detail, f"pip install {' '.join(missing)}"


def _check_settings(check: Callable[[], object]) -> _Result:
    check()
    return True, f"{len(read_file())} settings in {settings_file()}", ""


def _check_weights() -> _Result:
    files = list(verify_models())
    bad = [file for file in files if file.state in BAD_STATES]
    here = sum(file.state is not FileState.NOT_HERE for file in files)
    if bad:
        first = bad[0]
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        return False, f"{first.name} is {first.state}: {first.path}{more}", first.hint
    return True, f"{here} files have the sha256 of the catalogue", ""


def _check_folders(folders: Sequence[Folder]) -> _Result:
    # A folder inside another one says nothing new, and nobody writes into the package.
    asked = [folder for folder in folders if ":" not in folder.purpose and folder.purpose != "embedded weights"]
    bad = [folder for folder in asked if not folder.writable]
    named = ", ".join(f"{folder.purpose} ({folder.path})" for folder in bad)
    hint = "set DSCLORA_CACHE_DIR, DSCLORA_STATE_DIR, DSCLORA_CONFIG_DIR, HF_HUB_CACHE or TMPDIR to a writable folder"
    return not bad, f"not writable: {named}" if bad else f"{len(asked)} folders", hint


def _check_golden() -> _Result:
    """Compare the result of `auto`'s engine with the stored result for a piece of a photograph."""
    with np.load(_golden_file()) as golden:
        lr, expected = golden["lr"], np.rint(np.clip(golden["sr"], 0, 1) * 255).astype(np.uint8)
    options = EngineOptions(dtype="float32")
    engine = load_engine(embedded_weights(), choose_device(options), options)
    return _compare(upscale_array(lr, engine, TileOptions(0)), expected, runs_on(engine))


def _golden_file() -> Path:
    """Return the golden file inside an installed wheel, else the golden file of the tests in a checkout."""
    packaged = Path(__file__).with_name("golden.npz")
    return packaged if is_file(packaged) else Path(__file__).parents[2] / "tests" / "golden" / f"{TESTED_MODEL}.npz"


def _check_tiles() -> _Result:
    options = EngineOptions(dtype="float32")
    engine = load_engine(embedded_weights(), choose_device(options), options)
    picture = _mosaic(72, 88)
    whole, tiled = (upscale_array(picture, engine, TileOptions(edge)) for edge in (0, _TILE))
    return _compare(tiled, whole, f"{runs_on(engine)}, tiles of {_TILE}")


def _engine_check(engine: EngineState, device: Device) -> Callable[[], _Result | str]:
    def check() -> _Result | str:
        if engine.problem:
            return engine.problem
        options = EngineOptions(device=device.name, dtype="float32", engine=engine.name)
        try:
            place = choose_device(options)
        except DscloraError as error:  # the engine has no such device
            return error.message
        opened = load_engine(embedded_weights(), place, options)
        result = upscale_array(_mosaic(48, 56), opened, TileOptions(0))
        passed, detail, hint = _compare(result, _reference(), runs_on(opened))
        if not passed or device.name == "cpu":
            return passed, detail, hint
        return _check_half(embedded_weights(), place, engine.name, detail)

    return check


def _check_half(weights: FoundWeights, place: str, name: str, detail: str) -> _Result | str:
    """Compare float16, the choice of `--dtype auto` on CUDA, with float32; broken float16 gives black pictures."""
    options = EngineOptions(device=place, dtype="auto", engine=name)
    engine = load_engine(weights, place, options)
    if engine.dtype != "float16":
        return True, detail, ""
    result = upscale_array(_mosaic(48, 56), engine, TileOptions(0))
    closeness = psnr(_shown(result), _reference())
    found = f"{detail}; float16: {closeness:.1f} dB, {engine.fp16_fallbacks} tiles in float32"
    return closeness >= _HALF_PSNR, found, "add --dtype float32"


def runs_on(engine: Engine) -> str:
    """Return where an engine runs, with the instruction set if the engine tells."""
    instructions = getattr(engine, "cpu", "")
    return f"{engine.name} on {engine.device}{f' with {instructions}' if instructions else ''} in {engine.dtype}"


@lru_cache(maxsize=1)
def _reference() -> NDArray[np.uint8]:
    """Return the result of PyTorch on the CPU in float32 for the picture of the engine checks, `(96, 112, 3)`."""
    engine = load_engine(embedded_weights(), "cpu", EngineOptions(device="cpu", dtype="float32", engine="torch"))
    return upscale_array(_mosaic(48, 56), engine, TileOptions(0))  # type: ignore[return-value]


def embedded_weights() -> FoundWeights:
    """Return the weights of the checks. Raises WeightsError for a damaged installation."""
    return find_weights(ModelOptions(TESTED_MODEL, offline=True), None)


def _compare(result: Pixels, expected: Pixels, where: str) -> _Result:
    """Return whether two 8-bit pictures `(H, W, C)` are equal within one level, with the numbers."""
    if result.shape != expected.shape:
        return False, f"{where}: {result.shape} instead of {expected.shape}", _REPORT
    difference = np.abs(result.astype(np.int16) - expected.astype(np.int16))
    share = float((difference > 0).mean())
    detail = f"{where}: largest difference {difference.max()} of 255, {share:.3%} of the values differ"
    return bool(difference.max() <= _LEVEL), detail, f"choose another --engine, and {_REPORT}"


def _method_check(plugin: MethodPlugin) -> Callable[[], _Result]:
    def check() -> _Result:
        find_plugin(plugin.name)  # raises UsageError for an ambiguous name
        load_method(plugin)
        return True, f"{plugin.function} of {plugin.package} {plugin.version}", ""

    return check


def _format_check(format: FormatState) -> Callable[[], _Result | str]:
    return lambda: _check_format(format.name) if format.usable else f"needs a package: {format.hint}"


def _check_format(name: str) -> _Result:
    """Write a picture of the format's own kind, read the file again, and compare."""
    # Asking for alpha and 16 bits, so that every format has to keep the most that it can hold.
    wanted = Header(name, 24, 20, channels=4, dtype=np.dtype(np.uint16))
    header, _ = fit_format(wanted, name, strict=False)
    pixels = _ramps(20, 24, header.channels, header.dtype)
    if name == "GIF":  # 256 colors, and alpha that is all or nothing
        pixels = pixels // 128 * 255
    buffer = io.BytesIO()
    write_picture(buffer, header, [Frame(pixels)], SaveOptions())
    with open_picture(buffer.getvalue()) as reader:
        found = next(iter(reader.frames())).pixels
    kind = f"{header.channels} channels of {header.dtype.itemsize * 8} bits, {len(buffer.getvalue())} bytes"
    if found.shape != pixels.shape or found.dtype != pixels.dtype:
        return False, f"{kind}: read again as {found.shape} {found.dtype}", _REPORT
    if np.array_equal(found, pixels):
        return True, f"{kind}: equal", ""
    # Color under transparent pixels may change, so only color that shows is compared.
    closeness = psnr(_shown(found), _shown(pixels))
    found_words = "equal where it shows" if np.isinf(closeness) else f"{closeness:.1f} dB"
    passed = np.isinf(closeness) or (name not in _LOSSLESS and closeness >= _LOSSY_PSNR)
    return bool(passed), f"{kind}: {found_words}", _REPORT


def _shown(pixels: Pixels) -> NDArray[np.uint8]:
    """Return pixels `(H, W, 1 to 4)` of 8 bits with color multiplied by alpha."""
    if pixels.shape[2] not in {2, 4}:
        return pixels.astype(np.uint8)
    alpha = pixels[..., -1:].astype(np.float32) / 255
    return np.concatenate([np.rint(pixels[..., :-1] * alpha), pixels[..., -1:]], axis=2).astype(np.uint8)


def _mosaic(height: int, width: int) -> NDArray[np.uint8]:
    """Return squares of random colors `(height, width, 3)`, always the same; both sides are multiples of 4.

    Noise of single pixels would be no test: far from photographs, networks make rounding errors larger, so that whole
    engines differ by more than a level (docs/performance.md).
    """
    colors = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return colors.repeat(4, axis=0).repeat(4, axis=1)


def _ramps(height: int, width: int, channels: int, dtype: DTypeLike) -> Pixels:
    """Return smooth ramps `(height, width, channels)`, easy for lossy formats; always the same.

    `dtype` is uint8 or uint16. The last plane is the alpha of pictures with two or four channels.
    """
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [rows / height, columns / width, (rows + columns) / (height + width), 0.4 + 0.6 * (columns > width / 2)]
    chosen = {1: [2], 2: [2, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    white = 255 if np.dtype(dtype) == np.uint8 else 65535
    pixels: Pixels = np.rint(np.stack([planes[index] for index in chosen], axis=2) * white).astype(dtype)
    return pixels
