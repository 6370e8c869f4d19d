"""Laws that hold for every picture, over random sizes, pixels, formats, scales and tiles, through the command line."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as some
from pictures import NOTHING, everything, read_still, saved_still
from PIL import Image

from dsclora_cli.cli.app import main
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.types import Header, Metadata, Pixels
from dsclora_cli.inference import openvino
from dsclora_cli.inference.native import library

LOSSLESS = ("PNG", "TIFF", "JPEG2000", "PPM", "BMP", "TGA", "WEBP")
"""Formats that keep every value, WebP with the quality 100."""

EXACT = ("--quality", "100")
LEVEL = {np.dtype(np.uint8): 1, np.dtype(np.uint16): 257, np.dtype(np.float32): 1 / 255}
"""One level of 8 bits, by depth."""

# What PIL.Image.transpose does to stored pixels of each orientation to show the picture upright, and the way back.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STORED = {**_UPRIGHT, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


_BORDER = 12
"""Pixels of the input from a border to where the network no longer sees the border, of two passes."""


_ONE = 1.001
"""Allow a level, and room for rounding in 16 bits."""

Observed = Mapping[str, int]
"""Counts of what a law has seen, by name."""


class Ran(NamedTuple):
    """What a command line left."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Case:
    """A picture, and how to upscale the picture."""

    width: int
    height: int
    format: str
    """Pillow name of the format of input and result."""

    channels: int
    dtype: np.dtype
    seed: int
    alpha: str = "mixed"
    """Transparency of pictures with 2 or 4 channels: "mixed", "opaque" or "clear"."""

    scale: str = "2"
    model: int = 2
    """Native scale of the network."""

    tile: int = 0
    """Side of a tile in pixels; 0 for the whole picture."""

    orientation: int = 1

    def pixels(self) -> Pixels:
        """Return smooth pixels with sharp edges, of full range."""
        rng = np.random.default_rng(self.seed)
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        color = np.array(corners.resize((self.width, self.height), Image.Resampling.BILINEAR), float)
        color[rng.integers(self.height) :, rng.integers(self.width) :] = rng.integers(0, 256, 3)
        planes = color[..., :1] if self.channels < 3 else color
        if self.channels in (2, 4):
            fixed = {"opaque": 255.0, "clear": 0.0}.get(self.alpha)
            alpha = color[..., 1:2][::-1] if fixed is None else np.full_like(color[..., :1], fixed)
            planes = np.concatenate([planes, alpha], axis=2)
        if self.dtype == np.float32:
            return (planes / 255).astype(np.float32)
        return np.rint(planes * (np.iinfo(self.dtype).max / 255)).astype(self.dtype)

    def save(self, folder: Path, pixels: Pixels | None = None, metadata: Metadata = NOTHING, name: str = "in") -> Path:
        """Write the picture, and return the path."""
        path = folder / f"{name}{FORMATS[self.format].suffixes[0]}"
        picture = self.pixels() if pixels is None else pixels
        path.write_bytes(saved_still(picture, self.format, metadata, quality=100))
        return path

    def larger(self) -> tuple[int, int]:
        """Return width and height of the result: exact multiples, rounded half up."""
        factor = Fraction(self.scale)
        return int(self.width * factor + Fraction(1, 2)), int(self.height * factor + Fraction(1, 2))

    def upscale(self, path: Path, *options: str, name: str = "out") -> tuple[Header, Pixels]:
        """Upscale a file of this case with PyTorch, and return header and pixels of the result."""
        target = path.with_name(f"{name}{path.suffix}")
        fixed = ("--model", f"dsclora-x{self.model}", "--scale", self.scale, "--tile", str(self.tile), *EXACT)
        engine = () if "--engine" in options else ("--engine", "torch")
        ran = run("upscale", str(path), "-o", str(target), *fixed, *engine, *options)
        assert ran.code == 0, ran.err
        return read_still(target.read_bytes())


