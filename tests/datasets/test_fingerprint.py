"""Fingerprints of original sets, and warnings about copies with known faults."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sets import make_set, noise, save

from dsclora_cli.datasets.benchmarks import BenchmarkSet, open_folder, open_set, read_rgb
from dsclora_cli.datasets.fingerprint import FINGERPRINTS, fingerprint, identify, looks_enlarged, picture_digest
from dsclora_cli.imaging.resize import downscale, matlab_bicubic

ENLARGE = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR, "lanczos": Image.LANCZOS}


def enlarged(hr: NDArray[np.uint8], scale: int, kernel: str) -> NDArray[np.uint8]:
    lr = downscale(hr, scale)
    size = (lr.shape[1] * scale, lr.shape[0] * scale)
    return np.array(Image.fromarray(lr).resize(size, ENLARGE[kernel]))


def urban(folder: Path, pictures: list[NDArray[np.uint8]]) -> BenchmarkSet:
    for number, picture in enumerate(pictures):
        save(folder / "Urban100/HR" / f"img_{number:03}.bmp", picture)
    return open_set("Urban100", 4, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("Set5", 5), ("Set14", 14), ("BSD100", 100)])
def test_original_copies_are_verified(shared: Path, name: str, count: int) -> None:
    benchmark = open_set(name, 4, shared / "data/benchmarks")
    assert len(benchmark.pairs) == count
    identity = identify(benchmark)
    assert (identity.fingerprint, identity.verdict, identity.warning) == (FINGERPRINTS[name], "verified", None)


def test_pixels_decide_and_not_names_formats_or_order(shared: Path, tmp_path: Path) -> None:
    benchmark = open_set("Set5", 4, shared / "data/benchmarks")
    pictures = [read_rgb(pair.hr) for pair in benchmark.pairs]
    for number, picture in enumerate(reversed(pictures)):
        save(tmp_path / "Set5/HR" / f"{number}.bmp", picture)
    assert identify(open_set("Set5", 4, tmp_path)).verdict == "verified"
    pictures[0][0, 0, 0] ^= 1
    save(tmp_path / "Set5/HR" / "4.bmp", pictures[0])
    changed = identify(open_set("Set5", 4, tmp_path))
    assert (changed.verdict, changed.warning) == ("unknown copy", None)


def test_the_fingerprint_follows_the_definition_in_the_docs() -> None:
    picture = noise(0, (3, 2))
    one = hashlib.sha256(b"3x2:" + picture.tobytes()).hexdigest()
    assert picture_digest(picture) == one
    assert picture_digest(picture[:, ::-1]) == hashlib.sha256(b"3x2:" + picture[:, ::-1].tobytes()).hexdigest()
    assert fingerprint(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest()


def test_cropped_copies_and_own_sets_are_unknown_without_a_warning(tmp_path: Path) -> None:
    make_set(tmp_path / "Set5")
    for benchmark in (open_set("Set5", 4, tmp_path), open_folder(tmp_path / "Set5/HR", None, 4)):
        identity = identify(benchmark)
        assert (identity.verdict, identity.warning) == ("unknown copy", None)
        assert len(identity.fingerprint) == 64


def test_an_urban100_of_half_size_has_a_warning(tmp_path: Path) -> None:
    identity = identify(urban(tmp_path, [noise(0, (512, 340)), noise(1, (384, 512))]))
    assert identity.verdict == "unknown copy"
    assert (identity.warning or "").endswith("have half the true size: their median long edge is 512 pixels")
    assert identify(urban(tmp_path, [noise(0, (1024, 680)), noise(1, (768, 1024))])).warning is None


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kernel", ENLARGE)
def test_an_urban100_of_enlarged_lr_has_a_warning(shared: Path, tmp_path: Path, scale: int, kernel: str) -> None:
    files = sorted((shared / "data/benchmarks/Set14/HR").glob("[bcfl]*.png"))
    copy = urban(tmp_path, [enlarged(read_rgb(file), scale, kernel) for file in files])
    assert "HR pictures look like enlarged LR: scores on them are far too high" in (identify(copy).warning or "")


@pytest.mark.slow
def test_bicubic_enlargement_is_noticed_and_no_original_is(shared: Path) -> None:
    benchmarks = shared / "data/benchmarks"
    noticed = []
    for path in [*(benchmarks / "Set5/HR").iterdir(), *(benchmarks / "Set14/HR").iterdir()]:
        hr = read_rgb(path)
        assert not looks_enlarged(hr), path
        noticed.append(looks_enlarged(matlab_bicubic(downscale(hr, 4), *hr.shape[:2])))
    assert sum(noticed) >= len(noticed) - 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 5, 3), (16, 700, 3)])
def test_tiny_and_flat_pictures_do_not_look_enlarged(shape: tuple[int, int, int]) -> None:
    assert not looks_enlarged(np.full(shape, 128, np.uint8))
