"""Camera JPEGs of three color spaces through the whole program: color, EXIF and profile come back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

PHOTOS = ("canyon-wren", "dragonfly-on-lavender", "cave-opening")


def mean_lab(path: Path) -> np.ndarray:
    """The mean color read through the picture's own profile, as CIE Lab."""
    image = Image.open(path)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    lab = ImageCms.profileToProfile(image.convert("RGB"), profile, ImageCms.createProfile("LAB"), outputMode="LAB")
    values = np.asarray(lab)  # a and b are signed
    return np.array([values[..., 0].mean() / 2.55, *values[..., 1:].astype(np.int8).mean(axis=(0, 1))])


@pytest.fixture
def part(shared: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The most colorful tile of a camera JPEG, with the metadata of the whole."""
    whole = Image.open(shared / f"data/photos/{request.param}.jpg")
    tiles = [whole.crop((x, y, x + 96, y + 64)) for y in range(0, 2100, 300) for x in range(0, 3700, 300)]
    colorful = max(tiles, key=lambda tile: np.ptp(np.asarray(tile).reshape(-1, 3).astype(int), axis=1).mean())
    path = tmp_path / "part.jpg"
    info = {key: whole.info[key] for key in ("exif", "icc_profile", "dpi")}
    colorful.save(path, quality=98, subsampling=0, **info)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("part", PHOTOS, indirect=True)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_color_profile_and_exif_survive(dsclora, shared: Path, part: Path, suffix: str) -> None:
    target = part.with_name(f"large.{suffix}")
    weights = shared / "weights/team23_DSCF.pth"
    assert dsclora("upscale", part, "--weights", weights, "-s", 3, "-o", target).code == 0
    before, after = Image.open(part), Image.open(target)
    assert after.size == (288, 192)
    assert after.info["icc_profile"] == before.info["icc_profile"]
    assert np.linalg.norm(mean_lab(target) - mean_lab(part)) < 0.5
    old, new = before.getexif(), after.getexif()
    assert new.get(0x110) == old.get(0x110) is not None  # the camera's model
    assert (new.get_ifd(0x8769)[0xA002], new.get_ifd(0x8769)[0xA003]) == (288, 192)
    assert new.get(0x112, 1) == 1
