"""Feature maps: the values, the selection by pattern, and the memory of all other maps."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F

from dsclora_cli.errors import UsageError
from dsclora_cli.models.features import FeatureExtractor, select_feature_maps
from dsclora_cli.models.span import SPAN, SpanConfig


@pytest.fixture
def network() -> SPAN:
    torch.manual_seed(0)
    return SPAN(SpanConfig(channels=4, blocks=3, scale=2)).double()


@pytest.fixture
def lr() -> torch.Tensor:
    return torch.rand(2, 3, 6, 5, dtype=torch.float64)


def test_feature_maps_equal_o1_o2_o3_of_the_paper(network: SPAN, lr: torch.Tensor) -> None:
    """Compute all maps again from the convolutions of the blocks."""
    names = select_feature_maps(network, ["*"])
    output, maps = FeatureExtractor(network, names)(lr)
    taps = dict(zip(names, maps, strict=True))
    assert torch.equal(output, network(lr))
    assert all(tap.shape == (2, 4, 6, 5) for tap in maps)
    torch.testing.assert_close(taps["conv_1"], network.conv_1((lr - network.mean) * 255))
    before = taps["conv_1"]
    for name in network.config.block_names:
        block = network.get_submodule(name)
        torch.testing.assert_close(taps[f"{name}.o1"], F.silu(block.c1_r(before)))
        torch.testing.assert_close(taps[f"{name}.o2"], F.silu(block.c2_r(taps[f"{name}.o1"])))
        torch.testing.assert_close(taps[f"{name}.o3"], block.c3_r(taps[f"{name}.o2"]))
        out = (taps[f"{name}.o3"] + before) * (torch.sigmoid(taps[f"{name}.o3"]) - 0.5)
        torch.testing.assert_close(taps[name], out)
        before = taps[name]
    torch.testing.assert_close(taps["conv_2"], network.conv_2(before))
    torch.testing.assert_close(network.upsampler(taps["conv_cat"]), output)


def test_patterns_select_maps_in_the_order_of_the_patterns_and_then_of_the_network(network: SPAN) -> None:
    nine = select_feature_maps(network, ("block_3.*", "block_1.*", "block_2.*", "block_1.o1"))
    assert nine == tuple(f"block_{i}.o{j}" for i in (3, 1, 2) for j in (1, 2, 3))
    assert select_feature_maps(network, ["block_?"]) == ("block_1", "block_2", "block_3")


def test_a_pattern_without_a_match_is_an_error(network: SPAN) -> None:
    with pytest.raises(UsageError, match="no feature map's name matches 'block_4") as caught:
        select_feature_maps(network, ["block_1", "block_4.*"])
    assert "block_3.o1" in caught.value.hint
    with pytest.raises(UsageError, match="no feature map is named"):
        select_feature_maps(network, [])


def test_maps_that_were_not_asked_for_are_freed_at_once(
    network: SPAN, lr: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    silu = F.silu

    def watched(x: torch.Tensor) -> torch.Tensor:
        result = silu(x)
        alive.append(weakref.ref(result))
        return result

    monkeypatch.setattr(F, "silu", watched)
    with torch.no_grad():
        output, maps = FeatureExtractor(network, ("block_2.o2",))(lr)
    assert len(alive) == 6
    assert [reference() is not None for reference in alive] == [False, False, False, True, False, False]
    assert len(maps) == 1
    assert output.shape == (2, 3, 12, 10)
