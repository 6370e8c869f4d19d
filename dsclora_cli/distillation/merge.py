"""Merge an adapter into its base: `dsclora merge`. The weight arithmetic is in `models.lora.merge_adapters`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.errors import UsageError
from dsclora_cli.models.lora import merge_adapters
from dsclora_cli.paths import is_taken, sha256_of
from dsclora_cli.weights.adapters import build_adapters, load_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.resolve import find_named_weights


@dataclass(frozen=True)
class MergedFile:
    """A file of merged weights, with digests (sha256 in hex) of the files involved."""

    file: str
    """Path of the merged weights."""
    sha256: str
    """Digest of the merged weights."""
    base: str
    """Name of the base."""
    base_sha256: str
    """Digest of the base's file."""
    adapter_sha256: str
    """Digest of the adapter's file."""


def merge(
    base: str, adapter: Path, output: Path, strength: float = 1.0, force: bool = False, offline: bool = False
) -> MergedFile:
    """Merge an adapter into its base and write the network as one file of weights.

    Args:
        base: File or model name of the base.
        adapter: Adapter file from `dsclora distill`.
        output: File to write; an existing file is never replaced.
        strength: Share of the adapter to merge: 0 gives the base, 1 the adapter as trained.
        force: Merge into a base that the adapter was not trained for, if the shapes fit.
        offline: Do not access the internet.

    Raises:
        UsageError: `output` is not named .safetensors, or exists; `strength` is negative or not finite; or the base
            contains an adapter already.
        WeightsError: The adapter does not fit the base, or a file cannot be found or read.
        OutputUnwritable: `output` cannot be written.
    """
    if output.suffix.lower() != ".safetensors":
        hint = f"choose {output.with_suffix('.safetensors')}; `dsclora export` writes other formats"
        raise UsageError(f"the suffix of {output} is not .safetensors", hint)
    if is_taken(output):
        raise UsageError(f"{output} exists", "choose another name for the merged weights")
    if not 0 <= strength < math.inf:
        raise UsageError(
            f"--strength {strength:g} is not a share of an adapter", "give 0 or more; 1 is the full adapter"
        )
    found, file = find_named_weights(base, offline), load_adapters(adapter)
    if not found.is_plain:
        of = f", {found.entry.base}" if found.entry and found.entry.base else ""
        raise UsageError(f"{found.name} contains an adapter already", f"name the base of that adapter{of}")
    network = load_network(found.path)
    network = merge_adapters(network, build_adapters(network, found.sha256, file, force).scale(strength))
    adapter_sha256 = sha256_of(adapter)
    # The merged file says how it was made. Sorted keys: equal inputs give equal bytes.
    parts = {"base": found.sha256, "adapter": adapter_sha256, "adapter_training": file.training, "strength": strength}
    save_network(network, output, json.dumps(parts, sort_keys=True))
    return MergedFile(str(output), sha256_of(output), found.name, found.sha256, adapter_sha256)
