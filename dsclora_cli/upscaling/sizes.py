"""How large a result is, and by which chain of native scales it gets there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement

from dsclora_cli.config import DEFAULT_SCALE, MAX_SCALE, SizeOptions
from dsclora_cli.errors import ImageError, UsageError

_LONGEST_CHAIN = math.ceil(math.log2(MAX_SCALE))


class AlreadyLargeEnough(ImageError):
    """The picture is at or above the asked size; a batch counts it as skipped."""


@dataclass(frozen=True)
class SizePlan:
    """The result's size in pixels, the native scales that run one after the other, and the asked factor.

    The product of `passes` is at least `factor`; what is too much is taken away by one reduction at the end.
    """

    width: int
    height: int
    passes: tuple[int, ...]
    factor: float


def lr_sides(height: int, width: int, passes: Iterable[int]) -> tuple[tuple[int, int, int], ...]:
    """Height and width of the LR side of each pass of a picture, and its scale."""
    sides = []
    for scale in passes:
        sides.append((height, width, scale))
        height, width = height * scale, width * scale
    return tuple(sides)


def check_size(options: SizeOptions) -> None:
    """Raise UsageError for more than one size, or one that no picture could have."""
    asked = [name for name, value in vars(options).items() if value is not None]
    if len(asked) > 1 and set(asked) != {"width", "height"}:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(f"more than one size is asked for: {names}", "choose one; --width and --height go together")
    scale = options.scale
    if scale is not None and not 1 < scale <= MAX_SCALE:
        raise UsageError(f"--scale {scale:g} is not above 1 and at most {MAX_SCALE:g}", "for example --scale 2.5")
    for name in asked:
        value = getattr(options, name)
        sides = value if isinstance(value, tuple) else (value,)
        if not all(0 < side < math.inf for side in sides):
            raise UsageError(f"--{name.replace('_', '-')} must be above 0")


def plan_size(width: int, height: int, options: SizeOptions, native: Iterable[int]) -> SizePlan:
    """The size of the result of a picture of `width` x `height` pixels, for weights that exist at `native` scales.

    The aspect ratio is kept; a side is rounded half up and is at least 1. Raises UsageError as `check_size` does,
    AlreadyLargeEnough, and ImageError where the picture would have to grow by more than `MAX_SCALE`.
    """
    check_size(options)
    factor = _factor(width, height, options)
    if factor <= 1:
        raise AlreadyLargeEnough(f"already large enough at {width}x{height}")
    if factor > MAX_SCALE:
        raise ImageError(
            f"{width}x{height} would have to grow {float(factor):.1f} times, the most is {MAX_SCALE:g}",
            "ask for a smaller size, or upscale the result again",
        )
    return SizePlan(_scaled(width, factor), _scaled(height, factor), _chain(factor, native), float(factor))


def _factor(width: int, height: int, options: SizeOptions) -> Fraction:
    """Exact, so that the side that was asked for is met to the pixel."""
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


def _scaled(side: int, factor: Fraction) -> int:
    return max(1, math.floor(side * factor + Fraction(1, 2)))


def _chain(factor: Fraction, native: Iterable[int]) -> tuple[int, ...]:
    """The smallest sufficient product, then the fewest passes; small scales first, where they cost least."""
    scales = sorted(native)
    chains = (
        chain for length in range(1, _LONGEST_CHAIN + 1) for chain in combinations_with_replacement(scales, length)
    )
    return min(
        (chain for chain in chains if math.prod(chain) >= factor), key=lambda chain: (math.prod(chain), len(chain))
    )
