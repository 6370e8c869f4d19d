"""Candidates: order, names, keys and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import CPU, PHOTO, options, save_network_file
from PIL import Image

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.errors import OutOfMemory, UsageError, WeightsError
from dsclora_cli.evaluation.candidates import open_candidates
from dsclora_cli.evaluation.score_cache import pixel_key
from dsclora_cli.imaging.resize import matlab_bicubic
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.models.lora import Adapters, Rank
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import load_network

HR = Path("unused")


@pytest.fixture(scope="module")
def lr() -> np.ndarray:
    return np.array(Image.open(PHOTO).convert("RGB"))[40:60, 100:124]


def test_the_first_candidate_is_matlab_bicubic(lr: np.ndarray) -> None:
    baseline, _ = open_candidates(options(HR))
    np.testing.assert_array_equal(baseline.upscale(lr), matlab_bicubic(lr, 80, 96))
    assert baseline.info.name == "bicubic" and baseline.info.weights_sha256 is None


def test_models_keep_their_order_each_followed_by_its_ensemble(tmp_path: Path) -> None:
    mine = save_network_file(tmp_path / "mine.safetensors")
    asked = EvalOptions(
        models=(ModelOptions(weights=mine), ModelOptions("dsclora-x4")), engine=replace(CPU, ensemble=True)
    )
    rows = open_candidates(asked)
    names = [row.info.name for row in rows]
    assert names == ["bicubic", "mine", "mine + ensemble", "dsclora-x4", "dsclora-x4 + ensemble"]
    assert [row.entry.name if row.entry else None for row in rows] == [None, None, None, "dsclora-x4", None]
    assert len({pixel_key(row.info, "lr", 4) for row in rows}) == 5


def test_the_ensemble_differs_from_the_model(lr: np.ndarray) -> None:
    asked = options(HR, engine=replace(EvalOptions().engine, device="cpu", ensemble=True))
    _, model, ensemble = open_candidates(asked)
    plain, mean = model.upscale(lr), ensemble.upscale(lr)
    assert plain.shape == mean.shape == (80, 96, 3) and plain.dtype == mean.dtype == np.uint8
    assert 0 < np.abs(plain.astype(int) - mean).max() < 40
    assert (model.info.device, model.info.dtype) == ("cpu", "float32")


def test_without_a_model_auto_chooses_and_adds_a_note() -> None:
    _, model = open_candidates(EvalOptions(hr=HR, engine=CPU, offline=True))
    assert model.info.name == "dsclora-x4"
    assert model.info.notes == ("dscf-x4 could not be fetched (offline): using the embedded dsclora-x4",)


def test_files_of_one_name_are_rows_with_paths(tmp_path: Path) -> None:
    files = []
    for seed, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        files.append(save_network_file(tmp_path / folder / "bicubic.safetensors", seed))
    assert [row.info.name for row in open_candidates(options(HR, *files))] == ["bicubic", *map(str, files)]


def test_every_model_has_a_row_of_its_own(tmp_path: Path) -> None:
    base = save_network_file(tmp_path / "base.safetensors")
    adapted = []
    for seed in (1, 2, 3):
        (tmp_path / str(seed)).mkdir()
        adapters = Adapters(load_network(base), {"upsampler.0": Rank(1, 1.0)})
        torch.nn.init.constant_(adapters.get_parameter("upsampler.0.B"), seed)
        save_adapters(adapters, tmp_path / str(seed) / "adapter.safetensors", sha256_of(base), "")
        adapted.append(ModelOptions(weights=base, adapter=tmp_path / str(seed) / "adapter.safetensors"))
    sharp = [save_network_file(tmp_path / f"sharp{seed}.safetensors", seed) for seed in (1, 2, 3)]
    mixed = [ModelOptions(weights=base, sharp=0.5, sharp_weights=file) for file in sharp]
    named = [f"{base}-sharp0.5", f"{base}-sharp0.5 (2)", f"{base}-sharp0.5 (3)"]
    rows = open_candidates(replace(options(HR), models=(*adapted, *mixed)))
    assert [row.info.name for row in rows[1:]] == [*(str(each.adapter) for each in adapted), *named]


def test_an_ensemble_and_a_file_of_its_name_are_two_rows(tmp_path: Path) -> None:
    files = [
        save_network_file(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(["a + ensemble", "a"])
    ]
    rows = open_candidates(options(HR, *files, engine=replace(CPU, ensemble=True)))
    own = ["a + ensemble", "a + ensemble + ensemble", "a", "a + ensemble (2)"]
    assert [row.info.name for row in rows[1:]] == own


def test_the_same_weights_twice_are_refused(tmp_path: Path) -> None:
    first = save_network_file(tmp_path / "a.safetensors")
    second = save_network_file(tmp_path / "b.safetensors")
    with pytest.raises(UsageError, match=r"b.safetensors and a are the same weights \(give them once\)"):
        open_candidates(options(HR, first, second))


def test_weights_of_another_scale_are_refused(tmp_path: Path) -> None:
    file = save_network_file(tmp_path / "x4.safetensors")
    with pytest.raises(UsageError, match=r"x4.safetensors upscales by 4, not by 3 \(use -s 4, or other weights\)"):
        open_candidates(options(HR, file, scale=3))
    with pytest.raises(UsageError, match="dsclora-x4 upscales by 4, not by 2"):
        open_candidates(options(HR, scale=2))


def test_missing_weights_and_dtypes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        open_candidates(options(HR, tmp_path / "absent.pth"))
    with pytest.raises(UsageError, match="float16 is not offered on cpu"):
        open_candidates(options(HR, engine=EngineOptions(device="cpu", dtype="float16")))


def test_an_error_for_a_large_tile_names_a_tile_that_fits(lr: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(engine: TorchCpuEngine, tile: np.ndarray) -> np.ndarray:
        raise OutOfMemory("no room")

    _, model = open_candidates(options(HR, engine=replace(CPU, tile=16, engine="torch")))
    monkeypatch.setattr(TorchCpuEngine, "__call__", no_room)
    with pytest.raises(OutOfMemory, match=r"no room \(--tile \d+ would fit, or leave --tile out\)"):
        model.upscale(lr)
