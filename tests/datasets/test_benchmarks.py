"""Benchmark sets: opened by name or from folders, LR read or made, and bad pictures reported at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from PIL import Image
from sets import circular_tiff, make_set, noise, png, save, tar_gz

from dsclora_cli.datasets.benchmarks import open_folder, open_set, read_rgb
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.resize import downscale


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    archive = tar_gz({f"Set5_HR/{name}.png": png(noise(seed)) for seed, name in enumerate(("ape", "bee"))})
    with HubServer("datasets/eugenesiow/Set5", {"data/Set5_HR.tar.gz": archive}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def refused(hr: Path, lr: Path | None = None, scale: int = 4) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_folder(hr, lr, scale)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_set_from_the_hub_gets_lr_at_any_scale(server: HubServer, scale: int) -> None:
    benchmark = open_set("set5", scale)
    assert (benchmark.name, benchmark.scale, [pair.name for pair in benchmark.pairs]) == ("Set5", scale, ["ape", "bee"])
    lr, hr = benchmark.load(benchmark.pairs[1])
    assert hr.shape == (22 // scale * scale, 29 // scale * scale, 3)
    np.testing.assert_array_equal(hr, noise(1)[: hr.shape[0], : hr.shape[1]])
    np.testing.assert_array_equal(lr, downscale(noise(1), scale))
    assert not any("LR" in request for request in server.requests)
    requests = len(server.requests)
    assert open_set("Set5", 2, offline=True).pairs == benchmark.pairs
    assert len(server.requests) == requests


def test_a_data_dir_comes_before_the_hub_and_gives_the_lr(server: HubServer, tmp_path: Path) -> None:
    make_set(tmp_path / "Set14", scale=2)
    Image.new("RGB", (14, 11), (1, 2, 3)).save(tmp_path / "Set14/LR_bicubic/X2/beex2.png")
    benchmark = open_set("set14", 2, tmp_path)
    assert [pair.lr.name for pair in benchmark.pairs if pair.lr] == ["apex2.png", "beex2.png", "cowx2.png"]
    lr, hr = benchmark.load(benchmark.pairs[1])
    assert (lr == (1, 2, 3)).all()
    assert (lr.shape, hr.shape) == ((11, 14, 3), (22, 28, 3))
    assert all(pair.lr is None for pair in open_set("Set14", 3, tmp_path).pairs)
    with pytest.raises(UsageError, match=r"there is no folder .*Set5"):
        open_set("Set5", 2, tmp_path)
    assert server.requests == []


@pytest.mark.parametrize(("name", "scale"), [("Set5", 3), ("Set14", 4)])
def test_made_lr_equals_the_official_lr(shared: Path, name: str, scale: int) -> None:
    given = open_set(name, scale, shared / "data/benchmarks")
    made = open_folder(shared / "data/benchmarks" / name / "HR", None, scale)
    for pair, without in zip(given.pairs, made.pairs, strict=True):
        assert pair.name == without.name and pair.lr is not None and without.lr is None
        for one, other in zip(given.load(pair), made.load(without), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_folder_is_a_set_with_the_name_of_the_folder(tmp_path: Path) -> None:
    make_set(tmp_path, scale=4)
    benchmark = open_folder(tmp_path / "HR", tmp_path / "LR_bicubic/X4", 4)
    assert benchmark.name == "HR"
    assert [pair.lr.name for pair in benchmark.pairs if pair.lr] == ["apex4.png", "beex4.png", "cowx4.png"]
    np.testing.assert_array_equal(benchmark.load(benchmark.pairs[0])[0], downscale(noise(0), 4))


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_gray_and_palette_pictures_become_rgb(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(noise()).convert(mode)
    picture.save(tmp_path / "a.png")
    rgb = read_rgb(tmp_path / "a.png")
    assert (rgb.shape, rgb.dtype, rgb.flags.c_contiguous) == ((22, 29, 3), np.uint8, True)
    np.testing.assert_array_equal(rgb, np.array(picture.convert("RGB")))


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (Image.new("RGBA", (8, 8)), "has an alpha channel"),
        (Image.new("LA", (8, 8)), "has an alpha channel"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), "has 16 bits per channel"),
    ],
)
def test_pictures_that_no_paper_scores_are_refused(picture: Image.Image, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture.save(path)
    assert refused(tmp_path).message == f"{path} {problem}, which no paper scores"


def test_pictures_with_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(noise(seed)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert "a.tif has 3 frames" in refused(tmp_path).message


def test_lr_of_another_size_and_too_small_hr_are_refused(tmp_path: Path) -> None:
    make_set(tmp_path, ["ape"], scale=4)
    lr = save(tmp_path / "LR_bicubic/X4/apex4.png", noise(0, (8, 6)))
    error = refused(tmp_path / "HR", lr.parent)
    assert error.message == f"{lr} has 8 x 6 pixels, but x4 of {tmp_path / 'HR' / 'ape.png'} needs 7 x 5"
    assert error.hint == "give the LR of x4, or none: LR is then made from the HR"
    save(tmp_path / "HR" / "ape.png", noise(0, (3, 22)))
    assert refused(tmp_path / "HR").message.endswith("ape.png has 3 x 22 pixels, too few for x4")


def test_a_file_that_is_no_picture_is_named_when_the_set_is_opened(tmp_path: Path) -> None:
    make_set(tmp_path)
    (tmp_path / "HR" / "bee.png").write_bytes(b"not a picture")
    assert refused(tmp_path / "HR").message.startswith(f"{tmp_path / 'HR' / 'bee.png'}: ")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_truncated_picture_is_named_when_the_pair_is_loaded(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a.{suffix}", noise(0, (200, 100)))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: .*(truncated|damaged)") as caught:
        (benchmark := open_folder(tmp_path, None, 4)).load(benchmark.pairs[0])
    assert caught.value.hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a thing of Unix")
@pytest.mark.parametrize("kind", ["pipe", "broken link"])
def test_what_is_no_regular_file_ends_a_set_by_name_and_never_hangs(tmp_path: Path, kind: str) -> None:
    make_set(tmp_path)
    path = tmp_path / "HR" / "zoo.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere.png")
    with pytest.raises(ImageError, match=r"zoo.png: (is no regular file|No such file)"):
        open_folder(tmp_path / "HR", None, 2)
    with pytest.raises(ImageError, match=r"zoo.png: (is no regular file|No such file)"):
        read_rgb(path)


def test_a_tiff_whose_page_follows_itself_ends_a_set_by_name(tmp_path: Path) -> None:
    make_set(tmp_path)
    circular_tiff(tmp_path / "HR" / "zoo.tif")
    with pytest.raises(ImageError, match=r"zoo.tif: "):
        open_folder(tmp_path / "HR", None, 2)
