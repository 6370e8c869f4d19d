"""Choose the size of a result, and the chain of native scales up to the size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement

from dsclora_cli.config import DEFAULT_SCALE, MAX_SCALE, SizeOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.resize import Rectangle

# Passes up to MAX_SCALE with the smallest native scale, 2.
_LONGEST_CHAIN = math.ceil(math.log2(MAX_SCALE))


class AlreadyLargeEnough(ImageError):
    """The picture is at the requested size, or larger; a batch skips the picture."""


@dataclass(frozen=True)
class SizePlan:
    """Size of a result and the passes that reach the size."""

    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    passes: tuple[int, ...]
    """Native scales, run in turn. The product is at least `factor`; a reduction removes the excess."""
    factor: float
    """Requested factor between the sides of input and result."""
    box: Rectangle | None = None
    """Part of the picture after the passes that becomes the result; None for the whole."""

    def for_page(self, width: int, height: int) -> SizePlan:
        """Return the plan for a page of `width` x `height` pixels of the same picture, with the same factor."""
        return SizePlan(_scaled(width, self.factor), _scaled(height, self.factor), self.passes, self.factor)

    def place(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the result in an input of `width` x `height`, in its pixels."""
        if self.box is None:
            return 0.0, 0.0, float(width), float(height)
        left, top, right, bottom = (float(side / math.prod(self.passes)) for side in self.box)
        return left, top, right, bottom

    def lr_sides(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """Return (height, width, scale) of the input of every pass, for a picture of `height` x `width` pixels."""
        sides = []
        for scale in self.passes:
            sides.append((height, width, scale))
            height, width = height * scale, width * scale
        return tuple(sides)


def fixed_factor(options: SizeOptions) -> float | None:
    """Return the factor of the sides that all pictures have; None where the factor depends on the picture."""
    others = (options.width, options.height, options.fit, options.long_edge, options.short_edge, options.megapixels)
    if any(other is not None for other in others):
        return None
    return DEFAULT_SCALE if options.scale is None else options.scale


def plan_size(width: int, height: int, options: SizeOptions, native: Iterable[int]) -> SizePlan:
    """Return the size of the result for a picture of `width` x `height` pixels.

    The aspect ratio is kept; a side is rounded half up and is at least 1.

    Args:
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        options: the requested size.
        native: scales of existing weights.

    Raises:
        UsageError: `check_size` refuses the options.
            So does any size with weights that restore pictures at their own size.
        AlreadyLargeEnough: the picture is at the requested size, or larger.
        ImageError: the picture would have to grow more than `MAX_SCALE` times.
    """
    check_size(options)
    scales = tuple(native)
    if scales == (1,):
        _check_restoring(options)
        return SizePlan(width, height, scales, 1.0)
    if options.scale == 1:
        raise _scale_error(1)
    factor = _factor(width, height, options)
    if factor <= 1:
        raise AlreadyLargeEnough(f"already large enough at {width}x{height}")
    if factor > MAX_SCALE:
        raise ImageError(
            f"{width}x{height} would have to grow {float(factor):.1f} times; at most {MAX_SCALE:g} times is possible",
            "ask for a smaller size, or upscale the result again",
        )
    return SizePlan(_scaled(width, factor), _scaled(height, factor), _chain(factor, scales), float(factor))


def check_size(options: SizeOptions) -> None:
    """Raise UsageError for several sizes, or for a size impossible for any picture."""
    asked = [name for name, value in vars(options).items() if value is not None]
    if len(asked) > 1 and set(asked) != {"width", "height"}:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(f"more than one size is given: {names}", "choose one; --width and --height go together")
    scale = options.scale
    if scale is not None and not 1 <= scale <= MAX_SCALE:
        raise _scale_error(scale)
    if options.megapixels is not None and not 0 < options.megapixels < math.inf:
        raise UsageError(f"--megapixels {options.megapixels:g} is no area", "give a number above 0, such as 24")


def _check_restoring(options: SizeOptions) -> None:
    """Raise UsageError for a size that a network without enlargement cannot reach."""
    asked = [f"--{name.replace('_', '-')}" for name, value in vars(options).items() if value is not None]
    if asked and options.scale != 1:
        problem = f"{', '.join(asked)} with a model that restores pictures at their own size"
        raise UsageError(problem, "leave the size out, or upscale the restored picture with another model")


def _scale_error(scale: float) -> UsageError:
    return UsageError(f"--scale {scale:g} is not above 1 and at most {MAX_SCALE:g}", "give a factor such as 2.5")


def _factor(width: int, height: int, options: SizeOptions) -> Fraction:
    """Return the exact factor, so the requested side is met to the pixel."""
    if options.megapixels is not None:
        return Fraction(math.sqrt(options.megapixels * 1e6 / (width * height)))
    if options.long_edge is not None:
        return Fraction(options.long_edge, max(width, height))
    if options.short_edge is not None:
        return Fraction(options.short_edge, min(width, height))
    box = options.fit or (options.width, options.height)
    sides = [Fraction(asked, side) for asked, side in zip(box, (width, height), strict=True) if asked is not None]
    # str: 2.3 means 23/10, not the binary number a little below it, which would round 11.5 down.
    return min(sides) if sides else Fraction(str(options.scale or DEFAULT_SCALE))


def to_result(pixels: int, factor: float | Fraction) -> int:
    """Return a length or a place of the input in pixels of the result, rounded half up.

    A float stands for the decimal number that a user writes: 25 times 1.14 is 28.5, and becomes 29.
    """
    return math.floor(pixels * Fraction(str(factor)) + Fraction(1, 2))


def _scaled(side: int, factor: float | Fraction) -> int:
    return max(1, to_result(side, factor))


def _chain(factor: Fraction, native: Iterable[int]) -> tuple[int, ...]:
    """Return the chain with the smallest sufficient product, and among equal products the fewest passes.

    Scales ascend: a small scale costs least at the start, where the picture is smallest.
    """
    scales = sorted(native)
    chains = (
        chain for length in range(1, _LONGEST_CHAIN + 1) for chain in combinations_with_replacement(scales, length)
    )
    return min(
        (chain for chain in chains if math.prod(chain) >= factor), key=lambda chain: (math.prod(chain), len(chain))
    )
