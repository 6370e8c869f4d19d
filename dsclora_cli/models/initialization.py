"""Random weights that train well: every layer of a SPAN at its working scale, and the last layer fitted to the data.

A SPAN computes with pixels in +-128, and the attention multiplies features by at most a half. Under PyTorch's usual
random weights features therefore start near 50 and fade from block to block, while features of a trained SPAN stay
near 1. `lsuv_init` starts features at their trained scale (layer-sequential unit variance, arXiv 1511.06422, with a
target for every layer). `fit_last_layer` then solves for the last convolution, the only layer that is linear in the
output. Training starts where training otherwise is after a hundred steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.models.span import SPAN

# Target standard deviations of the outputs of the layers: roughly the scale of a trained network.
_TARGET_STDS = {"conv_1": 3.0, "c1_r": 2.0, "c2_r": 1.5, "c3_r": 1.5, "conv_2": 0.5, "conv_cat": 0.5}

_DEEP_SHARE = 0.5
"""Strength of the three deeper inputs of conv_cat, relative to the output of conv_1."""

_RIDGE = 1e-4
"""Ridge of the least-squares fit, relative to the mean of the diagonal."""

_BIAS_SHARE = 0.3
"""Step size of a bias, relative to the standard deviation of the layer's output."""

_MARGIN = 2
"""Width in LR pixels of the border that the fit leaves out, because pixels there depend on the padding."""


def lsuv_init(network: SPAN, lr: Tensor) -> None:
    """Scale the weights of a merged-form SPAN, layer by layer, so that features of `lr` have their working scale.

    Biases become zero. The result depends on nothing but the weights and `lr`.

    Args:
        network: Network with random weights; changed in place.
        lr: Typical inputs, `(N, 3, H, W)`, RGB in [0, 1].
    """
    hooks = []
    for name, layer in network.named_modules():
        target = next((std for key, std in _TARGET_STDS.items() if key in name.split(".")), None)
        if isinstance(layer, nn.Conv2d) and target is not None:
            rescale = partial(_rescale, target=target, is_concat=layer is network.conv_cat)
            hooks.append(layer.register_forward_hook(rescale))
    with torch.no_grad():
        network(lr)
    for hook in hooks:
        hook.remove()


def _rescale(layer: nn.Conv2d, inputs: tuple[Tensor], _: Tensor, target: float, is_concat: bool) -> Tensor:
    """Scale one layer during the forward pass and return the new output, `(N, C, H, W)`.

    The new output replaces the old one, so that later layers are scaled for inputs of the right scale.
    """
    x, bias, padding = inputs[0], layer.get_parameter("bias"), layer.kernel_size[0] // 2
    bias.zero_()
    if is_concat:
        # All four inputs of conv_cat count equally, up to `_DEEP_SHARE`, whatever their own scale is.
        for source in range(4):
            part = slice(source * layer.out_channels, (source + 1) * layer.out_channels)
            layer.weight[:, part].mul_((_DEEP_SHARE if source else 1.0) / x[:, part].std())
    layer.weight.mul_(target / F.conv2d(x, layer.weight, bias, padding=padding).std())
    return F.conv2d(x, layer.weight, bias, padding=padding)


def fit_last_layer(network: SPAN, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the last convolution to the least-squares fit of HR from the features of LR; keep all other weights.

    The convolution is linear, so the fit has a closed form: solve the normal equations over all pixels of all pairs.

    Args:
        network: Network to fit; changed in place.
        pairs: LR `(N, 3, H, W)` and HR `(N, 3, scale*H, scale*W)`, RGB in [0, 1], with H and W above 4.
    """
    features: list[Tensor] = []
    layer = network.upsampler[0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    normal, right = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for lr, hr in pairs:
            network(lr)
            # One row per LR pixel: the 3x3 neighborhood of features, and 1 for the bias.
            patches = F.unfold(features.pop(), 3, padding=1)
            rows = _rows(patches.view(len(lr), -1, *lr.shape[2:]))
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
            # Before the pixel shuffle the network has 3 * scale**2 outputs per LR pixel, so HR is unshuffled.
            targets = _rows(F.pixel_unshuffle(hr, network.config.scale))
            normal, right = normal + rows.T @ rows, right + rows.T @ targets
        normal.diagonal().add_(_RIDGE * normal.diagonal().mean())
        solution = torch.linalg.solve(normal, right)
        layer.get_parameter("weight").copy_(solution[:-1].T.view(-1, network.config.channels, 3, 3))
        layer.get_parameter("bias").copy_(solution[-1])
    hook.remove()


def _rows(maps: Tensor) -> Tensor:
    """Return `(N, C, H, W)` as rows of C float64 values, one row for every pixel that does not see the padding."""
    inner = maps[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return inner.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).double()


def step_scales(network: nn.Module, lr: Tensor) -> dict[str, float]:
    """Return a step size for the weight and the bias of every convolution, by parameter name.

    A weight gets its own standard deviation; a bias gets a share of the standard deviation of the layer's output.
    Steps in proportion to these numbers change every layer by the same relative amount.

    Args:
        network: Network to measure; not changed.
        lr: Typical inputs, `(N, 3, H, W)`, RGB in [0, 1].
    """
    scales: dict[str, float] = {}

    def measure(layer: nn.Conv2d, _: tuple[Tensor], output: Tensor, name: str) -> None:
        scales[f"{name}.weight"] = layer.weight.std().item()
        scales[f"{name}.bias"] = _BIAS_SHARE * output.std().item()

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(partial(measure, name=name)) for name, layer in layers]
    with torch.no_grad():
        network(lr)
    for hook in hooks:
        hook.remove()
    return scales
