"""File to network and back: strict, safe, atomic. Width, blocks and scale are read off the tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dsclora_cli.errors import WeightsError
from dsclora_cli.model.span import Span, SpanConfig, merge
from dsclora_cli.runtime.descriptor import Descriptor
from dsclora_cli.weights.formats import TensorFile, finite, read_tensors, write_tensors

MOST_CHANNELS, MOST_BLOCKS, MOST_SCALE = 1024, 64, 16
_NO_NORM = "no_norm"  # an empty-valued buffer by which community files say that RGB is taken as it is
_HINT = "expected a SPAN or DSCLoRA network, merged or in training form"


def load_network(path: Path) -> Span:
    """The network of a file, merged, in float32 on the CPU and in eval mode.

    Raises WeightsError for anything that is not exactly one SPAN network with finite weights.
    """
    file = read_tensors(path)
    config = _infer(file, path)
    state = _weights(file, config)
    _check_strict(state, config, path)
    network = Span(config).double()
    network.load_state_dict({name: finite(tensor, name, path).double() for name, tensor in state.items()}, strict=True)
    return merge(network).float().eval()  # merged in float64, so that float32 rounds once


def describe_file(path: Path) -> Descriptor:
    """What the network of a file is, without building it. Raises WeightsError as `load_network` does for its shape."""
    return _infer(read_tensors(path), path).descriptor


def save_network(network: Span, path: Path, training: str) -> None:
    """Write a network as safetensors, whole or not at all; equal networks give equal bytes.

    `training` says where the weights come from. Raises WeightsError where the file cannot be written.
    """
    config = network.config
    tensors = network.state_dict()
    if not config.norm:
        tensors[_NO_NORM] = torch.zeros(1)
    metadata = {"arch": "span", "training": training}
    metadata |= {key: str(getattr(config, key)) for key in ("scale", "channels", "blocks")}
    write_tensors(path, tensors, metadata)


def _infer(file: TensorFile, path: Path) -> SpanConfig:
    """The shape of the network, from the tensors of its two last layers and the names of its blocks."""
    tensors = file.tensors
    for name in ("conv_cat.weight", "upsampler.0.weight"):
        if name not in tensors or tensors[name].ndim != 4:
            raise WeightsError(f"{path} is not a SPAN network: it has no {name}, but {_named(tensors)}", _HINT)
    channels, outputs = tensors["conv_cat.weight"].shape[0], tensors["upsampler.0.weight"].shape[0]
    numbers = [name.split(".")[0].removeprefix("block_") for name in tensors if name.startswith("block_")]
    blocks = max((int(number) for number in numbers if number.isdecimal() and len(number) < 5), default=0)
    scale = math.isqrt(outputs // 3)
    config = SpanConfig(channels, blocks, scale, _NO_NORM not in tensors, any(".sk." in name for name in tensors))
    limits = ((channels, 1, MOST_CHANNELS), (blocks, 1, MOST_BLOCKS), (scale, 2, MOST_SCALE))
    if 3 * scale**2 != outputs or any(not low <= value <= high for value, low, high in limits):
        raise WeightsError(
            f"{path} is no SPAN network that upscales: {channels} channels, {blocks} blocks, {outputs} outputs", _HINT
        )
    for key in ("scale", "channels", "blocks"):
        stated = file.metadata.get(key)
        if stated is not None and stated != str(getattr(config, key)):
            raise WeightsError(f"{path} says {key} {stated[:20]!r} but its tensors have {getattr(config, key)}", _HINT)
    return config


def _weights(file: TensorFile, config: SpanConfig) -> dict[str, Tensor]:
    """The tensors that are weights: not the marker, nor the stale `eval_conv` beside the training form."""
    stale = ".eval_conv." if config.expanded else None
    return {
        name: tensor
        for name, tensor in file.tensors.items()
        if name != _NO_NORM and not (stale is not None and stale in name)
    }


def _check_strict(state: Mapping[str, Tensor], config: SpanConfig, path: Path) -> None:
    with torch.device("meta"):
        expected = Span(config).state_dict()
    if missing := expected.keys() - state.keys():
        raise WeightsError(f"{path} lacks {_named(missing)}", _HINT)
    if unexpected := state.keys() - expected.keys():
        raise WeightsError(f"{path} has unexpected {_named(unexpected)}", _HINT)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise WeightsError(f"{path}: {name} has shape {shapes}", _HINT)


def _named(names: Iterable[str]) -> str:
    """A few of the names and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - 3} more" if len(every) > 3 else ""
    return ", ".join(name[:80] for name in every[:3]) + more
