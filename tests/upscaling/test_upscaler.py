"""The Python API for files, images and arrays."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

import dsclora_cli
from dsclora_cli import UpscaleOptions, Upscaler, upscale_files
from dsclora_cli.config import BatchOptions, ModelOptions, SizeOptions
from dsclora_cli.errors import (
    DscloraError,
    ErrorCode,
    ErrorInfo,
    ImageError,
    ImageUnreadable,
    ImageUnwritable,
    OutOfMemory,
    Unforeseen,
    UsageError,
    error_of,
)
from dsclora_cli.upscaling.manifest import ResultClaim
from dsclora_cli.weights.resolve import find_weights

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
    reason = "not the result of this picture with these settings; options.batch.overwrite replaces the file"
    with pytest.raises(ImageError) as caught:
        upscaler(photo)
    assert str(caught.value) == f"{target} is kept: {reason}"
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


@pytest.mark.parametrize("kind", [PurePath, os.fsencode, list, io.BytesIO, lambda path: None])
def test_a_picture_is_a_path_an_image_or_an_array(upscaler: Upscaler, photo: Path, kind: Callable) -> None:
    if kind is PurePath:
        assert upscaler(PurePath(photo)) == photo.with_name("photo_x2.png")
        return
    with pytest.raises(UsageError, match=r"is no picture \(give a path, a Pillow image"):
        upscaler(kind(str(photo)) if kind is not io.BytesIO else io.BytesIO())


def test_a_torch_tensor_is_no_picture(upscaler: Upscaler) -> None:
    import torch

    with pytest.raises(
        UsageError, match=r"of type Tensor is no picture \(give a path, a Pillow image or a NumPy array"
    ):
        upscaler(torch.zeros(8, 8, 3))


@pytest.mark.parametrize("named", ["", "*.png", "a,b"])
def test_a_folder_or_several_pictures_are_refused_before_anything_is_written(
    upscaler: Upscaler, photo: Path, named: str
) -> None:
    folder = photo.parent
    (folder / "readme.txt").write_text("text")
    if named == "*.png":
        photo.with_name("other.png").write_bytes(photo.read_bytes())
    before = sorted(folder.iterdir())
    picture = folder / named
    if "," in named:  # a list of two files
        (folder / "list.txt").write_text(f"{photo}\n{photo.with_name('absent.png')}\n")
        before, picture = sorted(folder.iterdir()), f"@{folder / 'list.txt'}"
    with pytest.raises(UsageError, match=r"folder, or names several pictures or none \(give an Upscaler"):
        upscaler(picture)
    assert sorted(folder.iterdir()) == before


def test_a_picture_in_memory_has_no_output(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    for picture in (Image.open(photo), np.asarray(Image.open(photo))):
        with pytest.raises(UsageError, match=r"a picture in memory has no output \(save the picture that is returned"):
            upscaler(picture, tmp_path / "out.png")


def test_the_output_of_the_options_is_where_results_go(photo: Path, tmp_path: Path) -> None:
    options = replace(EMBEDDED, batch=BatchOptions(output=f"{tmp_path / 'large'}/"))
    upscaler = Upscaler(scale=2, options=options)
    assert upscaler(photo) == tmp_path / "large" / "photo_x2.png"
    assert upscaler(photo, tmp_path / "other.png") == tmp_path / "other.png"
    with pytest.raises(UsageError, match=r"shard is \(1, 2\), and an Upscaler takes one picture at a time \(leave the"):
        Upscaler(options=UpscaleOptions(batch=BatchOptions(shard=(1, 2))))


def test_a_failure_of_a_file_has_the_class_of_its_code(upscaler: Upscaler, photo: Path, monkeypatch) -> None:
    limited = Upscaler(options=replace(EMBEDDED, max_memory=1))
    blocked = photo.with_name("blocked")
    blocked.write_text("a file, not a folder")
    failures = [
        (ImageUnreadable, upscaler, photo.with_name("absent.png"), None),
        (ImageUnwritable, upscaler, photo, blocked / "a.png"),
        (OutOfMemory, limited, photo, None),
    ]
    for kind, each, picture, output in failures:
        with pytest.raises(DscloraError) as raised:
            each(picture, output)
        (result,) = upscale_files(picture, replace(each.options, batch=BatchOptions(output=output)))
        assert type(raised.value) is kind and raised.value.code == result.error.code

    def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("dsclora_cli.upscaling.pipeline.save_result", broken)
    with pytest.raises(Unforeseen, match="bug in dsclora: ZeroDivisionError") as raised:
        upscaler(photo, photo.with_name("new.png"))
    assert raised.value.code == "bug" and isinstance(raised.value.__cause__, ZeroDivisionError)


def test_every_code_of_a_result_has_its_class() -> None:
    for code in set(ErrorCode) - {ErrorCode.WORKER_LOST, ErrorCode.INTERRUPTED}:
        error = error_of(ErrorInfo(code, "what and where", "next step"))
        assert (error.code, str(error)) == (code, "what and where (next step)")


def test_a_file_of_weights_may_be_the_model(photo: Path, tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(find_weights(ModelOptions("dsclora-x4"), 4).path.read_bytes())
    array = np.asarray(Image.open(photo))
    expected = Upscaler(weights=weights, scale=2)(array)
    for model in (str(weights), weights):
        np.testing.assert_array_equal(Upscaler(model, scale=2)(array), expected)
    with pytest.raises(UsageError, match="both a model"):
        Upscaler("dsclora-x4", weights=weights)


def test_errors_and_warnings_name_options_as_python_does(photo: Path) -> None:
    limited = Upscaler(options=replace(EMBEDDED, max_memory=1))
    for picture in (photo, np.asarray(Image.open(photo))):
        with pytest.raises(OutOfMemory, match=r"more than options\.max_memory 1e-09GB \(raise options\.max_memory\)$"):
            limited(picture)
    with pytest.raises(UsageError, match=r"^scale 17 is not above 1"):
        Upscaler(scale=17)
    with pytest.raises(UsageError, match=r"given: options\.size\.width, options\.size\.long_edge"):
        Upscaler(options=UpscaleOptions(size=SizeOptions(width=9, long_edge=9)))


def test_two_threads_with_one_file_get_a_true_word(upscaler: Upscaler, photo: Path) -> None:
    claim = ResultClaim(photo.with_name("photo_x2.png"))
    with pytest.raises(ImageError, match="another process or thread is upscaling this picture; call"):
        upscaler(photo)
    claim.release()
    assert upscaler(photo) == photo.with_name("photo_x2.png")


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


FORK = """
import multiprocessing, warnings
import numpy as np
from dsclora_cli import DscloraError, Upscaler, UpscaleOptions
from dsclora_cli.config import EngineOptions, ModelOptions

upscaler = Upscaler(options=UpscaleOptions(ModelOptions(offline=True), engine=EngineOptions(engine="torch", threads=2)))
warnings.simplefilter("ignore")

def work(array):
    try:
        return upscaler(array).shape
    except DscloraError as error:
        return f"{error.code}: {error}"

work(np.zeros((60, 60, 3), np.uint8))
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map_async(work, [np.zeros((60, 60, 3), np.uint8)]).get(timeout=60)[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_threads_of_torch_in_a_forked_process_are_an_error_and_no_endless_wait() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage: PyTorch does not run in a process that was forked")
    assert 'get_context("spawn")' in done.stdout
