"""Adapters: zero at first, the only trainable part, and merged exactly."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dsclora_cli.errors import UsageError
from dsclora_cli.models.features import FeatureExtractor, select_feature_maps
from dsclora_cli.models.lora import AdaptedNetwork, Adapters, LowRank, Rank, merge_adapters, parse_ranks
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.checkpoint import load_network


def small(blocks: int = 3, channels: int = 6) -> SPAN:
    torch.manual_seed(0)
    return SPAN(SpanConfig(channels=channels, blocks=blocks, scale=2))


def perturbed(network: SPAN, rules: str = "paper") -> Adapters:
    """Return adapters that are not zero."""
    adapters = Adapters(network, parse_ranks(network, rules), seed=1)
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(std=0.02)
    return adapters


def picture() -> Tensor:
    return torch.rand(2, 3, 7, 6, generator=torch.Generator().manual_seed(2))


def adapted(network: SPAN, adapters: Adapters) -> AdaptedNetwork:
    return AdaptedNetwork(FeatureExtractor(network, select_feature_maps(network, ["block_1.*"])), adapters)


def of_layers(network: SPAN, rules: str) -> dict[str, tuple[int, float]]:
    return {name.removesuffix(".eval_conv"): (r.rank, r.alpha) for name, r in parse_ranks(network, rules).items()}


def test_ranks_of_the_presets_on_the_network_of_the_paper() -> None:
    network = SPAN(SpanConfig())
    blocks = {f"block_{i}.c{j}_r": i for i in range(1, 7) for j in (1, 2, 3)}
    paper = {name: {1: (8, 16), 6: (4, 8)}.get(i, (12, 24)) for name, i in blocks.items()}
    assert of_layers(network, "paper") == {**paper, "conv_2": (26, 52), "upsampler.0": (16, 32)}
    figure = {**paper, "conv_2": (26, 52), "conv_cat": (26, 52), "upsampler.0": (16, 32)}
    assert of_layers(network, "figure") == figure
    small = dict.fromkeys(blocks, (2, 4))
    assert of_layers(network, "small") == {**small, "conv_2": (8, 16), "upsampler.0": (8, 16)}


@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_presets_fit_a_span_of_any_size(blocks: int) -> None:
    chosen = of_layers(small(blocks, channels=5), "paper")
    assert len(chosen) == 3 * blocks + 2
    assert chosen["block_1.c1_r"] == (5, 10)
    assert chosen.get(f"block_{max(2, blocks)}.c2_r", (4, 8)) == (4, 8)


def test_custom_rules() -> None:
    chosen = of_layers(small(), "{last}.c1_r*:3:12 block_*:2 conv_cat:full")
    assert chosen == {
        **{f"block_{i}.c{j}_r": (2, 4) for i in (1, 2, 3) for j in (1, 2, 3)},
        "block_3.c1_r": (3, 12),
        "conv_cat": (6, 12),
    }
    assert of_layers(small(), "upsampler.0:24:12") == {"upsampler.0": (6, 3)}  # as strong, and as free


@pytest.mark.parametrize("rules", ["large", "a:b", "block_*:0", "block_*:2:x", "block_*:2:-1", "a:1:1:1", "a:full:3"])
def test_rules_that_cannot_be_parsed_are_refused(rules: str) -> None:
    with pytest.raises(UsageError, match="cannot parse") as caught:
        parse_ranks(small(), rules)
    assert "pattern:rank" in caught.value.hint


def test_rules_without_a_match_are_refused() -> None:
    with pytest.raises(UsageError, match="no convolution's name matches 'block_4"):
        parse_ranks(small(), "block_*:2 block_4.*:2")
    with pytest.raises(UsageError, match="no convolution gets an adapter"):
        parse_ranks(small(), " ")


def test_new_adapters_change_nothing_and_follow_their_seed() -> None:
    network = small()
    adapters = Adapters(network, parse_ranks(network, "paper"), seed=3)
    output, taps = adapted(network, adapters)(picture())
    expected, expected_taps = FeatureExtractor(network, select_feature_maps(network, ["block_1.*"]))(picture())
    assert torch.equal(output, expected)
    assert all(torch.equal(*pair) for pair in zip(taps, expected_taps, strict=True))
    merged = merge_adapters(network, adapters)
    assert all(torch.equal(tensor, merged.state_dict()[name]) for name, tensor in network.state_dict().items())
    again, other = (Adapters(network, parse_ranks(network, "paper"), seed) for seed in (3, 4))
    first = "block_1.c1_r.eval_conv.A"
    assert torch.equal(adapters.get_parameter(first), again.get_parameter(first))
    assert not torch.equal(adapters.get_parameter(first), other.get_parameter(first))


def test_the_delta_equals_the_delta_of_loralib() -> None:
    """Compare index by index, in the order of `view`: row `o*k + y` of B and column `i*k + x` of A."""
    layer = torch.nn.Conv2d(3, 4, 3).double()
    adapter = LowRank(layer, Rank(2, 6.0), torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        adapter.B.normal_()
    assert adapter.A.shape == (6, 9)
    assert adapter.B.shape == (12, 6)
    flat = (adapter.B @ adapter.A).flatten() * 3
    delta = adapter()
    for o, i, y, x in ((0, 0, 0, 0), (3, 2, 1, 2), (1, 2, 2, 0)):
        assert float(delta[o, i, y, x].detach()) == pytest.approx(float(flat[((o * 3 + i) * 3 + y) * 3 + x].detach()))


def test_merged_equals_unmerged_and_arguments_do_not_change() -> None:
    network = small().double()
    adapters = perturbed(network).double()
    before = copy.deepcopy((network.state_dict(), adapters.state_dict()))
    output, _ = adapted(network, adapters)(picture().double())
    merged = merge_adapters(network, adapters)
    torch.testing.assert_close(merged(picture().double()), output, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(output, network(picture().double()), atol=1e-3)
    for old, module in zip(before, (network, adapters), strict=True):
        assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in old.items())
    assert not merged.config.expanded


def test_only_adapters_receive_gradients() -> None:
    network = small()
    adapters = perturbed(network)
    student = adapted(network, adapters)
    assert {id(p) for p in student.parameters() if p.requires_grad} == {id(p) for p in adapters.parameters()}
    output, taps = student(picture())
    (output.sum() + sum(tap.sum() for tap in taps)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in adapters.parameters())
    assert all(p.grad is None for p in (*student.taps.parameters(), *network.parameters()))
    assert all(p.requires_grad for p in network.parameters())


def test_the_released_student_equals_its_base_with_adapters_of_the_paper_preset(shared: Path) -> None:
    """Build the adapters from singular values; with a lower rank than the preset's, the remainder is much larger."""
    base = load_network(shared / "weights/team39_spantiny_ch26_slim.pth")
    released = load_network(shared / "weights/team23_DSCF.pth").state_dict()
    adapters = Adapters(base, parse_ranks(base, "paper"))
    left, less = {}, {}
    for name, adapter in adapters.named_modules():
        if not isinstance(adapter, LowRank):
            continue
        delta = (released[f"{name}.weight"].double() - base.get_parameter(f"{name}.weight").double()).detach()
        u, s, vh = torch.linalg.svd(delta.view(len(adapter.B), -1), full_matrices=False)
        size = adapter.A.shape[0]
        left[name], less[name] = (float(s[end:].norm() / s.norm()) for end in (size, size - 3))
        with torch.no_grad():
            adapter.A.copy_(s[:size, None] * vh[:size] / 2)
            adapter.B.copy_(u[:, :size])
    assert len(left) == 20
    assert max(left.values()) < 0.035
    assert min(less[name] / max(left[name], 1e-9) for name in left) > 1.5
    merged = merge_adapters(base, adapters)
    for name, tensor in merged.state_dict().items():
        assert (tensor - released[name]).norm() <= 5e-5 * released[name].norm(), name


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    network = small(blocks=2, channels=4)
    adapters = perturbed(network)
    student = adapted(network, adapters)
    answers = []
    for run in (student, torch.compile(student)):
        adapters.zero_grad()
        output, taps = run(picture())
        (output.square().mean() + torch.stack([tap.square().mean() for tap in taps]).mean()).backward()
        answers.append((output, *taps, *(p.grad.clone() for p in adapters.parameters())))
    for eager, compiled in zip(*answers, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
