"""From weights that were found to a network."""

from __future__ import annotations

from dsclora_cli.model.network import Network
from dsclora_cli.weights.adapters import apply_adapters, load_adapters
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import FoundWeights


def open_network(found: FoundWeights) -> Network:
    """The network in merged form, with its adapter merged in where it has one. Raises WeightsError."""
    network = load_network(found.path)
    if found.adapter is None:
        return network
    return apply_adapters(network, found.base_sha256, load_adapters(found.adapter))
