"""Tell the architecture and the sizes of a network from the tensors in a file: a function for every architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dsclora_cli.errors import WeightsError, list_some
from dsclora_cli.inference.engine import NO_NORM
from dsclora_cli.models.compact import LEAKY_RELU, PRELU, RELU, Compact, CompactConfig
from dsclora_cli.models.edsr import EDSR, EdsrConfig, usual_res_scale
from dsclora_cli.models.network import Network, NetworkConfig
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.state_dict import TensorFile

LIMITS = {"channels": (1, 1024), "blocks": (1, 64), "groups": (1, 64), "attention": (1, 1024), "scale": (1, 16)}
"""Smallest and largest accepted sizes: a damaged file must not ask for a network of any size."""

HINT = "expected a SPAN or DSCLoRA network, merged or in training form, a Compact, an EDSR or an RCAN"


class UnknownNetwork(WeightsError):
    """A file holds tensors, and no network of an architecture that this program defines."""


@dataclass(frozen=True)
class Architecture:
    """An architecture, and how to recognize a file of the architecture."""

    name: str
    """Key of `ARCHITECTURES`."""

    layers: tuple[str, ...]
    """Names of weights of convolutions; a file with all of them has this architecture."""

    config: Callable[[TensorFile], NetworkConfig | None]
    """Reads the sizes from the tensors; returns None for sizes that contradict each other."""

    network: Callable[[Any], Network]
    """Builds the network from its sizes."""

    stated: tuple[str, ...]
    """Fields of the sizes that the metadata of this project's files repeat."""


def detect_architecture(file: TensorFile, path: Path) -> tuple[Architecture, NetworkConfig]:
    """Return the architecture and the sizes of the network in a file.

    Raises UnknownNetwork for another architecture, and WeightsError for layers that do not fit together.
    """
    convolutions = {name for name, tensor in file.tensors.items() if tensor.ndim == 4}
    architecture = next((each for each in KNOWN if convolutions.issuperset(each.layers)), None)
    if architecture is None:
        raise UnknownNetwork(f"unsupported model file {path}: found keys {list_tensors(file.tensors)}", HINT)
    config = architecture.config(file)
    if config is None:
        raise WeightsError(f"unsupported {architecture.name} network in {path}: layers do not fit together", HINT)
    sizes = {key: getattr(config, key) for key in LIMITS if hasattr(config, key)}
    if any(not LIMITS[key][0] <= size <= LIMITS[key][1] for key, size in sizes.items()):
        shown = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise WeightsError(f"unsupported {architecture.name} network in {path}: {shown}", HINT)
    # Metadata and tensors that contradict each other mean that somebody edited the file, or mixed up two files.
    for key in architecture.stated:
        stated, found = file.metadata.get(key), str(getattr(config, key))
        if stated is not None and stated != found:
            raise WeightsError(f"{path} states {key} {stated[:20]!r}, but its tensors have {found}", HINT)
    return architecture, config


def architecture_of(network: Network) -> Architecture:
    """Return the architecture of a network."""
    return next(each for each in KNOWN if each.name == network.config.descriptor.arch)


def list_tensors(names: Iterable[str]) -> str:
    """Return the first three names in order of the alphabet, and the number of the others, for an error message."""
    return list_some([name[:80] for name in sorted(names)], 3)


