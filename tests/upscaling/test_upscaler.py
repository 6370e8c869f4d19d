"""The Python API for files, images and arrays."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dsclora_cli
from dsclora_cli import UpscaleOptions, Upscaler
from dsclora_cli.config import BatchOptions, ModelOptions
from dsclora_cli.errors import DscloraError, ImageError, UsageError

EMBEDDED = UpscaleOptions(model=ModelOptions(offline=True))


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(device="cpu", scale=2, options=EMBEDDED)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.open(Path(__file__).parents[2] / "examples" / "photo.png").convert("RGB").crop((90, 30, 122, 54)).save(path)
    return path


def test_a_path_becomes_the_path_of_a_written_file(upscaler: Upscaler, photo: Path) -> None:
    written = upscaler(photo)
    assert written == photo.with_name("photo_x2.png")
    assert Image.open(written).size == (64, 48)
    assert upscaler(str(photo), photo.with_name("other.jpg")).suffix == ".jpg"


def test_a_url_becomes_the_place_of_a_written_object(upscaler: Upscaler, photo: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("memory://api/photo.png", photo.read_bytes())
    written = upscaler("memory://api/photo.png")
    assert (str(written), written.name) == ("memory://api/photo_x2.png", "photo_x2.png")
    local = upscaler(written.parent / "photo.png", photo.with_name("local.png"))
    assert memory.cat_file("memory://api/photo_x2.png") == local.read_bytes()
    memory.rm("memory://api", recursive=True)


def test_paths_images_and_arrays_give_the_same_pixels(upscaler: Upscaler, photo: Path) -> None:
    image = Image.open(photo)
    from_image = upscaler(image)
    assert isinstance(from_image, Image.Image) and from_image.mode == "RGB"
    from_array = upscaler(np.asarray(image))
    np.testing.assert_array_equal(np.asarray(from_image), from_array)
    np.testing.assert_array_equal(np.asarray(Image.open(upscaler(photo))), from_array)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_arrays_keep_their_dtype(upscaler: Upscaler, photo: Path, dtype: type) -> None:
    eight = np.asarray(Image.open(photo))
    full = 65535 if dtype is np.uint16 else 1
    result = upscaler((eight / 255 * full).astype(dtype))
    assert (result.dtype, result.shape) == (np.dtype(dtype), (48, 64, 3))
    apart = np.abs(result / full * 255 - upscaler(eight))
    assert apart.mean() < 0.5  # 8 bits are rounded by network and reduction
    assert apart.max() < (1.6 if dtype is np.uint16 else 8)  # floats keep what overshoots white before the reduction


def test_gray_arrays_keep_two_dimensions(upscaler: Upscaler, photo: Path) -> None:
    assert upscaler(np.asarray(Image.open(photo).convert("L"))).shape == (48, 64)


def test_an_existing_different_file_is_not_overwritten(upscaler: Upscaler, photo: Path) -> None:
    target = photo.with_name("photo_x2.png")
    target.write_bytes(b"mine")
    with pytest.raises(ImageError, match="exists"):
        upscaler(photo)
    assert target.read_bytes() == b"mine"
    over = Upscaler(scale=2, options=replace(EMBEDDED, batch=BatchOptions(overwrite=True)))
    assert Image.open(over(photo)).size == (64, 48)


def test_errors_are_dsclora_errors(upscaler: Upscaler, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        upscaler(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DscloraError, match=r"text\.png"):
        upscaler(tmp_path / "text.png")
    with pytest.raises(UsageError, match="unknown device"):
        Upscaler(device="abacus", options=EMBEDDED)


def test_a_fallback_of_auto_is_a_python_warning_at_the_call(photo: Path) -> None:
    upscaler = Upscaler(device="cpu", options=EMBEDDED)
    for picture in (photo, Image.open(photo)):
        with pytest.warns(UserWarning, match="dscf-x4 could not be fetched") as caught:
            upscaler(picture)
        assert [warning.filename for warning in caught] == [__file__]


def test_an_array_out_of_range_is_a_python_warning(upscaler: Upscaler) -> None:
    with pytest.warns(UserWarning, match="rescaled"):
        upscaler(np.linspace(0, 300, 12 * 9, dtype=np.float32).reshape(9, 12))


def test_importing_the_package_imports_no_torch_and_no_numpy() -> None:
    script = "import sys, dsclora_cli; print([m for m in ('torch', 'numpy', 'PIL', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    assert set(dir(dsclora_cli)) >= {"Upscaler", "upscale_files", "__version__"}
    with pytest.raises(AttributeError, match="Nothing"):
        _ = dsclora_cli.Nothing
