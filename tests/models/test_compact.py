"""Compact compared with its released definition: sizes, names and outputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.models.compact import Compact, CompactConfig
from dsclora_cli.models.features import FeatureExtractor

CONFIGS = [
    CompactConfig(5, 3, 2),
    CompactConfig(4, 1, 4, "relu"),
    CompactConfig(4, 2, 3, "leakyrelu"),
    CompactConfig(6, 2, 1),
]


def random(config: CompactConfig) -> Compact:
    torch.manual_seed(0)
    network = Compact(config).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval()


def released(x: Tensor, state: dict[str, Tensor], config: CompactConfig) -> Tensor:
    """Compute the network as the released code does, from tensors with the released names."""
    body = x
    for index in range(config.blocks + 2):
        body = F.conv2d(body, state[f"body.{2 * index}.weight"], state[f"body.{2 * index}.bias"], padding=1)
        if index == config.blocks + 1:
            break
        if config.activation == "prelu":
            body = F.prelu(body, state[f"body.{2 * index + 1}.weight"])
        else:
            body = F.relu(body) if config.activation == "relu" else F.leaky_relu(body, 0.1)
    enlarged = x.repeat_interleave(config.scale, 2).repeat_interleave(config.scale, 3)
    return F.pixel_shuffle(body, config.scale) + enlarged


@pytest.mark.parametrize("config", CONFIGS)
def test_the_output_is_the_one_of_the_released_code(config: CompactConfig) -> None:
    network, x = random(config), torch.rand(2, 3, 6, 5, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), released(x, network.state_dict(), config), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "count"),
    # realesr-animevideov3 and realesr-general-x4v3, whose files hold these many values
    [(CompactConfig(), 621_424), (CompactConfig(blocks=32), 1_213_296)],
)
def test_parameter_counts_of_released_files(config: CompactConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Compact(config).parameters()) == count


@pytest.mark.parametrize("config", CONFIGS)
def test_an_output_pixel_sees_exactly_the_halo(config: CompactConfig) -> None:
    halo = config.descriptor.halo
    network, side = random(config), 2 * halo + 3
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    center = (halo + 1) * config.scale
    network(x)[0, :, center, center].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    # Pixels further away than the halo have no influence, and ReLU may silence pixels inside.
    assert (int(rows.min()), int(rows.max())) >= (1, 1) and int(rows.max()) <= 2 * halo + 1
    if config.activation != "relu":
        assert (int(rows.min()), int(rows.max())) == (1, 2 * halo + 1)


def test_feature_maps_have_names_and_the_width() -> None:
    network = random(CONFIGS[0])
    assert network.feature_names == ("body.1", "body.3", "body.5", "body.7")
    assert network.thirds == ("body.1", "body.5", "body.7")
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    output, maps = FeatureExtractor(network, network.feature_names)(x)
    assert torch.equal(output, network(x))
    assert all(each.shape == (1, 5, 4, 5) for each in maps)
