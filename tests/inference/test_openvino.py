"""The OpenVINO engine: the same results as PyTorch, and converted files that are read only if undamaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from small_networks import NETWORKS, made

from dsclora_cli.errors import DscloraError, OutOfMemory
from dsclora_cli.inference import openvino
from dsclora_cli.inference.engine import UnitPixels
from dsclora_cli.inference.openvino import Converted, OpenvinoEngine, convert_network, load_converted, save_converted
from dsclora_cli.inference.torch_cpu import TorchCpuEngine

pytestmark = pytest.mark.usefixtures("openvino")


def tile(height: int, width: int, seed: int = 0) -> UnitPixels:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


@pytest.fixture(scope="module")
def small() -> Converted:
    pytest.importorskip("openvino")
    network = made("span without norm")
    return convert_network(network, network.config.descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_results_equal_those_of_torch_for_any_shape(name: str) -> None:
    network = made(name)
    descriptor = network.config.descriptor
    engine = OpenvinoEngine(convert_network(network, descriptor), threads=1)
    reference = TorchCpuEngine(network, descriptor, torch.float32)
    for seed, (height, width) in enumerate([(30, 41), (30, 41), (7, 5), (7, 5), (1, 1), (24, 24), (30, 41), (24, 24)]):
        given = tile(height, width, seed)
        answer, expected = engine(given), reference(given)
        assert answer.shape == (height * descriptor.scale, width * descriptor.scale, 3)
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
    assert (engine.name, engine.device, engine.dtype, engine.fp16_fallbacks) == ("openvino", "cpu", "float32", 0)


def test_large_and_repeated_shapes_get_plans_and_few_plans_are_kept(
    small: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "_KEPT", 250)
    monkeypatch.setattr(openvino, "_LARGE", 160)
    engine = OpenvinoEngine(small)
    for height in (10, 12, 14):
        engine(tile(height, 8))
    assert list(engine._planned) == [(10, 8)]
    for height in (12, 14):
        engine(tile(height, 8))
    assert list(engine._planned) == [(12, 8), (14, 8)]
    engine(tile(20, 8))
    assert list(engine._planned) == [(20, 8)]
    engine(tile(40, 8))
    assert list(engine._planned) == [(40, 8)]


@pytest.mark.slow
def test_shapes_without_end_take_few_plans_and_threads(small: Converted) -> None:
    engine = OpenvinoEngine(small, threads=1)
    engine(tile(8, 8))
    process = psutil.Process()
    before = process.num_threads()
    for height in (*range(9, 40), *range(9, 40)):
        engine(tile(height, 8))
    assert len(engine._planned) == 1
    for height in range(9, 25):
        engine(tile(height, 9))
        engine(tile(height, 9))
    assert len(engine._planned) == 8
    assert process.num_threads() - before <= 2 * (8 + 2)  # and some that wait


def test_a_converted_network_survives_saving_and_loading(small: Converted, tmp_path: Path) -> None:
    path = tmp_path / "engines" / "network.zip"
    save_converted(small, path)
    assert load_converted(path) == small
    assert [file.name for file in path.parent.iterdir()] == ["network.zip"]


@pytest.mark.parametrize("damage", ["absent", "cut", "flipped", "other fields", "no archive", "packed otherwise"])
def test_a_damaged_or_missing_file_loads_as_none(
    damage: str, small: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "network.zip"
    if damage == "other fields":
        monkeypatch.setattr(openvino, "asdict", lambda descriptor: {"arch": "span", "colour": "blue"})
    save_converted(small, path)
    data = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "no archive":
        path.write_bytes(b"something else")
    elif damage == "packed otherwise":  # the number of the method in the directory of the archive
        at = data.rindex(b"PK\x01\x02")
        data[at + 10] = 99
        path.write_bytes(data)
    assert load_converted(path) is None


def test_other_weights_and_versions_have_other_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [openvino.converted_name(sha256) for sha256 in ("aa", "ab", "aa/bb")]
    monkeypatch.setattr("importlib.metadata.version", lambda package: "2031.1")
    names.append(openvino.converted_name("aa"))
    assert len(set(names)) == 4 and not [name for name in names if "/" in name]


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def infer(self, *arguments: object, **settings: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not allocate 8 GB"),
        RuntimeError("bad_alloc"),
        RuntimeError("core.cpp:117:\nResource temporarily unavailable"),
    ],
)
def test_failed_allocations_are_out_of_memory(
    error: Exception, small: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenvinoEngine, "_compiled", lambda self, shape: Failing(error))
    with pytest.raises(OutOfMemory, match="a tile of 9x8"):
        OpenvinoEngine(small)(tile(8, 9))


def test_an_answer_without_arrays_is_an_empty_picture(small: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = SimpleNamespace(infer=lambda *arguments, **settings: {})
    monkeypatch.setattr(OpenvinoEngine, "_compiled", lambda self, shape: empty)
    assert OpenvinoEngine(small)(tile(8, 9)).shape == (0, 0, 3)


def test_other_errors_are_raised_unchanged(small: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenvinoEngine, "_compiled", lambda self, shape: Failing(RuntimeError("no such layer")))
    with pytest.raises(RuntimeError, match="no such layer"):
        OpenvinoEngine(small)(tile(8, 9))


def test_a_result_that_is_not_finite_is_an_error(small: Converted) -> None:
    given = tile(8, 9)
    given[0, 0, 0] = np.nan
    with pytest.raises(DscloraError, match="NaN or infinity"):
        OpenvinoEngine(small)(given)
