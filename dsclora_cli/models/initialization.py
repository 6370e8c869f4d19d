"""Random weights that train well: every layer at its working scale, the last one fitted.

A SPAN takes pixels in +-128 and its attention multiplies features by at most a half, so under the usual random weights
features start near 50 and fade from block to block, while trained ones stay near 1. `lsuv_init` starts them there
(layer-sequential unit variance, arXiv 1511.06422, with a scale for each layer); `fit_last_layer` then solves for the
one layer that is linear in the answer, so that training starts where it otherwise is after a hundred steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.models.span import SPAN

_SCALES = {"conv_1": 3.0, "c1_r": 2.0, "c2_r": 1.5, "c3_r": 1.5, "conv_2": 0.5, "conv_cat": 0.5}
_DEEP_SHARE = 0.5  # of the features behind the first convolution beside those of it, where all meet in conv_cat
_RIDGE = 1e-4
_BIAS_SHARE = 0.3
_MARGIN = 2  # LR pixels that see the padding


def lsuv_init(network: SPAN, lr: Tensor) -> None:
    """Scale the weights of a merged-form network, layer by layer, until features of `lr` have their working scale.

    `lr` is `(N, 3, H, W)` float in [0, 1]. Biases become zero. Deterministic in the weights and `lr`.
    """

    def rescale(layer: nn.Conv2d, inputs: tuple[Tensor], scale: float) -> Tensor:
        layer.get_parameter("bias").zero_()
        if layer is network.conv_cat:
            _balance(layer, inputs[0])
        layer.weight.mul_(scale / _convolved(layer, inputs[0]).std())
        return _convolved(layer, inputs[0])

    def hook(scale: float) -> Any:  # noqa: ANN401 - as register_forward_hook takes it
        return lambda layer, inputs, _: rescale(layer, inputs, scale)

    handles = []
    for name, layer in network.named_modules():
        scale = next((scale for key, scale in _SCALES.items() if key in name.split(".")), None)
        if isinstance(layer, nn.Conv2d) and scale is not None:
            handles.append(layer.register_forward_hook(hook(scale)))
    with torch.no_grad():
        network(lr)
    for handle in handles:
        handle.remove()


def _convolved(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    padding = layer.kernel_size[0] // 2
    return F.conv2d(inputs, layer.weight, layer.bias, padding=padding)


def _balance(layer: nn.Conv2d, inputs: Tensor) -> None:
    """Let conv_cat hear its four sources equally loud, the deeper ones softer."""
    for source in range(4):
        part = slice(source * layer.out_channels, (source + 1) * layer.out_channels)
        layer.weight[:, part].mul_((_DEEP_SHARE if source else 1.0) / inputs[:, part].std())


def fit_last_layer(network: SPAN, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give the last convolution the weights that answer best, in least squares, on `pairs` of LR and HR.

    LR `(N, 3, H, W)` and HR `(N, 3, sH, sW)` are floats in [0, 1], H and W above 4; all other weights stay.
    """
    features: list[Tensor] = []
    layer = network.upsampler[0]
    handle = layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    normal, right = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for lr, hr in pairs:
            network(lr)
            patches = F.unfold(features.pop(), 3, padding=1)
            rows = _rows(patches.view(len(lr), -1, *lr.shape[2:]))
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
            normal, right = normal + rows.T @ rows, right + rows.T @ _rows(F.pixel_unshuffle(hr, network.config.scale))
        normal.diagonal().add_(_RIDGE * normal.diagonal().mean())
        solution = torch.linalg.solve(normal, right)
        layer.get_parameter("weight").copy_(solution[:-1].T.view(-1, network.config.channels, 3, 3))
        layer.get_parameter("bias").copy_(solution[-1])
    handle.remove()


def _rows(maps: Tensor) -> Tensor:
    """`(N, C, H, W)` to one row of C float64 for each pixel that does not see the padding."""
    inner = maps[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return inner.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).double()


def step_scales(network: nn.Module, lr: Tensor) -> dict[str, float]:
    """For each weight of a convolution its own size, and for its bias a share of the size of what it is added to.

    A step in proportion changes every layer by the same part of itself. `lr` is `(N, 3, H, W)` in [0, 1].
    """
    scales: dict[str, float] = {}

    def note(name: str, layer: nn.Conv2d, output: Tensor) -> None:
        scales[f"{name}.weight"] = layer.weight.std().item()
        scales[f"{name}.bias"] = _BIAS_SHARE * output.std().item()

    layers = ((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    handles = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
        for name, layer in layers
    ]
    with torch.no_grad():
        network(lr)
    for handle in handles:
        handle.remove()
    return scales
