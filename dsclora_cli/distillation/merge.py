"""A base and an adapter become one file of weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.errors import UsageError
from dsclora_cli.models.lora import merge_adapters
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import build_adapters, load_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.resolve import find_named_weights


@dataclass(frozen=True)
class Merged:
    """The file that was written, its sha256, and those of what it was made from."""

    file: str
    sha256: str
    base: str
    base_sha256: str
    adapter_sha256: str


def merge(
    base: str, adapter: Path, output: Path, strength: float = 1.0, force: bool = False, offline: bool = False
) -> Merged:
    """Write the network that `base`, a file or a name, becomes with an adapter. An existing file is never replaced.

    `strength` is the share of the adapter that is merged: 0 is the base, 1 the adapter as it was trained. `force` takes
    the adapter over another base than its own as long as the shapes fit.
    Raises UsageError where `output` exists or `strength` is not a finite number from 0, and WeightsError where the
    adapter is not one for this base.
    """
    if output.exists():
        raise UsageError(f"{output} exists", "choose another name for the merged weights")
    if not 0 <= strength < math.inf:
        raise UsageError(f"--strength {strength:g} is no share of an adapter", "give a number from 0, mostly up to 1")
    found, file = find_named_weights(base, offline), load_adapters(adapter)
    network = load_network(found.path)
    network = merge_adapters(network, build_adapters(network, found.sha256, file, force).scale(strength))
    adapter_sha256 = sha256_of(adapter)
    parts = {"base": found.sha256, "adapter": adapter_sha256, "adapter_training": file.training, "strength": strength}
    save_network(network, output, json.dumps(parts, sort_keys=True))
    return Merged(str(output), sha256_of(output), found.name, found.sha256, adapter_sha256)
