"""Weight files of all known origins load strictly; every other file is one clear error."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import refused, small
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsclora_cli.errors import OutputUnwritable
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.checkpoint import describe_file, load_network, save_network

SMALL = SpanConfig(channels=4, blocks=2, scale=2)
State = dict[str, Tensor]


def answer(network: SPAN) -> Tensor:
    x = torch.linspace(0, 1, 3 * 7 * 6).view(1, 3, 7, 6)
    with torch.inference_mode():
        return network(x)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.pth"


@pytest.mark.parametrize("name", ["baboon_16x16", "zebra_64x64"])
def test_the_released_student_has_the_outputs_of_the_original(shared: Path, name: str) -> None:
    golden = np.load(shared / f"golden/{name}.npz")
    network = load_network(shared / "weights/team23_DSCF.pth")
    with torch.inference_mode():
        sr = network(torch.from_numpy(golden["lr"]).permute(2, 0, 1)[None].float() / 255)
    assert np.abs(sr[0].permute(1, 2, 0).numpy() - golden["sr"]).max() < 2e-5


@pytest.mark.parametrize(
    ("name", "channels"), [("team23_DSCF", 26), ("team39_spantiny_ch26_slim", 26), ("team00_SPAN", 28)]
)
def test_released_files_load(shared: Path, name: str, channels: int) -> None:
    network = load_network(shared / f"weights/{name}.pth")
    assert network.config == SpanConfig(channels=channels, blocks=6, scale=4)
    assert not network.training
    assert describe_file(shared / f"weights/{name}.pth") == network.config.descriptor


@pytest.mark.parametrize("changes", [{}, {"channels": 7, "blocks": 1, "scale": 3}, {"scale": 4, "norm": False}])
def test_saved_networks_load_with_equal_outputs(changes: dict[str, object], tmp_path: Path) -> None:
    network, path = small(**changes), tmp_path / "net.safetensors"
    save_network(network, path, training="on nothing")
    loaded = load_network(path)
    assert loaded.config == network.config
    assert torch.equal(answer(loaded), answer(network))


def test_equal_networks_give_equal_bytes_and_no_partial_file_stays(tmp_path: Path) -> None:
    digests = set()
    for i in range(4):
        save_network(small(), tmp_path / f"{i}.safetensors", training='{"steps": 3}')
        digests.add(hashlib.sha256((tmp_path / f"{i}.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1
    assert len(list(tmp_path.iterdir())) == 4
    assert load_file(tmp_path / "0.safetensors").keys() == small().state_dict().keys()


def test_a_failed_save_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(OutputUnwritable, match="cannot be written"):
        save_network(small(), tmp_path / "net.safetensors", training="")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def prefixed(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        prefixed,
        lambda s: {"params": s},
        lambda s: {"params": {name: tensor + 1 for name, tensor in s.items()}, "params_ema": s},
        lambda s: {"state_dict": prefixed(s), "epoch": 3},
        lambda s: {"state_dict": {"params_ema": s}},
    ],
    ids=["bare", "module", "params", "ema first", "state_dict and module", "nested"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_files_in_wrappers_of_training_programs_load(wrap, zipped: bool, file: Path) -> None:  # type: ignore[no-untyped-def]
    network = small()
    torch.save(wrap(network.state_dict()), file, _use_new_zipfile_serialization=zipped)
    assert torch.equal(answer(load_network(file)), answer(network))


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net", "net.onnx"])
def test_the_content_decides_and_not_the_suffix(name: str, tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / name)
    assert load_network(tmp_path / name).config == SMALL
    save_file(small().state_dict(), tmp_path / name)
    assert load_network(tmp_path / name).config == SMALL


@pytest.mark.parametrize("norm", [True, False])
def test_the_training_form_is_merged_and_its_stale_merged_weights_are_ignored(norm: bool, file: Path) -> None:
    network = small(expanded=True, norm=norm)
    stale = {name: torch.full((1,), torch.nan) for name in small().state_dict() if ".eval_conv." in name}
    assert len(stale) == 16
    marker = {} if norm else {"no_norm": torch.zeros(1)}
    torch.save({"params_ema": {**network.state_dict(), **stale, **marker}}, file)
    loaded = load_network(file)
    assert loaded.config == SpanConfig(4, 2, 2, norm=norm)
    torch.testing.assert_close(answer(loaded), answer(network), rtol=1e-4, atol=1e-5)
    assert describe_file(file) == SMALL.descriptor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load_in_float32(dtype: torch.dtype, file: Path) -> None:
    network = small().to(dtype)
    torch.save(network.state_dict(), file)
    loaded = load_network(file)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.conv_cat.weight, network.conv_cat.weight.float())


def changed(**changes: Tensor | None) -> State:
    state = {**small().state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(conv_2__eval_conv__bias=None), "lacks conv_2.eval_conv.bias"),
        (changed(conv_cat__weight=None), "unsupported model file {file}: found keys block_1"),
        (changed(extra=torch.zeros(1)), "has unexpected extra"),
        (changed(conv_2__eval_conv__bias=torch.zeros(5)), "conv_2.eval_conv.bias has shape (5,), not (4,)"),
        (changed(conv_2__eval_conv__bias=torch.full((4,), torch.nan)), "conv_2.eval_conv.bias holds NaN or infinity"),
        (changed(conv_2__eval_conv__bias=torch.full((4,), 1e300, dtype=torch.float64)), "holds NaN or infinity"),
        (changed(conv_2__eval_conv__bias=torch.zeros(4, dtype=torch.int64)), "does not hold floating-point values"),
        (changed(conv_2__eval_conv__bias=torch.zeros(4).to_sparse()), "which is not a tensor"),
        (changed(block_9999__x=torch.zeros(1)), ": channels 4, blocks 9999"),
        (changed(block_4__x=torch.zeros(1)), "lacks block_3"),
        (changed(upsampler__0__weight=torch.zeros(3 * 17**2, 4, 3, 3)), ": channels 4, blocks 2, scale 17"),
        (changed(upsampler__0__weight=torch.zeros(13, 4, 3, 3)), "layers do not fit together"),
        (changed(conv_cat__weight=torch.zeros(1).expand(100_000, 16, 1, 1)), "channels 100000"),
        ({}, "holds no tensors by name"),
        ([torch.zeros(3)], "holds no tensors by name"),
        ({"epoch": 3}, "holds no tensors by name"),
        ({"conv.weight": torch.zeros(3)}, "unsupported model file {file}: found keys conv.weight"),
    ],
)
def test_anything_but_exactly_one_network_is_refused(state: object, message: str, file: Path) -> None:
    torch.save(state, file)
    assert message.format(file=file) in refused(file)


def test_metadata_that_the_tensors_contradict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(small().state_dict(), path, metadata={"scale": "4"})
    assert "states scale '4', but its tensors have 2" in refused(path)
