"""EDSR and RCAN compared with the definitions of their papers: sizes, names and outputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.features import FeatureExtractor
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import RCAN, RcanConfig

MEAN = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64).view(1, 3, 1, 1)
State = dict[str, Tensor]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (EdsrConfig(scale=2), 1_369_859),
        (EdsrConfig(scale=3), 1_554_499),
        (EdsrConfig(scale=4), 1_517_571),
        (EdsrConfig(256, 32, 2, 0.1), 40_729_603),
        (EdsrConfig(256, 32, 3, 0.1), 43_680_003),
        (EdsrConfig(256, 32, 4, 0.1), 43_089_923),
        (RcanConfig(scale=2), 15_444_643),
        (RcanConfig(scale=3), 15_629_283),
        (RcanConfig(scale=4), 15_592_355),
        (RcanConfig(blocks=6, scale=2), 5_023_603),
        (RcanConfig(blocks=6, scale=3), 5_208_243),
        (RcanConfig(blocks=6, scale=4), 5_171_315),
    ],
)
def test_parameter_counts_of_the_papers(config: EdsrConfig | RcanConfig, count: int) -> None:
    with torch.device("meta"):
        network = EDSR(config) if isinstance(config, EdsrConfig) else RCAN(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def random(network: Network) -> Network:
    """Return the network in float64 with random weights; the mean shift keeps its values."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.double().parameters():
            parameter.normal_(std=0.1)
    return network.eval()


def convolved(x: Tensor, state: State, name: str) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def enlarged(x: Tensor, state: State, scale: int) -> Tensor:
    for index, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]):
        x = F.pixel_shuffle(convolved(x, state, f"tail.0.{2 * index}"), factor)
    return convolved(x, state, "tail.1") / 255 + MEAN


def edsr(x: Tensor, state: State, config: EdsrConfig) -> Tensor:
    """Compute EDSR as its paper draws it, from tensors with the official names."""
    head = body = convolved((x - MEAN) * 255, state, "head.0")
    for index in range(config.blocks):
        inner = F.relu(convolved(body, state, f"body.{index}.body.0"))
        body = body + config.res_scale * convolved(inner, state, f"body.{index}.body.2")
    return enlarged(head + convolved(body, state, f"body.{config.blocks}"), state, config.scale)


def rcan(x: Tensor, state: State, config: RcanConfig) -> Tensor:
    """Compute RCAN as its paper draws it, from tensors with the official names."""
    head = body = convolved((x - MEAN) * 255, state, "head.0")
    for group in range(config.groups):
        inside = body
        for index in range(config.blocks):
            name = f"body.{group}.body.{index}.body"
            branch = convolved(F.relu(convolved(inside, state, f"{name}.0")), state, f"{name}.2")
            means = F.adaptive_avg_pool2d(branch, 1)
            narrow = F.relu(convolved(means, state, f"{name}.3.conv_du.0"))
            inside = inside + branch * torch.sigmoid(convolved(narrow, state, f"{name}.3.conv_du.2"))
        body = body + convolved(inside, state, f"body.{group}.body.{config.blocks}")
    return enlarged(head + convolved(body, state, f"body.{config.groups}"), state, config.scale)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_outputs_equal_the_definitions_of_the_papers(scale: int) -> None:
    x = torch.rand(2, 3, 7, 6, dtype=torch.float64)
    for network, definition in (
        (random(EDSR(EdsrConfig(6, 3, scale, 0.3))), edsr),
        (random(RCAN(RcanConfig(8, 2, scale, groups=3, attention=2))), rcan),
    ):
        answer = network(x)
        assert answer.shape == (2, 3, 7 * scale, 6 * scale)
        torch.testing.assert_close(answer, definition(x, network.state_dict(), network.config))  # type: ignore[operator]


@pytest.mark.parametrize(("blocks", "scale"), [(1, 2), (2, 3), (3, 4)])
def test_the_declared_halo_covers_the_receptive_field_of_edsr(blocks: int, scale: int) -> None:
    network = random(EDSR(EdsrConfig(3, blocks, scale)))
    halo = network.config.descriptor.halo
    x = torch.rand(1, 3, 2 * halo + 5, 9, dtype=torch.float64, requires_grad=True)
    row = halo + 2
    network(x)[0, :, row * scale : (row + 1) * scale].sum().backward()
    assert x.grad is not None
    reach = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert (row - int(reach.min()), int(reach.max()) - row) == (halo, halo)


def test_rcan_depends_on_the_whole_picture_and_declares_so() -> None:
    network = random(RCAN(RcanConfig(8, 1, 2, groups=1, attention=8)))
    assert not network.config.descriptor.exact_tiles
    assert EdsrConfig().descriptor.exact_tiles
    assert RcanConfig().descriptor.halo == 32
    x = torch.rand(1, 3, 200, 3, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 0] += 0.1
    assert not torch.equal(network(x)[:, :, -1], network(changed)[:, :, -1])


def test_feature_maps_are_found_by_name() -> None:
    network = random(EDSR(EdsrConfig(4, 6, 2)))
    assert network.feature_names == ("head", *(f"body.{index}" for index in range(7)))
    assert network.thirds == ("body.1", "body.3", "body.6")
    with torch.device("meta"):
        assert RCAN(RcanConfig()).thirds == ("body.2", "body.6", "body.10")  # as FAKD names them
    x = torch.rand(1, 3, 5, 5, dtype=torch.float64)
    answer, maps = FeatureExtractor(network, ("body.1", "body.6"))(x)
    assert torch.equal(answer, network(x))
    torch.testing.assert_close(maps[1], network.body(network.head(network.sub_mean(x * 255))))
