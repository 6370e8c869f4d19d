"""Initial weights: features at their working scale, and the last layer fitted to the data."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.models.initialization import fit_last_layer, lsuv_init
from dsclora_cli.models.span import SPAN, SpanConfig


def _pictures(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Return LR and HR (x2) of waves with many directions and lengths."""
    generator = torch.Generator().manual_seed(5)
    grid = torch.linspace(0, 1, side * 2)
    y, x = grid[:, None], grid[None, :]
    freq, phase = (
        torch.rand(count, 3, 2, 1, 1, generator=generator) * 30,
        torch.rand(count, 3, 1, 1, generator=generator) * 6,
    )
    hr = 0.5 + 0.4 * torch.sin(freq[:, :, 0] * y + freq[:, :, 1] * x + phase)
    return F.avg_pool2d(hr, 2), hr


def _network() -> SPAN:
    torch.manual_seed(2)
    return SPAN(SpanConfig(channels=12, blocks=3, scale=2))


def test_features_start_at_their_working_scale() -> None:
    network, (lr, _) = _network(), _pictures(4, 24)
    lsuv_init(network, lr)
    seen: dict[str, float] = {}
    for name, layer in network.named_modules():
        if name.endswith(("eval_conv", "conv_cat")):
            layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.std().item()}))
    with torch.no_grad():
        network(lr)

    wanted = {"conv_1.eval_conv": 3.0, "conv_cat": 0.5, "conv_2.eval_conv": 0.5}
    wanted |= {f"block_{i}.c{k}_r.eval_conv": s for i in (1, 2, 3) for k, s in ((1, 2.0), (2, 1.5), (3, 1.5))}
    assert {name: round(value, 3) for name, value in seen.items()} == wanted


def test_no_other_last_layer_beats_the_fitted_one() -> None:
    network, (lr, hr) = _network(), _pictures(4, 24)
    lsuv_init(network, lr)
    fit_last_layer(network, [(lr[:2], hr[:2]), (lr[2:], hr[2:])])

    def error(candidate: SPAN) -> float:
        with torch.no_grad():
            return F.mse_loss(candidate(lr)[:, :, 4:-4, 4:-4], hr[:, :, 4:-4, 4:-4]).item()

    best = error(network)
    nearest = F.interpolate(lr, scale_factor=2)
    assert best < 0.5 * F.mse_loss(nearest[:, :, 4:-4, 4:-4], hr[:, :, 4:-4, 4:-4]).item()
    for seed in range(3):
        torch.manual_seed(seed)
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.upsampler[0].weight += torch.randn_like(other.upsampler[0].weight) * 0.01  # type: ignore[operator]
        assert error(other) > best


def test_fitting_changes_only_the_last_layer() -> None:
    network, (lr, hr) = _network(), _pictures(2, 24)
    before = copy.deepcopy(network.state_dict())
    fit_last_layer(network, [(lr, hr)])

    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"upsampler.0.weight", "upsampler.0.bias"}
