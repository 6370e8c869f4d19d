"""Load and save adapter files: small, strict, and bound to the weight file used in training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dsclora_cli.errors import WeightsError
from dsclora_cli.models.lora import Adapters, Rank
from dsclora_cli.models.network import Network
from dsclora_cli.weights.state_dict import TensorFile, pack_tensors, read_tensors, require_finite_tensor, write_tensors

_KIND = "dsclora adapter"
_HINT = "expected an adapter as `dsclora distill` writes it"
_BASE_HINT = "give the weights that the adapter was trained on"


@dataclass(frozen=True)
class LoadedAdapter:
    """The content of an adapter file, not yet compared with a network."""

    path: Path

    tensors: Mapping[str, Tensor]
    """A `(rank*k, in*k)`, B `(out*k, rank*k)` and alpha `()` of every adapted convolution, by name."""

    base_sha256: str
    """sha256 of the weight file that the adapter was trained on."""

    training: str
    """JSON: recipe and result of the training run."""


def load_adapters(path: Path) -> LoadedAdapter:
    """Read an adapter file. Raises WeightsError for any other file, and for NaN or infinity."""
    file = read_tensors(path)
    base = file.metadata.get("base_sha256", "")
    if not is_adapter(file) or not re.fullmatch("[0-9a-f]{64}", base):
        raise WeightsError(f"{path} is not an adapter", _HINT)
    tensors = {name: require_finite_tensor(tensor, name, path) for name, tensor in file.tensors.items()}
    return LoadedAdapter(path, tensors, base, file.metadata.get("training", ""))


def is_adapter(file: TensorFile) -> bool:
    """Return whether a file says that its tensors are an adapter."""
    return file.metadata.get("kind") == _KIND


def build_adapters(network: Network, base_sha256: str, file: LoadedAdapter, force: bool = False) -> Adapters:
    """Return the adapters of a file as a module.

    Args:
        network: Network to adapt; not changed.
        base_sha256: sha256 of the network's own file.
        file: Content of the adapter file.
        force: Accept an adapter for other weights if all shapes fit.

    Raises:
        WeightsError: The adapter was trained on other weights, or does not fit the network.
    """
    if file.base_sha256 != base_sha256 and not force:
        trained, given = file.base_sha256[:12], base_sha256[:12]
        raise WeightsError(
            f"{file.path} is an adapter for weights with sha256 {trained}..., not {given}...", _BASE_HINT
        )
    # The network and the ranks decide all names and shapes; the file must have exactly these.
    adapters = Adapters(network, _ranks(network, file.tensors))
    expected = adapters.state_dict()
    for name, tensor in file.tensors.items():
        if name not in expected or tensor.shape != expected[name].shape:
            raise _misfit(file, f"unexpected {name[:80]} of shape {tuple(tensor.shape)}")
    if missing := expected.keys() - file.tensors.keys():
        raise _misfit(file, f"the file lacks {min(missing)}")
    adapters.load_state_dict(dict(file.tensors))
    return adapters


def _ranks(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Rank]:
    """Return the rank of every adapter, from the number of values in A, `(rank*k, in*k)`.

    The alpha of 1 is a placeholder, for `load_state_dict` sets alpha from the file.
    """
    return {
        name: Rank(max(1, tensors[f"{name}.A"].numel() // layer.weight[0].numel()), alpha=1.0)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and f"{name}.A" in tensors
    }


def _misfit(file: LoadedAdapter, problem: str) -> WeightsError:
    return WeightsError(f"{file.path} does not fit this network: {problem}", _BASE_HINT)


def save_adapters(adapters: Adapters, path: Path, base_sha256: str, training: str) -> None:
    """Write adapters to a safetensors file, atomically; equal adapters give equal bytes.

    Args:
        adapters: A `(rank*k, in*k)`, B `(out*k, rank*k)` and alpha `()` by name.
        path: Place of the file.
        base_sha256: sha256 of the adapted weight file.
        training: JSON: recipe and result of the training run.

    Raises:
        OutputUnwritable: The file cannot be written.
    """
    write_tensors(path, adapters.state_dict(), _metadata(base_sha256, training))


def pack_adapters(file: LoadedAdapter, training: str) -> bytes:
    """Return the bytes of a file as `save_adapters` writes one, with other words about the training."""
    return pack_tensors(file.tensors, _metadata(file.base_sha256, training))


def _metadata(base_sha256: str, training: str) -> dict[str, str]:
    return {"kind": _KIND, "base_sha256": base_sha256, "training": training}
