"""The state dict inside the files of other training programs: wrappers, prefixes, counters and scores around tensors.

Nothing is guessed about the network: `weights.checkpoint` loads the result strictly, name by name and shape by shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dsclora_cli.errors import WeightsError
from dsclora_cli.inference.engine import NO_NORM
from dsclora_cli.weights.limits import FORMATS_HINT
from dsclora_cli.weights.pickles import StandIn, StandInArray

_EMA = (
    "params_ema", "params-ema", "model_ema", "ema_model", "ema_state_dict", "net_g_ema", "netG_ema", "generator_ema",
    "G_ema", "g_ema", "averaged_model", "swa_model", "ema", "shadow",
)  # fmt: skip
_ONE = (
    "params", "state_dict", "model_state_dict", "net_g", "netG", "network_g", "generator", "G", "model", "net",
    "network", "module", "student", "weights", "_orig_mod",
)  # fmt: skip
_KEYS = (*_EMA, *_ONE)
"""Keys of wrappers, and first parts of names, in the order of choice: averaged weights (EMA) come first, as better."""

_OTHERS = frozenset((
    "net_d", "netD", "network_d", "discriminator", "D", "teacher", "loss", "losses", "criterion", "perceptual",
    "percep", "lpips", "vgg", "gan",
))  # fmt: skip
"""First parts of the names of tensors that belong to the training and not to the network."""

_MOST_LAYERS = 8


def unwrap(loaded: object, path: Path, keep_names: bool = False) -> dict[str, Tensor]:
    """Return tensors by name, without wrappers, counters, and (unless `keep_names`) prefixes. Raises WeightsError."""
    tensors: dict[str, Tensor] = {}
    for name, value in (_find_state(loaded, set()) or {}).items():
        found = value.tensor() if isinstance(value, StandInArray) else value
        if _is_remark(found) and name != NO_NORM:
            continue
        if not isinstance(name, str) or not isinstance(found, Tensor) or found.layout != torch.strided:
            raise WeightsError(f"{path} holds {str(name)[:80]!r}, which is not a tensor", FORMATS_HINT)
        tensors[name] = found
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name", FORMATS_HINT)
    return tensors if keep_names else _without_prefixes(tensors)


def _find_state(loaded: object, seen: set[int]) -> Mapping[object, object] | None:
    """Return the first mapping with tensors, by the order of `_KEYS`; `seen`, because a pickle can contain itself."""
    if isinstance(loaded, list | tuple) and len(loaded) == 1:
        return _find_state(loaded[0], seen | {id(loaded)}) if id(loaded) not in seen else None
    if not isinstance(loaded, Mapping) or id(loaded) in seen:
        return None
    seen.add(id(loaded))
    for key in _KEYS:
        state = _find_state(loaded.get(key), seen)
        if state is not None:
            return state
    return loaded if any(isinstance(value, Tensor | StandInArray) for value in loaded.values()) else None


def _is_remark(value: object) -> bool:
    """Return whether a value next to tensors says something about the training only: a score, a step, a counter."""
    if isinstance(value, Tensor):
        # Counters of averaged weights and of batch normalization. No network here has a tensor of whole numbers.
        return value.numel() <= 1 and not value.is_floating_point() and not value.is_complex()
    return value is None or isinstance(value, bool | int | float | str | StandIn)


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes that parallel, compiled and wrapped networks put before every name.

    Several copies of the network (`net_g.`, `net_g_ema.`), and tensors of losses and discriminators, leave one choice.
    """
    for _ in range(_MOST_LAYERS):
        firsts = {name.partition(".")[0] for name in tensors}
        key = next((key for key in _KEYS if key in firsts), None)
        if key is None or not firsts <= {*_KEYS, *_OTHERS}:
            break
        tensors = {name.removeprefix(f"{key}."): value for name, value in tensors.items() if name.startswith(f"{key}.")}
    return tensors
