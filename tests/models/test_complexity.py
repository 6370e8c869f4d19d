"""Counts compared with torch's own counter and with the published numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dsclora_cli.models.complexity import complexity
from dsclora_cli.models.span import SPAN, SpanConfig


def test_the_size_of_the_student_equals_the_published_size() -> None:
    size = complexity(SPAN(SpanConfig()))
    assert size.parameters == 130_828
    assert f"{size.multiply_adds / 1e9:.2f} {size.activations / 1e6:.2f}" == "8.54 38.93"
    assert size.convolutions == 22


@pytest.mark.parametrize("config", [SpanConfig(), SpanConfig(channels=48, scale=2), SpanConfig(blocks=2, scale=3)])
def test_multiply_adds_are_half_of_the_operations_that_torch_counts(config: SpanConfig) -> None:
    network = SPAN(config)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(1, 3, 24, 24))
    assert 2 * complexity(network, side=24).multiply_adds == counter.get_total_flops()


def test_strides_and_groups_are_counted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.Conv2d(8, 8, 3, groups=4))
    size = complexity(network, side=16)
    assert (size.parameters, size.convolutions) == (216 + 8 * 2 * 9 + 8, 2)
    assert size.activations == 8 * 8 * 8 + 8 * 6 * 6
    assert size.multiply_adds == 8 * 8 * 8 * 27 + 8 * 6 * 6 * 18


def test_counting_leaves_the_network_unchanged() -> None:
    network = SPAN(SpanConfig(channels=4, blocks=1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    complexity(network)
    assert all(tensor.device.type == "cpu" for tensor in network.state_dict().values())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
