"""Networks of other architectures, opened by the library spandrel (extra `spandrel`): ESRGAN, DAT, SwinIR and more.

Files are read here, without running code; spandrel only sees tensors. Facts for tiles are measured once and kept.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsclora_cli.errors import WeightsError, class_and_line, first_line
from dsclora_cli.models.spandrel_network import SpandrelNetwork, TileFacts, measure_tiles
from dsclora_cli.paths import atomic_write, read_small, sha256_of
from dsclora_cli.weights.spandrel_records import record_path
from dsclora_cli.weights.state_dict import read_tensors, require_finite_tensor

_INSTEAD = "choose a network that enlarges or restores pictures of any kind"


class UnusableSpandrel(Exception):
    """The library spandrel is not installed, or cannot be imported; the text says what would help."""


def open_foreign(path: Path) -> SpandrelNetwork | None:
    """Return the network of a file in float32, on the CPU, in eval mode; None where spandrel knows no such network.

    Raises WeightsError for an unusable network, and UnusableSpandrel where spandrel is not installed or broken.
    """
    model = _load(_import_spandrel(), path)
    if model is None:
        return None
    _check_kind(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the code of networks, for programmers
        return SpandrelNetwork(model, _facts(model, sha256_of(path))).eval()


def _import_spandrel() -> Any:  # noqa: ANN401 - spandrel is optional
    """Return the library. Raises UnusableSpandrel."""
    if find_spec("spandrel") is None:
        raise UnusableSpandrel('`pip install "dsclora[spandrel]"` opens more architectures')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import spandrel
    # torchvision, which spandrel imports, raises various exceptions where it was built for another torch.
    except Exception as error:
        reason = first_line(error)
        message = f"spandrel, which opens more architectures, cannot be imported: {reason}; does torchvision fit torch?"
        raise UnusableSpandrel(message) from error
    return spandrel


def _load(spandrel: Any, path: Path) -> Any:  # noqa: ANN401
    """Return spandrel's description of the network in a file; None for no network that spandrel knows."""
    # Names as they are come first. Old files of ESRGAN begin every name with `model.`, which belongs to the name.
    for keep_names in (True, False):
        tensors = dict(read_tensors(path, keep_names).tensors)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = require_finite_tensor(tensor, name, path).float()
        if model := _detected(spandrel, tensors, path):
            return model
    return None


def _detected(spandrel: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:  # noqa: ANN401
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return spandrel.ModelLoader().load_from_state_dict(dict(tensors)).eval()
    except spandrel.UnsupportedModelError:
        return None
    # Architectures are guessed from the names of tensors, and their code then fails in any way.
    except Exception as error:
        raise WeightsError(
            f"spandrel cannot open {path}: {class_and_line(error)[:160]}", "get the file again"
        ) from error


def _check_kind(model: Any, path: Path) -> None:  # noqa: ANN401
    """Raise WeightsError for a network that does not turn one picture of any size and kind into another."""
    name = model.architecture.name
    if model.purpose not in {"SR", "Restoration"} or model.size_requirements.square:
        raise WeightsError(f"{path} holds {name}, a network for {model.purpose}", _INSTEAD)
    channels = model.input_channels, model.output_channels
    if channels not in {(3, 3), (1, 1)}:
        raise WeightsError(f"{path} holds {name} for {channels[0]} channels in and {channels[1]} out", _INSTEAD)
    if not isinstance(model.scale, int) or not 1 <= model.scale <= 16:
        raise WeightsError(f"{path} holds {name} of scale {model.scale}", "choose a network of scale 1 to 16")


def _facts(model: Any, sha256: str) -> TileFacts:  # noqa: ANN401
    """Return the measured facts on a network, from the cache where an earlier run has measured the same file."""
    place = record_path(sha256)
    with suppress(OSError, ValueError, TypeError, RecursionError):
        return TileFacts(**json.loads(read_small(place)))
    with torch.random.fork_rng(devices=[]):
        facts = measure_tiles(model)
    # Without a cache, the network is measured again the next time.
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as temporary:
            temporary.write_text(json.dumps(asdict(facts)) + "\n", encoding="utf-8")
    return facts
