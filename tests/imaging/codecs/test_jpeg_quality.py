"""The quality of a JPEG, estimated from the quantization tables."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging.codecs.jpeg import estimate_quality
from dsclora_cli.imaging.reader import open_picture


def _read(file: BytesIO | Path) -> int | None:
    with open_picture(file if isinstance(file, Path) else file.getvalue()) as picture:
        return picture.header.lossy_quality


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_quality_of_a_jpeg_is_estimated_from_its_tables(mode: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).convert(mode)
    for quality in (*range(5, 100, 5), 98, 100):
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        assert _read(file) == quality


def test_tables_of_other_encoders_get_a_quality_of_similar_strength() -> None:
    flat = {0: [4] * 64, 1: [6] * 64}
    assert 90 <= estimate_quality(flat) <= 99  # type: ignore[operator]
    coarse = {0: [40] * 64}
    assert 30 <= estimate_quality(coarse) <= 80  # type: ignore[operator]
    assert estimate_quality({}) is None
    assert estimate_quality({0: [0] * 64}) == 100


def test_other_formats_have_no_jpeg_quality(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert _read(tmp_path / "a.png") is None


def test_the_quality_of_camera_jpegs(shared: Path) -> None:
    photos = shared / "data/photos"
    qualities = {
        name: _read(photos / f"{name}.jpg") for name in ("dragonfly-on-lavender", "canyon-wren", "cave-opening")
    }
    assert qualities == {"dragonfly-on-lavender": 94, "canyon-wren": 84, "cave-opening": 62}
