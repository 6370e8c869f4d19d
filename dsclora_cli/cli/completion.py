"""Shell completion of model names, benchmark sets and devices: `dsclora --install-completion` switches it on.

A completion that fails offers nothing and prints nothing: the shell shows whatever a program prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from dsclora_cli.errors import DscloraError

_NVIDIA = Path("/proc/driver/nvidia/gpus")
"""Folder with an entry for each NVIDIA GPU: counting takes no time, unlike the import of torch."""


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Return the models whose names begin with `incomplete`, with a few words about each."""
    from dsclora_cli.weights.catalog import load_catalog
    from dsclora_cli.weights.hub_models import list_trusted

    try:
        entries = load_catalog().entries
    except DscloraError:  # the user's own catalog is broken
        return []
    models = {name: f"x{entry.scale} {entry.arch}, {entry.licence}" for name, entry in entries.items()}
    models |= {trusted.reference: f"on the Hub, {trusted.licence}" for trusted in list_trusted()}
    return [(name, words) for name, words in models.items() if name.startswith(incomplete)]


def complete_dataset(incomplete: str) -> list[str]:
    """Return the benchmark sets whose names begin with `incomplete`."""
    from dsclora_cli.datasets.download import SOURCES

    return [name for name in SOURCES if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings whose names begin with `incomplete`."""
    from dsclora_cli.settings import SETTINGS

    return [name for name in SETTINGS if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[tuple[str, str]]:
    """Return the methods of distillation whose names begin with `incomplete`, with the package of each."""
    from dsclora_cli.methods import DISTILL_METHODS, find_plugins

    methods = {plugin.name: f"of the package {plugin.package}" for plugin in find_plugins() if not plugin.problem}
    methods |= dict.fromkeys(DISTILL_METHODS, "of dsclora")
    return [(name, words) for name, words in methods.items() if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Return the devices that this machine seems to have and whose names begin with `incomplete`."""
    return [name for name in ("auto", "cpu", *_gpus()) if name.startswith(incomplete)]


def complete_devices(incomplete: str) -> list[str]:
    """Return devices like `complete_device`, and `all`; after a comma, the next device of a list."""
    before, comma, last = incomplete.rpartition(",")
    names = _gpus() if comma else ("auto", "all", "cpu", *_gpus())
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def _gpus() -> Iterable[str]:
    if sys.platform == "darwin":
        return ("mps",)
    try:
        count = len(list(_NVIDIA.iterdir()))
    except OSError:  # no NVIDIA driver
        return ()
    return ("cuda", *(f"cuda:{index}" for index in range(count)))
