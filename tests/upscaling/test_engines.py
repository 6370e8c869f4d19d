"""The choice of an engine, and the cache of converted networks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small
from PIL import Image
from small_networks import made

from dsclora_cli.config import EngineOptions, ModelOptions, UpscaleOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.inference import openvino as openvino_engine
from dsclora_cli.inference.native import library
from dsclora_cli.inference.tiling import LARGEST_AUTO_TILE, SMALLEST_TILE
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.paths import cache_dir
from dsclora_cli.upscaling import engines
from dsclora_cli.upscaling.engines import choose_device, load_engine
from dsclora_cli.upscaling.upscaler import Upscaler
from dsclora_cli.weights.checkpoint import save_network
from dsclora_cli.weights.resolve import FoundWeights, find_weights, open_network

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photo.png"
CPU = EngineOptions(device="cpu")
ON_CPU = UpscaleOptions(model=ModelOptions(model="dsclora-x4"), engine=CPU)


@pytest.fixture(scope="module")
def weights() -> FoundWeights:
    return find_weights(ModelOptions(model="dsclora-x4"), 4)


@pytest.fixture(scope="module")
def converted(weights: FoundWeights) -> openvino_engine.Converted:
    pytest.importorskip("openvino")
    network = open_network(weights)
    return openvino_engine.convert_network(network, network.config.descriptor)


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without a C++ compiler."""
    monkeypatch.setattr(engines, "why_unavailable", lambda: "not built")


