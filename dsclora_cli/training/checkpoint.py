"""The state of a training run: written whole, read back exactly, and refused by another recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.paths import atomic_write
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import recipe_digest


@dataclass
class TrainingProgress:
    """How far a run has come, and the sums for the next line of its log.

    `best` is the highest held-out PSNR-Y in dB, None before the first score. `terms` are summed over the `counted`
    steps since the last line that were not skipped; all steps since took `worked` seconds, of which `waited` went by
    waiting for data.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    floor: float | None = None
    skipped: int = 0
    seconds: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    worked: float = 0.0
    waited: float = 0.0

    def count(self, terms: Mapping[str, float]) -> None:
        """Add the terms of a step."""
        self.counted += 1
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value

    def begin_line(self) -> None:
        """Start the sums anew."""
        self.terms, self.counted, self.worked, self.waited = {}, 0, 0.0, 0.0


@dataclass(frozen=True)
class RunState:
    """What `save` writes and `load` restores: `parts` have `state_dict` and `load_state_dict`."""

    recipe: Recipe
    parts: dict[str, Any]
    progress: TrainingProgress = field(default_factory=TrainingProgress)

    def save(self, path: Path) -> None:
        """Write everything, whole or not at all. Raises DscloraError where there is no room for it."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"progress": asdict(self.progress), "recipe": recipe_digest(self.recipe)}
        try:
            with atomic_write(path) as temporary:
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
        if written_by != recipe_digest(self.recipe):
            hint = "give the options of recipe.toml beside it, or start a new run with another --out"
            raise UsageError(f"{path.parent} is a run of another recipe", hint)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for key, value in progress.items():
            setattr(self.progress, key, value)
