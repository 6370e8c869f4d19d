"""The state of a training run: written whole, read back exactly, and refused by another recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.paths import written_whole
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipefile import digest


@dataclass
class Progress:
    """How far a run has come. `best` is the highest held-out PSNR-Y in dB, None before the first score."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    floor: float | None = None
    skipped: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class RunState:
    """What `save` writes and `load` restores: `parts` have `state_dict` and `load_state_dict`."""

    recipe: Recipe
    parts: dict[str, Any]
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path) -> None:
        """Write everything, whole or not at all. Raises DscloraError where there is no room for it."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"progress": asdict(self.progress), "recipe": digest(self.recipe)}
        try:
            with written_whole(path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "the disk may be full"
            hint = "the checkpoint before it is whole; make room, then --resume"
            raise DscloraError(f"cannot write {path}: {reason}", hint) from error

    def load(self, path: Path, device: torch.device) -> None:
        """Take everything up again. Raises UsageError for a file that is not one, or of another recipe."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            written_by, progress = state.pop("recipe"), state.pop("progress")
        except Exception as error:
            raise UsageError(f"{path} cannot be read as a checkpoint", "start a new run with another --out") from error
        if written_by != digest(self.recipe):
            hint = "give the options of recipe.toml beside it, or start a new run with another --out"
            raise UsageError(f"{path.parent} is a run of another recipe", hint)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for key, value in progress.items():
            setattr(self.progress, key, value)
