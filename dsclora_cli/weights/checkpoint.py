"""File to network and back: strict, safe, atomic. The architecture and its shape are read off the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dsclora_cli.errors import WeightsError
from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.network import Network
from dsclora_cli.models.span import SpanConfig
from dsclora_cli.weights.detect import HINT, NO_NORM, architecture_of, detect_architecture, list_some
from dsclora_cli.weights.state_dict import TensorFile, read_tensors, require_finite, write_tensors


def load_network(path: Path) -> Network:
    """The network of a file, merged, in float32 on the CPU and in eval mode.

    Raises WeightsError for anything that is not exactly one network of a known architecture with finite weights.
    """
    file = read_tensors(path)
    architecture, config = detect_architecture(file, path)
    state = _weights(file, isinstance(config, SpanConfig) and config.expanded)
    with torch.device("meta"):
        expected = architecture.network(config).state_dict()
    _check_strict(state, expected, path)
    network = architecture.network(config).double()
    network.load_state_dict(
        {name: require_finite(tensor, name, path).double() for name, tensor in state.items()}, strict=True
    )
    return network.merged().float().eval()  # merged in float64, so that float32 rounds once


def describe_file(path: Path) -> Descriptor:
    """What the network of a file is, without building it. Raises WeightsError as `load_network` does for its shape."""
    return detect_architecture(read_tensors(path), path)[1].descriptor


def save_network(network: Network, path: Path, training: str) -> None:
    """Write a network as safetensors, whole or not at all; equal networks give equal bytes.

    `training` says where the weights come from. Raises WeightsError where the file cannot be written.
    """
    architecture, tensors = architecture_of(network), network.state_dict()
    if isinstance(network.config, SpanConfig) and not network.config.norm:
        tensors[NO_NORM] = torch.zeros(1)
    metadata = {"arch": architecture.name, "training": training}
    metadata |= {key: str(getattr(network.config, key)) for key in architecture.stated}
    write_tensors(path, tensors, metadata)


def _weights(file: TensorFile, expanded: bool) -> dict[str, Tensor]:
    """The tensors that are weights: not the marker, nor the stale `eval_conv` beside SPAN's training form."""
    stale = ".eval_conv." if expanded else None
    return {
        name: tensor
        for name, tensor in file.tensors.items()
        if name != NO_NORM and not (stale is not None and stale in name)
    }


def _check_strict(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    if missing := expected.keys() - state.keys():
        raise WeightsError(f"{path} lacks {list_some(missing)}", HINT)
    if unexpected := state.keys() - expected.keys():
        raise WeightsError(f"{path} has unexpected {list_some(unexpected)}", HINT)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise WeightsError(f"{path}: {name} has shape {shapes}", HINT)
