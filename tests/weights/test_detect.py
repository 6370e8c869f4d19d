"""Files of EDSR and RCAN: the tensors decide the architecture and the sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import refused
from safetensors.torch import load_file, save_file

from dsclora_cli.models.compact import Compact, CompactConfig
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.weights.checkpoint import describe_file, load_network, save_network

SHAPES = [
    EdsrConfig(6, 3, 2),
    EdsrConfig(5, 1, 3),
    EdsrConfig(4, 12, 8),
    RcanConfig(8, 2, 4, groups=3, attention=2),
    RcanConfig(4, 1, 3, groups=11, attention=4),
    RcanConfig(40, 1, 2, groups=1, attention=2),
]


def network_of(config: EdsrConfig | RcanConfig) -> Network:
    torch.manual_seed(0)
    return (EDSR(config) if isinstance(config, EdsrConfig) else RCAN(config)).eval()


def same(first: Network, second: Network) -> bool:
    x = torch.rand(1, 3, 6, 5)
    with torch.inference_mode():
        return torch.equal(first(x), second(x))


@pytest.mark.parametrize("config", SHAPES)
def test_official_files_load(config: EdsrConfig | RcanConfig, tmp_path: Path) -> None:
    network, path = network_of(config), tmp_path / "net.pt"
    torch.save(network.state_dict(), path)
    loaded = load_network(path)
    assert loaded.config == config
    assert same(loaded, network)
    assert describe_file(path) == config.descriptor


@pytest.mark.parametrize("config", [*SHAPES, EdsrConfig(4, 2, 2, res_scale=0.25)])
def test_saved_networks_load_with_equal_config(config: EdsrConfig | RcanConfig, tmp_path: Path) -> None:
    network, path = network_of(config), tmp_path / "net.safetensors"
    save_network(network, path, training="on nothing")
    loaded = load_network(path)
    assert loaded.config == config
    assert same(loaded, network)


def test_the_wide_edsr_has_the_res_scale_of_its_paper(tmp_path: Path) -> None:
    torch.save(network_of(EdsrConfig(256, 1, 2, res_scale=0.1)).state_dict(), tmp_path / "edsr.pt")
    assert load_network(tmp_path / "edsr.pt").config == EdsrConfig(256, 1, 2, res_scale=0.1)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (SHAPES[0], {"sub_mean.weight": None}, "lacks sub_mean.weight"),
        (SHAPES[0], {"body.1.body.0.weight": None}, "lacks body.1.body.0.weight"),
        (SHAPES[0], {"tail.0.0.weight": torch.zeros(25, 6, 3, 3)}, "unsupported edsr network in"),
        (SHAPES[3], {"body.900.body.0.body.0.weight": torch.zeros(1)}, "groups 901"),
        (SHAPES[3], {"body.0.body.0.body.3.conv_du.0.weight": torch.zeros(3, 8, 1, 1)}, "bias has shape (2,), not"),
        (SHAPES[3], {"body.0.body.0.body.3.conv_du.0.weight": torch.zeros(0, 8, 1, 1)}, "unsupported rcan network in"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(config, changes, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = {**network_of(config).state_dict(), **changes}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "net.pt")
    assert message in refused(tmp_path / "net.pt")


@pytest.mark.parametrize("text", ["much", "nan"])
def test_a_res_scale_that_is_not_a_number_is_refused(text: str, tmp_path: Path) -> None:
    save_network(network_of(SHAPES[0]), tmp_path / "net.safetensors", training="")
    tensors = load_file(tmp_path / "net.safetensors")
    save_file(tensors, tmp_path / "net.safetensors", {"res_scale": text})
    assert "unsupported edsr network in" in refused(tmp_path / "net.safetensors")


@pytest.mark.parametrize("config", [CompactConfig(6, 3, 2), CompactConfig(4, 1, 1), CompactConfig(5, 2, 4, "relu")])
def test_released_compact_files_load(config: CompactConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = Compact(config).eval(), tmp_path / "net.pth"
    torch.save({"params": network.state_dict()}, path)
    loaded = load_network(path)
    assert loaded.config == config
    assert same(loaded, network)


def test_only_metadata_tell_leaky_relu_from_relu(tmp_path: Path) -> None:
    network = Compact(CompactConfig(4, 2, 2, "leakyrelu")).eval()
    save_network(network, tmp_path / "own.safetensors", "")
    assert load_network(tmp_path / "own.safetensors").config == network.config
    torch.save(network.state_dict(), tmp_path / "foreign.pth")
    assert load_network(tmp_path / "foreign.pth").config.activation == "relu"


def test_a_compact_file_without_its_last_layer_is_refused(tmp_path: Path) -> None:
    state = Compact(CompactConfig(4, 2, 2)).state_dict()
    path = tmp_path / "cut.pth"
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("body.6.")}, path)
    assert "layers do not fit together" in refused(path)
