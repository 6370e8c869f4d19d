"""Load a network from a file and save a network to a file: strict, safe and atomic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from dsclora_cli.errors import WeightsError
from dsclora_cli.inference.engine import NO_NORM, Descriptor
from dsclora_cli.models.network import Network
from dsclora_cli.models.span import SpanConfig
from dsclora_cli.weights.detect import HINT, UnknownNetwork, architecture_of, detect_architecture, list_tensors
from dsclora_cli.weights.finished import NoNetwork
from dsclora_cli.weights.state_dict import TensorFile, pack_tensors, read_tensors, require_finite_tensor, write_tensors


def load_network(path: Path) -> Network:
    """Load the network of a file: merged, float32, on the CPU, in eval mode.

    Raises WeightsError for anything but exactly one network with finite weights, of an architecture that this program
    or the library spandrel, where installed, knows.
    """
    file = read_tensors(path)
    try:
        architecture, config = detect_architecture(file, path)
    except UnknownNetwork as error:
        return _foreign_network(file, path, error)
    # SPAN's training form may come with a stale merged copy of the weights (`eval_conv`).
    stale = ".eval_conv." if isinstance(config, SpanConfig) and config.expanded else None
    state = {name: tensor for name, tensor in file.tensors.items() if name != NO_NORM and not (stale and stale in name)}
    # On the meta device the check costs no memory, whatever sizes a file claims.
    with torch.device("meta"):
        expected = architecture.network(config).state_dict()
    _check_strict(state, expected, path)
    network = architecture.network(config).double()
    exact = {name: require_finite_tensor(tensor, name, path).double() for name, tensor in state.items()}
    network.load_state_dict(exact, strict=True)
    # Merged in float64, so that float32 rounds once.
    return network.merged().float().eval()


def describe_file(path: Path) -> Descriptor:
    """Return the facts on the network of a file; a network of spandrel is opened for that. Raises WeightsError."""
    file = read_tensors(path)
    try:
        return detect_architecture(file, path)[1].descriptor
    except UnknownNetwork as error:
        return _foreign_network(file, path, error).config.descriptor


def _foreign_network(file: TensorFile, path: Path, unknown: UnknownNetwork) -> Network:
    """Return the network that spandrel opens. Raises `unknown`, perhaps with a longer hint, where there is none.

    Raises WeightsError for an adapter.
    """
    from dsclora_cli.weights.adapters import is_adapter
    from dsclora_cli.weights.foreign import UnusableSpandrel, open_foreign

    if is_adapter(file):
        hint = (
            "give the weights that it was trained on; upscale, frames, eval and export take the adapter with --adapter"
        )
        raise NoNetwork(f"{path} is an adapter, and no network", hint)
    try:
        network = open_foreign(path)
    except UnusableSpandrel as error:
        raise UnknownNetwork(unknown.message, f"{unknown.hint}; {error}") from error
    if network is None:
        raise unknown
    return network


def save_network(network: Network, path: Path, training: str) -> None:
    """Write a network to a safetensors file, atomically; equal networks give equal bytes.

    `training` says where the weights come from, mostly in JSON. Raises OutputUnwritable.
    """
    write_tensors(path, *_contents(network, {"training": training}))


def pack_network(
    network: Network, metadata: Mapping[str, str], others: Mapping[str, Tensor] = MappingProxyType({})
) -> bytes:
    """Return the bytes of a file as `save_network` writes one, with more metadata, and with other tensors as well."""
    tensors, stated = _contents(network, metadata)
    return pack_tensors({**tensors, **others}, stated)


def _contents(network: Network, metadata: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors by name, and the metadata with the sizes of the network, of a file of this program."""
    architecture = architecture_of(network)
    sizes = {key: str(getattr(network.config, key)) for key in architecture.stated}
    return tensors_of(network), {**metadata, "arch": architecture.name, **sizes}


def tensors_of(network: Network) -> dict[str, Tensor]:
    """Return all that a file holds of a network: parameters `(out, in, k, k)` and `(out,)`, and perhaps `NO_NORM`."""
    tensors = network.state_dict()
    if isinstance(network.config, SpanConfig) and not network.config.norm:
        tensors[NO_NORM] = torch.zeros(1)
    return tensors


def _check_strict(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError unless both have the same names with tensors of the same shape."""
    if missing := expected.keys() - state.keys():
        raise WeightsError(f"{path} lacks {list_tensors(missing)}", HINT)
    if unexpected := state.keys() - expected.keys():
        raise WeightsError(f"{path} has unexpected {list_tensors(unexpected)}", HINT)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise WeightsError(f"{path}: {name} has shape {shapes}", HINT)
