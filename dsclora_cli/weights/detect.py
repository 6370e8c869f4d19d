"""Which network a file holds, read off its tensors: one function for each architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dsclora_cli.errors import WeightsError
from dsclora_cli.models.edsr import EDSR, EdsrConfig, usual_res_scale
from dsclora_cli.models.network import Network, NetworkConfig
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.state_dict import TensorFile

LIMITS = {"channels": (1, 1024), "blocks": (1, 64), "groups": (1, 64), "attention": (1, 1024), "scale": (2, 16)}
NO_NORM = "no_norm"  # an empty-valued buffer by which community files say that RGB is taken as it is
HINT = "expected a SPAN or DSCLoRA network, merged or in training form, an EDSR or an RCAN"


@dataclass(frozen=True)
class Architecture:
    """An architecture, and how a file shows it.

    A file with all of `layers`, weights of convolutions, has it. `config` reads its shape, and gives None where sizes
    do not fit together; `stated` are the fields of the shape that the metadata of our own files repeat.
    """

    name: str
    layers: tuple[str, ...]
    config: Callable[[TensorFile], NetworkConfig | None]
    network: Callable[[Any], Network]
    stated: tuple[str, ...]


def detect_architecture(file: TensorFile, path: Path) -> tuple[Architecture, NetworkConfig]:
    """The architecture of a file and its network's shape. Raises WeightsError where it holds none that upscales."""
    architecture = next((each for each in KNOWN if all(_is_layer(file.tensors, name) for name in each.layers)), None)
    if architecture is None:
        raise WeightsError(f"{path} is no network that we know: it holds {list_some(file.tensors)}", HINT)
    config = architecture.config(file)
    if config is None or any(not low <= size <= high for size, low, high in _sizes(config)):
        sizes = "with layers that do not fit together" if config is None else f"of {_shape(config)}"
        raise WeightsError(f"{path} is no {architecture.name} network that upscales, but one {sizes}", HINT)
    for key in architecture.stated:
        stated, found = file.metadata.get(key), str(getattr(config, key))
        if stated is not None and stated != found:
            raise WeightsError(f"{path} says {key} {stated[:20]!r} but its tensors have {found}", HINT)
    return architecture, config


def architecture_of(network: Network) -> Architecture:
    """That of a network."""
    return next(each for each in KNOWN if each.name == network.config.descriptor.arch)


def list_some(names: Iterable[str]) -> str:
    """A few of the names and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - 3} more" if len(every) > 3 else ""
    return ", ".join(name[:80] for name in every[:3]) + more


def _is_layer(tensors: Mapping[str, Tensor], name: str) -> bool:
    return name in tensors and tensors[name].ndim == 4


def _sizes(config: NetworkConfig) -> Iterator[tuple[int, int, int]]:
    return ((getattr(config, key), *limits) for key, limits in LIMITS.items() if hasattr(config, key))


def _shape(config: NetworkConfig) -> str:
    return ", ".join(f"{key} {getattr(config, key)}" for key in LIMITS if hasattr(config, key))


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number that names show where the pattern has its group."""
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _span(file: TensorFile) -> SpanConfig | None:
    tensors = file.tensors
    channels, outputs = tensors["conv_cat.weight"].shape[0], tensors["upsampler.0.weight"].shape[0]
    scale = math.isqrt(outputs // 3)
    if 3 * scale**2 != outputs:
        return None
    blocks = _count(tensors, r"block_(\d{1,4})\.") - 1
    return SpanConfig(channels, blocks, scale, NO_NORM not in tensors, any(".sk." in name for name in tensors))


def _edsr(file: TensorFile) -> EdsrConfig | None:
    channels, scale = _head_and_tail(file.tensors)
    blocks = _count(file.tensors, r"body\.(\d{1,4})\.body\.")
    try:
        res_scale = float(file.metadata.get("res_scale", usual_res_scale(channels)))
    except ValueError:
        return None
    return EdsrConfig(channels, blocks, scale, res_scale) if scale and math.isfinite(res_scale) else None


def _rcan(file: TensorFile) -> RcanConfig | None:
    channels, scale = _head_and_tail(file.tensors)
    groups = _count(file.tensors, r"body\.(\d{1,4})\.body\.")
    blocks = _count(file.tensors, r"body\.0\.body\.(\d{1,4})\.body\.")
    attention = file.tensors[_ATTENTION].shape[0]
    return RcanConfig(channels, blocks, scale, groups, attention) if scale else None


def _head_and_tail(tensors: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """The width, and the scale: one convolution before a shuffle by 3, or some before shuffles by 2, else None."""
    channels = tensors["head.0.weight"].shape[0]
    outputs = [tensor.shape[0] for name, tensor in tensors.items() if re.fullmatch(r"tail\.0\.\d{1,2}\.weight", name)]
    if outputs == [9 * channels]:
        return channels, 3
    return channels, 2 ** len(outputs) if set(outputs) == {4 * channels} else None


_ATTENTION = "body.0.body.0.body.3.conv_du.0.weight"
_COMMON = ("scale", "channels", "blocks")
KNOWN = (
    Architecture("span", ("conv_cat.weight", "upsampler.0.weight"), _span, SPAN, _COMMON),
    Architecture("rcan", ("head.0.weight", _ATTENTION), _rcan, RCAN, (*_COMMON, "groups", "attention")),
    Architecture("edsr", ("head.0.weight", "body.0.body.0.weight"), _edsr, EDSR, (*_COMMON, "res_scale")),
)
"""In the order in which files are compared with them."""
