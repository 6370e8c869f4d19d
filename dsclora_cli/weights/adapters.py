"""Files of adapters: small, strict, and bound to the file of weights that they were trained over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dsclora_cli.errors import WeightsError
from dsclora_cli.models.lora import Adapters, Rank, merge_adapters
from dsclora_cli.models.network import Network
from dsclora_cli.weights.state_dict import read_tensors, require_finite, write_tensors

_KIND = "dsclora adapter"
_HINT = "expected an adapter as `dsclora distill` writes it"
_BASE_HINT = "give the base that it was trained over"


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter as it lies in its file, before it meets a network.

    `tensors` are A, B and alpha of each adapted convolution; `base_sha256` is of the base's file, `training` JSON on
    where the adapter comes from.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    base_sha256: str
    training: str


def save_adapters(adapters: Adapters, path: Path, base_sha256: str, training: str) -> None:
    """Write adapters as safetensors, whole or not at all; equal adapters give equal bytes.

    Raises WeightsError where the file cannot be written.
    """
    write_tensors(path, adapters.state_dict(), {"kind": _KIND, "base_sha256": base_sha256, "training": training})


def load_adapters(path: Path) -> LoadedAdapter:
    """Read a file of adapters. Raises WeightsError where it is none, or holds a value that is not finite."""
    file = read_tensors(path)
    base = file.metadata.get("base_sha256", "")
    if file.metadata.get("kind") != _KIND or not re.fullmatch("[0-9a-f]{64}", base):
        raise WeightsError(f"{path} is not an adapter", _HINT)
    tensors = {name: require_finite(tensor, name, path) for name, tensor in file.tensors.items()}
    return LoadedAdapter(path, tensors, base, file.metadata.get("training", ""))


def apply_adapters(network: Network, base_sha256: str, file: LoadedAdapter, force: bool = False) -> Network:
    """A copy of a network with the adapters of a file merged in. Arguments and errors are those of `build_adapters`."""
    return merge_adapters(network, build_adapters(network, base_sha256, file, force))


def build_adapters(network: Network, base_sha256: str, file: LoadedAdapter, force: bool = False) -> Adapters:
    """The adapters of a file, for a network whose own file has `base_sha256`.

    Raises WeightsError where the adapter was trained over another base, unless `force`, and where it does not fit.
    """
    if file.base_sha256 != base_sha256 and not force:
        raise WeightsError(
            f"{file.path} adapts weights with sha256 {file.base_sha256[:12]}..., not {base_sha256[:12]}...", _BASE_HINT
        )
    adapters = Adapters(network, _ranks(network, file.tensors))
    expected = adapters.state_dict()
    for name, tensor in file.tensors.items():
        if name not in expected or tensor.shape != expected[name].shape:
            raise _misfit(file, f"has {name[:80]} of shape {tuple(tensor.shape)}")
    if missing := expected.keys() - file.tensors.keys():
        raise _misfit(file, f"lacks {min(missing)}")
    adapters.load_state_dict(dict(file.tensors))
    return adapters


def _ranks(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Rank]:
    """The rank of each A, from its size; alpha comes with the tensors."""
    return {
        name: Rank(max(1, tensors[f"{name}.A"].numel() // layer.weight[0].numel()), alpha=1.0)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and f"{name}.A" in tensors
    }


def _misfit(file: LoadedAdapter, what: str) -> WeightsError:
    return WeightsError(f"{file.path} does not fit this network: it {what}", _BASE_HINT)
