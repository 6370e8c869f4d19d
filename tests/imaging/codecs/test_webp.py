"""The quality of a lossy WebP, estimated from the quantizers in its header."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging.codecs.webp import estimate_webp_quality
from dsclora_cli.imaging.reader import open_picture

PHOTO = Path(__file__).parents[3] / "examples" / "photo.png"


def _saved(picture: Image.Image, **settings: object) -> BytesIO:
    file = BytesIO()
    picture.save(file, "WEBP", **settings)
    return file


@pytest.mark.parametrize("method", [0, 4, 6])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_estimate_is_near_the_quality_of_pillow(mode: str, method: int) -> None:
    photo, noise = Image.open(PHOTO).convert(mode), np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    for picture in (photo, Image.fromarray(noise).convert(mode), Image.new(mode, (16, 16), (90, 20, 60))):
        for quality in (0, 10, 30, 50, 75, 80, 90, 95, 100):
            estimate = estimate_webp_quality(_saved(picture, quality=quality, method=method))
            assert estimate is not None
            # Segments depend on the picture: noise and tiny pictures have unusual ones.
            assert abs(estimate - quality) <= (4 if quality >= 80 else 12)


def test_the_header_of_a_picture_holds_the_estimate() -> None:
    qualities = []
    for settings in ({"quality": 50}, {"quality": 80}, {"lossless": True}):
        with open_picture(_saved(Image.open(PHOTO), **settings).getvalue()) as picture:
            qualities.append(picture.header.lossy_quality)
    assert qualities[0] == pytest.approx(50, abs=4) and qualities[1] == pytest.approx(80, abs=2)
    assert qualities[2] is None


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.open(PHOTO).convert("RGB").crop((0, 0, 64, 64)).rotate(angle) for angle in (0, 90)]
    file = _saved(frames[0], quality=40, save_all=True, append_images=frames[1:])
    assert estimate_webp_quality(file) == pytest.approx(40, abs=8)


def test_a_header_that_is_cut_or_damaged_has_no_quality_or_any_and_never_fails() -> None:
    data = _saved(Image.open(PHOTO), quality=75).getvalue()
    start = data.index(b"VP8 ") + 8
    for length in range(start + 16):
        estimate_webp_quality(BytesIO(data[:length]))
    assert estimate_webp_quality(BytesIO(data[: start + 3] + b"xyz" + data[start + 6 :])) is None
    rng = np.random.default_rng(0)
    for _ in range(50):
        damaged = data[: start + 10] + rng.bytes(60)
        quality = estimate_webp_quality(BytesIO(damaged))
        assert quality is not None and 0 <= quality <= 100