def _span(file: TensorFile) -> SpanConfig | None:
    """Read the sizes from conv_cat.weight `(C, 4*C, 1, 1)` and upsampler.0.weight `(3*scale*scale, C, 3, 3)`."""
    tensors = file.tensors
    channels, outputs = tensors["conv_cat.weight"].shape[0], tensors["upsampler.0.weight"].shape[0]
    scale = math.isqrt(outputs // 3)
    if 3 * scale**2 != outputs:
        return None
    blocks = _count(tensors, r"block_(\d{1,4})\.") - 1  # blocks are numbered from 1
    return SpanConfig(channels, blocks, scale, NO_NORM not in tensors, any(".sk." in name for name in tensors))


def _edsr(file: TensorFile) -> EdsrConfig | None:
    """Read the sizes from head, tail and the numbers of the blocks; weights are `(out, in, k, k)`."""
    channels, scale = _head_and_tail(file.tensors)
    blocks = _count(file.tensors, r"body\.(\d{1,4})\.body\.")
    # No tensor shows `res_scale`: metadata first, else the number in the paper for this width.
    try:
        res_scale = float(file.metadata.get("res_scale", usual_res_scale(channels)))
    except ValueError:
        return None
    return EdsrConfig(channels, blocks, scale, res_scale) if scale and math.isfinite(res_scale) else None


def _rcan(file: TensorFile) -> RcanConfig | None:
    """Read the sizes from head, tail, the numbers of groups and blocks, and the first attention `(A, C, 1, 1)`."""
    channels, scale = _head_and_tail(file.tensors)
    groups = _count(file.tensors, r"body\.(\d{1,4})\.body\.")
    blocks = _count(file.tensors, r"body\.0\.body\.(\d{1,4})\.body\.")
    attention = file.tensors[_ATTENTION].shape[0]
    return RcanConfig(channels, blocks, scale, groups, attention) if scale else None


def _compact(file: TensorFile) -> CompactConfig | None:
    """Read the sizes from body.0 `(C, 3, 3, 3)`, the last convolution `(3*scale*scale, C, 3, 3)`, and the slopes."""
    layers = _count(file.tensors, r"body\.(\d{1,4})\.weight")
    outputs = file.tensors[f"body.{layers - 1}.weight"].shape[0]
    scale = math.isqrt(outputs // 3)
    # Convolutions have even numbers, activations odd ones, and a convolution is the last.
    if 3 * scale**2 != outputs or layers % 2 == 0:
        return None
    # Slopes of PReLU are tensors. No tensor tells ReLU from leaky ReLU: metadata first, else ReLU.
    activation = PRELU if "body.1.weight" in file.tensors else file.metadata.get("activation", RELU)
    if activation not in {PRELU, RELU, LEAKY_RELU}:
        return None
    channels = file.tensors["body.0.weight"].shape[0]
    return CompactConfig(channels, (layers - 3) // 2, scale, activation)


def _head_and_tail(tensors: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """Return the width C, and the scale; without a known tail, the scale is None.

    The head is `(C, 3, 3, 3)`. The tail is a single `(9*C, C, 3, 3)` before a shuffle by 3, or a `(4*C, C, 3, 3)` for
    every factor of 2.
    """
    channels = tensors["head.0.weight"].shape[0]
    outputs = [tensor.shape[0] for name, tensor in tensors.items() if re.fullmatch(r"tail\.0\.\d{1,2}\.weight", name)]
    if outputs == [9 * channels]:
        return channels, 3
    return channels, 2 ** len(outputs) if set(outputs) == {4 * channels} else None


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return the highest number in the names where the pattern has its group, plus 1; 0 without a match."""
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


_ATTENTION = "body.0.body.0.body.3.conv_du.0.weight"
_COMMON = ("scale", "channels", "blocks")

# The order matters: an RCAN has a `head.0.weight` too, so files are compared with RCAN before EDSR.
KNOWN = (
    Architecture("span", ("conv_cat.weight", "upsampler.0.weight"), _span, SPAN, _COMMON),
    Architecture("rcan", ("head.0.weight", _ATTENTION), _rcan, RCAN, (*_COMMON, "groups", "attention")),
    Architecture("compact", ("body.0.weight", "body.2.weight"), _compact, Compact, (*_COMMON, "activation")),
    Architecture("edsr", ("head.0.weight", "body.0.body.0.weight"), _edsr, EDSR, (*_COMMON, "res_scale")),
)
"""All architectures, in the order in which files are compared with them."""