@pytest.fixture
def quick(
    openvino: None, without_native: None, converted: openvino_engine.Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Converting takes seconds: for tests of what becomes of it, it has been done."""
    monkeypatch.setattr(openvino_engine, "convert_network", lambda network, descriptor: converted)


def converted_files() -> list[Path]:
    return sorted((cache_dir() / "engines").glob("*"))


def test_the_native_engine_is_used_on_cpus_before_all_others(
    native: None, openvino: None, weights: FoundWeights
) -> None:
    for device in ("auto", "cpu"):
        options = EngineOptions(device=device)
        assert load_engine(weights, choose_device(options), options).name == "native"
    assert load_engine(weights, "cpu", replace(CPU, dtype="float32", ensemble=True)).name == "native"
    assert load_engine(weights, "cpu", replace(CPU, engine="openvino")).name == "openvino"
    assert load_engine(weights, "cpu", replace(CPU, engine="torch")).name == "torch"


def test_other_networks_and_other_cpus_are_left_to_other_engines(
    native: None, weights: FoundWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(made("edsr"), tmp_path / "edsr.safetensors", "none")
    edsr = find_weights(ModelOptions(weights=tmp_path / "edsr.safetensors"), None)
    assert load_engine(edsr, choose_device(CPU), CPU).name == "torch"
    # The portable path was measured nowhere: `auto` does not take the path, and a user may.
    monkeypatch.setenv(library.CPU_VARIABLE, "portable")
    assert load_engine(weights, "cpu", CPU).name == "torch"
    assert load_engine(weights, "cpu", replace(CPU, engine="native")).name == "native"


def test_torch_is_used_without_openvino(without_native: None, weights: FoundWeights) -> None:
    assert load_engine(weights, choose_device(CPU), CPU).name == "torch"
    with pytest.raises(UsageError, match=r"OpenVINO is not installed .*dsclora\[cpu\]"):
        choose_device(replace(CPU, engine="openvino"))
    assert converted_files() == []


def test_the_native_engine_runs_where_chosen(native: None, weights: FoundWeights) -> None:
    options = replace(CPU, engine="native")
    assert choose_device(options) == choose_device(replace(options, device="auto")) == "cpu"
    assert load_engine(weights, "cpu", options).name == "native"
    assert load_engine(weights, "cpu", replace(options, ensemble=True)).name == "native"
    # The file is read as it is, so nothing is kept.
    assert converted_files() == []


def test_weights_of_other_forms_are_kept_for_the_native_engine(native: None, tmp_path: Path) -> None:
    path, network = tmp_path / "span.pth", small(norm=False)
    torch.save(network.state_dict() | {"no_norm": torch.zeros(1)}, path)
    weights, options = find_weights(ModelOptions(weights=path), None), replace(CPU, engine="native")
    tile = np.random.default_rng(0).random((9, 11, 3), np.float32)
    first = load_engine(weights, "cpu", options)(tile)
    assert [file.suffix for file in converted_files()] == [".npz"]
    path.write_bytes(b"read no more")
    np.testing.assert_array_equal(load_engine(weights, "cpu", options)(tile), first)
    expected = TorchCpuEngine(network, network.config.descriptor, torch.float32)(tile)
    np.testing.assert_allclose(first, expected, rtol=0, atol=1e-5)


def test_the_native_engine_refuses_other_networks(native: None, tmp_path: Path) -> None:
    path = tmp_path / "edsr.safetensors"
    save_network(made("edsr"), path, "none")
    with pytest.raises(UsageError, match="runs SPAN networks, and edsr is of the architecture edsr"):
        load_engine(find_weights(ModelOptions(weights=path), None), "cpu", replace(CPU, engine="native"))


def test_a_missing_native_library_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "libdsclora_native.so")
    with pytest.raises(UsageError, match=r"the native engine is not available: .* was not built.*install g\+\+"):
        choose_device(replace(CPU, engine="native"))
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "other.so")
    library.LIBRARY.write_bytes(b"not a library")
    with pytest.raises(UsageError, match=r"other\.so cannot be loaded"):
        choose_device(replace(CPU, engine="native"))


def test_the_automatic_tile_uses_half_of_the_free_memory(
    weights: FoundWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(weights, "cpu", replace(CPU, engine="torch"))
    sizes = []
    for free in (2**20, 2**28, 2**30, 2**36):
        monkeypatch.setattr(engines, "host_memory", lambda free=free: free)
        sizes.append(engines.auto_edge(engine))
    assert sizes == sorted(sizes) and sizes[0] == SMALLEST_TILE and sizes[-1] == LARGEST_AUTO_TILE
    assert all(size % 2 == 0 for size in sizes)
    descriptor = engine.descriptor
    edge = sizes[1] + 2 * descriptor.halo
    assert edge**2 * descriptor.floats_per_pixel * 4 <= 2**28 / 2


def test_openvino_is_used_on_cpus_unless_torch_is_chosen(quick: None, weights: FoundWeights) -> None:
    assert load_engine(weights, "cpu", CPU).name == "openvino"
    assert load_engine(weights, "cpu", replace(CPU, ensemble=True)).name == "openvino"
    assert load_engine(weights, "cpu", replace(CPU, engine="torch")).name == "torch"
    assert len(converted_files()) == 1


@pytest.mark.parametrize(("field", "value"), [("device", "cuda"), ("device", "mps"), ("dtype", "float16")])
def test_options_that_openvino_does_not_support_are_refused(openvino: None, field: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"OpenVINO runs .*{value}"):
        choose_device(replace(EngineOptions(engine="openvino"), **{field: value}))


@pytest.mark.parametrize(("field", "value"), [("device", "cuda"), ("device", "mps"), ("dtype", "float16")])
def test_options_that_the_native_engine_does_not_support_are_refused(native: None, field: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"the native engine runs .*{value}"):
        choose_device(replace(EngineOptions(engine="native"), **{field: value}))


def test_a_gpu_is_preferred_to_openvino(openvino: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "may_have_gpu", lambda: True)
    monkeypatch.setattr("dsclora_cli.inference.device.resolve_device", lambda name: f"{name} as torch has it")
    assert choose_device(EngineOptions()) == "auto as torch has it"
    assert choose_device(CPU) == "cpu"


def test_channels_are_padded_where_the_device_wants_them(
    weights: FoundWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = np.random.default_rng(0).random((16, 18, 3), np.float32)
    plain = load_engine(weights, "cpu", replace(CPU, engine="torch"))
    monkeypatch.setattr("dsclora_cli.inference.device.channel_multiple", lambda device, dtype: 8)
    padded = load_engine(weights, "cpu", replace(CPU, engine="torch"))
    np.testing.assert_allclose(padded(tile), plain(tile), atol=1e-5)
    assert padded.descriptor.floats_per_pixel > plain.descriptor.floats_per_pixel


def test_device_lists_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines.list_devices(EngineOptions()) == ("auto",)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engines.list_devices(EngineOptions(device="all")) == ("auto",)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for names in ("all", "cuda:0,cuda:1", "cuda, cuda:1"):
        assert engines.list_devices(EngineOptions(device=names)) == ("cuda:0", "cuda:1")
    with pytest.raises(UsageError, match="names a device twice"):
        engines.list_devices(EngineOptions(device="cuda,cuda:0"))
    with pytest.raises(UsageError, match="no device cuda:2"):
        engines.list_devices(EngineOptions(device="cuda:1,cuda:2"))


def test_both_engines_give_the_same_picture(quick: None) -> None:
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))[:90, :100]
    options = [replace(ON_CPU, engine=replace(CPU, engine=name, tile=64)) for name in ("openvino", "torch")]
    by_openvino, by_torch = (Upscaler(options=each)(photo).astype(int) for each in options)
    assert np.abs(by_openvino - by_torch).max() <= 1
    assert (by_openvino != by_torch).mean() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"half of an archive"])
def test_a_broken_cache_file_is_replaced(quick: None, weights: FoundWeights, data: bytes) -> None:
    load_engine(weights, "cpu", CPU)
    (file,) = converted_files()
    file.write_bytes(data)
    assert load_engine(weights, "cpu", CPU).name == "openvino"
    assert openvino_engine.load_converted(file) is not None


def test_a_cache_file_of_another_version_is_ignored(
    quick: None, weights: FoundWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_engine(weights, "cpu", CPU)
    monkeypatch.setattr("importlib.metadata.version", lambda package: "2031.1")
    load_engine(weights, "cpu", CPU)
    assert len(converted_files()) == 2


def test_a_network_that_openvino_cannot_convert_runs_on_torch(
    openvino: None, without_native: None, weights: FoundWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no conversion rule")

    monkeypatch.setattr(openvino_engine, "convert_network", refuse)
    assert load_engine(weights, "cpu", CPU).name == "torch"
    with pytest.raises(UsageError, match="OpenVINO cannot convert dsclora-x4"):
        load_engine(weights, "cpu", replace(CPU, engine="openvino"))


def test_a_cache_that_cannot_be_written_is_no_error(
    quick: None, weights: FoundWeights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSCLORA_CACHE_DIR", str(tmp_path / "file"))
    assert load_engine(weights, "cpu", CPU).name == "openvino"


def test_the_native_engine_runs_without_torch(native: None, tmp_path: Path) -> None:
    command = ["upscale", str(PHOTO), "-o", str(tmp_path / "large.png"), "-m", "dsclora-x4", "--engine", "native", "-v"]
    script = (
        "import sys; from pathlib import Path; from dsclora_cli.inference.native import library; "
        f"library.LIBRARY = Path({str(library.LIBRARY)!r}); "
        "from dsclora_cli.cli.app import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True)
    assert "by native" in ran.stderr, ran.stderr
    assert "'torch'" not in ran.stdout and "'openvino'" not in ran.stdout


@pytest.mark.slow
def test_a_converted_network_runs_without_torch(openvino: None, tmp_path: Path) -> None:
    command = ["upscale", str(PHOTO), "-o", str(tmp_path / "large.png"), "-m", "dsclora-x4", "--overwrite", "-v"]
    command += ["--engine", "openvino"]
    script = "import sys; from dsclora_cli.cli.app import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    for torch_is_here in (True, False):
        ran = subprocess.run(
            [sys.executable, "-c", script, *command, "--device", "cpu"], check=True, capture_output=True, text=True
        )
        assert "by openvino" in ran.stderr, ran.stderr
        assert ("'torch'" in ran.stdout) is torch_is_here
