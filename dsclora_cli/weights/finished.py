"""Find the finished weights of a run folder, and errors for files of the user that are no weights of a network."""

from __future__ import annotations

from pathlib import Path

from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import is_file

NETWORK_FILE = "best.safetensors"
"""File of a run folder with the best network."""
ADAPTER_FILE = "adapter.safetensors"
"""File of a run folder with the best adapter; a run has a network or an adapter."""
LAST_FILE = "last.safetensors"
"""File of a run folder with the weights at the last score, a network or an adapter."""


class NoNetwork(WeightsError):
    """An adapter stands where a network is wanted, and nothing says which weights the adapter belongs to."""


def finished_weights(run: Path) -> Path | None:
    """Return the file with the finished weights of a run folder; None where nothing is finished or there."""
    return next((run / name for name in (NETWORK_FILE, ADAPTER_FILE) if is_file(run / name)), None)


def unreadable_weights(path: Path, error: OSError, hint: str = "check the path") -> WeightsError:
    """Return the error for a path that cannot be read; the hint names other weights of the same run, if any.

    For the folder of a run, the hint names the finished weights; for finished weights that the run did not keep, the
    weights of the last score.
    """
    finished = finished_weights(path)
    if finished is not None:
        return WeightsError(f"{path} is a folder, not a file of weights", f"give {finished}")
    last = path.with_name(LAST_FILE)
    if isinstance(error, FileNotFoundError) and path.name in {NETWORK_FILE, ADAPTER_FILE} and is_file(last):
        hint = f"the run kept no {path.name}; {last} holds the weights of its last score"
    return WeightsError(f"cannot read {path}: {error.strerror}", hint)
