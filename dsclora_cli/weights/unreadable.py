"""The error for weights of the user that cannot be read: `unreadable_weights`."""

from __future__ import annotations

from pathlib import Path

from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import is_folder

FINISHED = ("best.safetensors", "adapter.safetensors")
"""Files of a run folder with finished weights: of a network, and of an adapter."""


def unreadable_weights(path: Path, error: OSError, hint: str = "check the path") -> WeightsError:
    """Return the error for a path that cannot be read; for the folder of a run, the hint names its finished weights."""
    finished = next((path / name for name in FINISHED if is_folder(path) and (path / name).is_file()), None)
    if finished is not None:
        return WeightsError(f"{path} is a folder, not a file of weights", f"give {finished}")
    return WeightsError(f"cannot read {path}: {error.strerror}", hint)