def run(*arguments: str) -> Ran:
    """Run a command line in this process, on the CPU and without internet."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*arguments, "--device", "cpu", "--offline", "--json"])
    return Ran(code, out.getvalue(), err.getvalue())


def kinds(formats: tuple[str, ...]) -> list[tuple[str, int, np.dtype]]:
    """Return every format, number of channels and depth that a file of these formats can hold."""
    rows = ((name, FORMATS[name]) for name in formats)
    return [
        (name, channels, np.dtype(depth)) for name, row in rows for channels in row.channels for depth in row.depths
    ]


@some.composite
def cases(draw: some.DrawFn, formats: tuple[str, ...], longest: int, **fixed: some.SearchStrategy) -> Case:
    """Draw a picture of at most `longest` pixels a side; `fixed` draws fields of the case."""
    format, channels, dtype = draw(some.sampled_from(kinds(formats)))
    event(f"{format} {channels} {dtype}")
    width, height = draw(some.integers(1, longest)), draw(some.integers(1, longest))
    drawn = {name: draw(strategy) for name, strategy in fixed.items()}
    return Case(width, height, format, channels, dtype, draw(some.integers(0, 999)), **drawn)


SCALES = some.sampled_from(("1.3", "2", "2.5", "3", "4"))
MODELS = some.sampled_from((2, 3, 4))
TILES = some.sampled_from((0, 16, 48, 128))
PLAIN = tuple(name for name, row in FORMATS.items() if not row.extra)
WITH_EVERYTHING = ("PNG", "TIFF", "WEBP")
"""Formats with room for EXIF and XMP that keep every value, so that turned pictures can be compared."""


def keeps_size_depth_and_channels(case: Case, folder: Path) -> None:
    """Result = input x scale; depth, channels, opaque and clear pictures stay as they are."""
    before, pixels = read_still(case.save(folder).read_bytes())
    after, result = case.upscale(folder / f"in{FORMATS[case.format].suffixes[0]}")
    assert (after.width, after.height) == case.larger() == result.shape[1::-1]
    assert (after.format, after.channels, after.dtype) == (before.format, before.channels, before.dtype)
    assert result.dtype == pixels.dtype and result.shape[2] == pixels.shape[2]
    if pixels.shape[2] in (2, 4) and case.alpha != "mixed":
        assert np.unique(result[..., -1]).tolist() == np.unique(pixels[..., -1]).tolist()


def turns_and_keeps_metadata(case: Case, folder: Path) -> None:
    """A turned file gives the pixels of the upright file; every block stays, and names the new size and no turn."""
    upright = case.pixels()
    stored = upright if case.orientation == 1 else _transposed(upright, _STORED[case.orientation])
    given = everything(case.orientation)
    # A TIFF states the orientation in XMP alone, as our writer leaves the tag out.
    turn = f'tiff:Orientation="{case.orientation}"'.encode()
    given = replace(given, xmp=(given.xmp or b"").replace(b'tiff:Orientation="6"', turn))
    _, expected = case.upscale(case.save(folder, upright, name="upright"), name="upright-out")
    after, result = case.upscale(case.save(folder, stored, given))
    np.testing.assert_array_equal(result, expected)
    exif = Image.Exif()
    exif.load(after.metadata.exif)
    sizes = exif.get_ifd(34665)
    assert exif.get(274, 1) == 1 and (sizes[40962], sizes[40963]) == case.larger()
    assert after.metadata.xmp is not None and b'tiff:Orientation="1"' in after.metadata.xmp
    room = FORMATS[case.format].metadata
    # A profile of three channels says nothing about gray pixels, and is left out with a warning.
    kept = [name for name in ("icc", "iptc", "text") if name in room and (name != "icc" or case.channels >= 3)]
    assert [name for name in kept if getattr(after.metadata, name) != getattr(given, name)] == []


def keeps_one_color(case: Case, folder: Path) -> None:
    """Inside, a picture of one color keeps the color, to 2 levels; at its borders the network sees zeros (padding)."""
    color = case.pixels()[:1, :1]
    pixels = np.broadcast_to(color, (case.height, case.width, case.channels)).copy()
    path = case.save(folder, pixels)
    # A WebP keeps no alpha channel that is opaque.
    color = read_still(path.read_bytes())[1][:1, :1]
    _, result = case.upscale(path)
    border = round(_BORDER * float(case.scale))
    inside = result[border:-border, border:-border].astype(float)
    if inside.size:
        away = np.abs(inside - color.astype(float)).max() / LEVEL[case.dtype]
        assert away <= 2, f"{away:.2f} levels"


def commutes_under_ensemble(case: Case, folder: Path) -> Observed:
    """With `--ensemble`, a flipped or turned picture gives the flipped or turned result, to two levels."""
    pixels = case.pixels()
    way = _UPRIGHT[case.seed % 7 + 2]
    _, plain = case.upscale(case.save(folder, pixels), "--ensemble")
    _, turned = case.upscale(
        case.save(folder, _transposed(pixels, way), name="turned"), "--ensemble", name="turned-out"
    )
    away = np.abs(turned.astype(float) - _transposed(plain, way).astype(float)).max() / LEVEL[case.dtype]
    assert away <= 2, f"{way.name}: {away:.2f} levels"
    return {"more than 1 level apart": int(away > _ONE)}


def engines_agree(case: Case, folder: Path) -> Observed:
    """Every available engine gives the result of PyTorch, to two levels: networks amplify noise, and so rounding."""
    path = case.save(folder)
    _, expected = case.upscale(path)
    others = [] if library.why_unavailable() else ["native"]
    others += ["openvino"] if openvino.is_installed() else []
    observed = Counter(others)
    for engine in others:
        event(engine)
        _, result = case.upscale(path, "--engine", engine, name=engine)
        away = np.abs(result.astype(float) - expected.astype(float)).max() / LEVEL[case.dtype]
        assert away <= 2, f"{engine}: {away:.2f} levels"
        observed[f"{engine} more than 1 level apart"] += int(away > _ONE)
    return observed


def returns_every_value(case: Case, folder: Path) -> None:
    """A file of a lossless format, written and read, has every value."""
    header, again = read_still(case.save(folder).read_bytes())
    assert (header.width, header.height) == (case.width, case.height)
    if (header.channels, header.dtype) == (case.channels, case.dtype):
        np.testing.assert_array_equal(again, case.pixels())


def names_the_file(case: Case, folder: Path) -> None:
    """Every line on stderr about a picture, of a conversion or of a damaged file, names the picture."""
    path = case.save(folder, metadata=everything(case.orientation))
    if case.alpha == "clear":  # damaged, at a place that depends on the case
        data = path.read_bytes()
        path.write_bytes(data[: case.seed * len(data) // 1000])
    target = PLAIN[case.seed % len(PLAIN)]
    suffix = FORMATS[target].suffixes[0].removeprefix(".")
    ran = run("upscale", str(path), "-o", str(folder / "out"), "-m", "dsclora-x2", "-s", "2", "--format", suffix)
    (report,) = (json.loads(line) for line in ran.out.splitlines() if '"input"' in line)
    event(f"{report['status']}, {len(report['warnings'])} warnings")
    lines = [line for line in ran.err.splitlines() if line.startswith(("warning:", "failed:", "error:", "note:"))]
    assert [line for line in lines if path.name not in line] == []
    assert len(lines) >= len(report["warnings"]) + bool(report["error"])


LAWS: dict[str, tuple[Callable[[int], some.SearchStrategy[Case]], Callable[[Case, Path], Observed | None]]] = {
    "size, depth, channels and transparency": (
        lambda longest: cases(
            PLAIN,
            longest,
            scale=SCALES,
            model=MODELS,
            tile=TILES,
            alpha=some.sampled_from(("mixed", "opaque", "clear")),
        ),
        keeps_size_depth_and_channels,
    ),
    "orientation and metadata": (
        lambda longest: cases(WITH_EVERYTHING, longest, scale=SCALES, orientation=some.integers(1, 8)),
        turns_and_keeps_metadata,
    ),
    "pictures of one colour": (
        lambda longest: cases(LOSSLESS, 2 * longest, scale=SCALES, model=MODELS, tile=TILES, alpha=some.just("opaque")),
        keeps_one_color,
    ),
    "flips and turns under `--ensemble`": (
        lambda longest: cases(LOSSLESS, longest, scale=SCALES, model=MODELS),
        commutes_under_ensemble,
    ),
    "engines against PyTorch": (
        lambda longest: cases(LOSSLESS, longest, scale=SCALES, model=MODELS, tile=TILES),
        engines_agree,
    ),
    "round trips of lossless formats": (lambda longest: cases(LOSSLESS, longest), returns_every_value),
    "messages name the picture": (
        lambda longest: cases(
            PLAIN, longest, orientation=some.integers(1, 8), alpha=some.sampled_from(("mixed", "clear"))
        ),
        names_the_file,
    ),
}
"""Pictures and check of each law, by name; the pictures have sides of at most a given number of pixels."""


@dataclass
class LawTally:
    """Counts of one law."""

    cases: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    """Pictures by format."""

    largest: int = 0
    """Most pixels of a picture."""

    observed: Counter[str] = field(default_factory=Counter)
    """Collect the counts that the law has returned."""


def check(name: str, examples: int, longest: int) -> LawTally:
    """Check a law for random pictures, the same ones in every run; raise what the first picture that fails raises.

    Args:
        name: Name of the law in `LAWS`.
        examples: Number of pictures.
        longest: Longest side of a picture in pixels.
    """
    pictures, law = LAWS[name]
    tally = LawTally()

    # Without the search for a simpler picture, which takes hundreds of further ones: a case names all of its values.
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(pictures(longest))
    def every_picture(case: Case) -> None:
        tally.cases += 1
        tally.formats[case.format] += 1
        tally.largest = max(tally.largest, case.width * case.height)
        with tempfile.TemporaryDirectory(prefix="dsclora-law-") as folder:
            tally.observed.update(law(case, Path(folder)) or {})

    every_picture()
    return tally


def _transposed(pixels: Pixels, way: Image.Transpose) -> Pixels:
    """Return pixels `(H, W, C)` flipped or turned as Pillow does."""
    turns = {
        Image.Transpose.FLIP_LEFT_RIGHT: lambda array: array[:, ::-1],
        Image.Transpose.FLIP_TOP_BOTTOM: lambda array: array[::-1],
        Image.Transpose.ROTATE_90: lambda array: np.rot90(array, 1),
        Image.Transpose.ROTATE_180: lambda array: np.rot90(array, 2),
        Image.Transpose.ROTATE_270: lambda array: np.rot90(array, 3),
        Image.Transpose.TRANSPOSE: lambda array: array.swapaxes(0, 1),
        Image.Transpose.TRANSVERSE: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    }
    return np.ascontiguousarray(turns[way](pixels))
