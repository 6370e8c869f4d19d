"""Requested sizes are met to the pixel, by the cheapest sufficient chain of native scales."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora_cli.config import MAX_SCALE, SizeOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.upscaling.sizes import AlreadyLargeEnough, SizePlan, plan_size


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (SizeOptions(), (400, 200)),
        (SizeOptions(scale=2.5), (250, 125)),
        (SizeOptions(width=333), (333, 167)),
        (SizeOptions(height=101), (202, 101)),
        (SizeOptions(width=300, height=110), (220, 110)),
        (SizeOptions(fit=(300, 1000)), (300, 150)),
        (SizeOptions(long_edge=150), (150, 75)),
        (SizeOptions(short_edge=150), (300, 150)),
        (SizeOptions(megapixels=0.02), (200, 100)),
    ],
)
def test_each_way_to_ask_for_a_size(options: SizeOptions, size: tuple[int, int]) -> None:
    plan = plan_size(100, 50, options, (4,))
    assert (plan.width, plan.height) == size
    assert plan.passes == (4,)


@pytest.mark.parametrize(
    ("native", "factor", "passes"),
    [
        ((4,), 2, (4,)),
        ((4,), 4.1, (4, 4)),
        ((4,), 16, (4, 4)),
        ((2,), 16, (2, 2, 2, 2)),
        ((2, 3, 4), 1.5, (2,)),
        ((2, 3, 4), 4, (4,)),
        ((4, 3, 2), 6, (2, 3)),
        ((2, 3, 4), 10, (3, 4)),
    ],
)
def test_passes_are_the_smallest_sufficient_chain(
    native: tuple[int, ...], factor: float, passes: tuple[int, ...]
) -> None:
    assert plan_size(10, 10, SizeOptions(scale=factor), native).passes == passes


def test_a_decimal_factor_rounds_half_up_as_written() -> None:
    assert plan_size(5, 1, SizeOptions(scale=2.3), (4,)) == SizePlan(12, 2, (4,), 2.3)


@given(
    st.integers(1, 9999),
    st.integers(1, 9999),
    st.floats(1.001, MAX_SCALE),
    st.sets(st.sampled_from([2, 3, 4]), min_size=1),
)
def test_the_aspect_ratio_is_kept_and_the_passes_are_sufficient(
    width: int, height: int, factor: float, native: set[int]
) -> None:
    plan = plan_size(width, height, SizeOptions(scale=factor), native)
    assert abs(plan.width - width * factor) <= 0.5 + 1e-6
    assert abs(plan.height - height * factor) <= 0.5 + 1e-6
    assert math.prod(plan.passes) >= factor


@given(st.integers(1, 500), st.integers(1, 500), st.integers(501, 8000), st.integers(501, 8000))
def test_fit_stays_inside_and_touches_one_side(width: int, height: int, box_width: int, box_height: int) -> None:
    try:
        plan = plan_size(width, height, SizeOptions(fit=(box_width, box_height)), (4,))
    except ImageError:
        assert min(box_width / width, box_height / height) > MAX_SCALE
        return
    assert plan.width <= box_width
    assert plan.height <= box_height
    assert plan.width == box_width or plan.height == box_height


@pytest.mark.parametrize("options", [SizeOptions(width=100), SizeOptions(fit=(500, 50)), SizeOptions(megapixels=0.005)])
def test_a_large_enough_picture_raises_its_own_error(options: SizeOptions) -> None:
    with pytest.raises(AlreadyLargeEnough, match="already large enough at 100x50"):
        plan_size(100, 50, options, (4,))


def test_a_factor_above_the_maximum_is_an_image_error() -> None:
    with pytest.raises(ImageError, match=r"10x10 would have to grow 100\.0 times; at most 16 times is possible"):
        plan_size(10, 10, SizeOptions(width=1000), (4,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SizeOptions(scale=1), "--scale 1 is not above 1 and at most 16"),
        (SizeOptions(scale=17), "--scale 17"),
        (SizeOptions(scale=math.nan), "--scale nan"),
        (SizeOptions(megapixels=math.inf), "--megapixels inf is no area"),
        (SizeOptions(scale=2, long_edge=9), "more than one size is given: --scale, --long-edge"),
    ],
)
def test_an_impossible_size_is_a_usage_error(options: SizeOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_size(100, 50, options, (4,))
