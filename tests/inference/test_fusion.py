"""Fused networks give the same results with fewer operations; other devices run the unchanged network."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_networks import NETWORKS, made
from torch import nn

from dsclora_cli.inference import fusion
from dsclora_cli.inference.fusion import Convolution, can_fuse, fuse
from dsclora_cli.inference.torch_cpu import open_torch_engine

CPU = torch.device("cpu")
needs_fusion = pytest.mark.skipif(not can_fuse(CPU, torch.float32), reason="this PyTorch has no fused convolutions")


def functions(module: nn.Module) -> list[object]:
    return [node.target for node in module.graph.nodes if node.op in {"call_function", "call_method"}]


@needs_fusion
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (40, 52)])
@pytest.mark.parametrize("name", NETWORKS)
def test_results_equal_those_of_the_network(name: str, size: tuple[int, int]) -> None:
    network = made(name)
    before = copy.deepcopy(network.state_dict())
    with torch.inference_mode():
        x = torch.rand(2, 3, *size).contiguous(memory_format=torch.channels_last)
        given, module = x.clone(), fuse(network)
        exact = copy.deepcopy(network).double()(x.double())
        error = (network(x) - exact).abs().max()
        for _ in range(2):
            assert (module(x) - exact).abs().max() <= 4 * error + 1e-6
        assert torch.equal(x, given)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@needs_fusion
def test_fused_span_has_one_operation_for_each_convolution() -> None:
    module = fuse(made("span"))
    convolutions = [layer for layer in module.modules() if isinstance(layer, Convolution)]
    assert len(convolutions) == 1 + 6 * 3 + 4 + 1  # conv_cat in four, one of which is conv_2 as well
    assert sum(layer.overwrites for layer in convolutions) == 3
    assert [layer.activation for layer in convolutions].count("swish") == 6 * 2
    called = functions(module)
    assert F.silu not in called and torch.sigmoid not in called and torch.cat not in called
    assert called.count("mul_") == 1 + 6 and called.count("sigmoid_") == 6
    assert not [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


@needs_fusion
def test_sums_of_residual_blocks_run_inside_convolutions() -> None:
    for name in ("edsr", "edsr with res_scale"):
        module = fuse(made(name))
        sums = [node for node in module.graph.nodes if node.op == "call_module" and len(node.args) == 2]
        assert len(sums) == 3 + 1
        kinds = [layer.activation for layer in module.modules() if isinstance(layer, Convolution)]
        assert kinds.count("relu") == 3
        assert not {"add_", "sub_"} & set(functions(module))


class Branches(nn.Module):
    """A network that reads operands of sums, products and a concatenation again: nothing may overwrite them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.wide, self.strided = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 3, 3, padding=1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.one(x), self.two(x)
        joined = self.wide(torch.cat([one, two], dim=1))
        rows = torch.cat([one, two], dim=2)
        active = F.relu(one)
        looped = self.one(active) + active
        scaled = two * 2.0
        early = self.two(x + 1) - scaled
        return self.strided(joined + one * two + looped + early + 0.5 * scaled) + rows.mean() - self.one.bias[0]


@needs_fusion
def test_operands_that_are_read_again_are_not_overwritten() -> None:
    torch.manual_seed(0)
    network = Branches()
    x = torch.rand(1, 3, 8, 6)
    with torch.inference_mode():
        torch.testing.assert_close(fuse(network)(x), network(x), rtol=1e-5, atol=1e-5)


def test_other_devices_and_dtypes_run_the_unchanged_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_fuse(CPU, torch.float64) and not can_fuse(CPU, torch.float16)
    assert not can_fuse(torch.device("cuda"), torch.float32)
    network = made("span")
    descriptor = network.config.descriptor
    tile = torch.rand(20, 24, 3).numpy()
    here = open_torch_engine(network, descriptor, CPU, torch.float32)(tile)
    monkeypatch.setattr(fusion, "_OPERATORS", ("of_another_version",))
    assert not can_fuse(CPU, torch.float32)
    elsewhere = open_torch_engine(network, descriptor, CPU, torch.float32)(tile)
    assert abs(here - elsewhere).max() < 1e-4 * max(1, abs(elsewhere).max())
