"""What holds for every network: interpolation between the weights of two networks."""

from __future__ import annotations

import pytest
import torch
from small_networks import NETWORKS, made

from dsclora_cli.models.network import interpolate


@pytest.mark.parametrize("name", NETWORKS)
def test_interpolation_begins_and_ends_exactly_at_the_two_networks(name: str) -> None:
    network, other = made(name), made(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first, middle, last = (interpolate(network, other, share).state_dict() for share in (0.0, 0.25, 1.0))

    for key, value in before.items():
        target = other.state_dict()[key]
        assert torch.equal(first[key], value) and torch.equal(last[key], target)
        assert torch.allclose(middle[key], 0.75 * value + 0.25 * target, atol=1e-6)
        assert torch.equal(network.state_dict()[key], value)


def test_whole_numbers_are_left_alone() -> None:
    network, other = made("span"), made("span")
    for each, position in ((network, 3), (other, 8)):
        each.register_buffer("position", torch.tensor(position))
    assert interpolate(network, other, 0.5).get_buffer("position") == 3
