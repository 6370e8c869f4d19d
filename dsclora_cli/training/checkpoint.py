"""Checkpoints of a training run: written atomically, loaded exactly, and refused for another recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dsclora_cli.errors import DscloraError, UsageError, next_step
from dsclora_cli.paths import atomic_write, is_taken, open_regular
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import differing_options, read_recipe, recipe_digest
from dsclora_cli.weights.finished import ADAPTER_FILE, finished_weights


@dataclass
class TrainingProgress:
    """How far a run has come, and the sums for the next line of the log. Field names are keys of the checkpoint."""

    step: int = 0
    """Number of steps taken."""
    best: float | None = None
    """Highest held-out PSNR-Y in dB, the baseline included; None before the first score."""
    best_step: int = 0
    """Step of the best score; 0 for the baseline or without a score."""
    floor: float | None = None
    """Held-out PSNR-Y of the baseline in dB; None without a baseline."""
    skipped: int = 0
    """Number of steps skipped so far because the loss or the gradient was not finite."""
    seconds: float = 0.0
    """Seconds of training and scoring up to the last line of the log."""
    terms: dict[str, float] = field(default_factory=dict)
    """Sums of the loss terms since the last line of the log, by name."""
    counted: int = 0
    """Number of steps in `terms`: steps since the last line of the log that were not skipped."""
    worked: float = 0.0
    """Seconds of all steps since the last line of the log, waiting included."""
    waited: float = 0.0
    """Seconds of `worked` that passed in waiting for data."""

    def count(self, terms: Mapping[str, float]) -> None:
        """Add the terms of a step to the sums."""
        self.counted += 1
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value


@dataclass(frozen=True)
class RunState:
    """The state of a run that a checkpoint holds."""

    recipe: Recipe
    """A checkpoint of another recipe is refused, unless the two lead to the same weights."""
    content: str
    """Digest of the content of all pictures and weights that the recipe names."""
    parts: dict[str, Any]
    """Objects with `state_dict` and `load_state_dict`, by their keys in the file."""
    progress: TrainingProgress
    """Loading changes the fields in place."""
    meaning: str = ""
    """What the recipe means, where earlier versions would have trained something else: `TrainingSetup.meaning`."""

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically. Raises DscloraError where the disk is full or not writable."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"progress": asdict(self.progress), "recipe": recipe_digest(self.recipe)}
        state |= {"settings": recipe_digest(self.recipe, files=False), "content": self.content}
        state |= {"meaning": self.meaning}
        try:
            with atomic_write(path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            # PyTorch's zip writer raises RuntimeError, without a reason, when a write fails.
            reason = getattr(error, "strerror", None) or "the disk may be full"
            intact = "the previous checkpoint is intact; " if is_taken(path) else ""
            hint = f"{intact}{next_step(error)}, then --resume"
            raise DscloraError(f"cannot write {path}: {reason}", hint) from error

    def load(self, path: Path, device: torch.device) -> str:
        """Restore all parts and the progress, and return a note, empty where the run resumes as it was.

        Folders and files of the recipe may have moved; then their content must be the same.

        Raises UsageError for a damaged file, another recipe or another meaning of the recipe, or other pictures or
        weights in another place.
        """
        try:
            # `weights_only` refuses pickled code, so a checkpoint from elsewhere can do no harm.
            with open_regular(path) as file:
                state = torch.load(file, map_location=device, weights_only=True)
            written_by, progress = state.pop("recipe"), state.pop("progress")
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror})", "check the permissions") from error
        except Exception as error:
            raise UsageError(f"{path} cannot be read as a checkpoint", "start a new run with another --out") from error
        # Checkpoints of older versions know nothing of the content.
        settings, content = state.pop("settings", None), state.pop("content", None)
        if written_by != recipe_digest(self.recipe):
            if settings != recipe_digest(self.recipe, files=False):
                raise self._another_recipe(path.parent)
            if content != self.content:
                hint = "give the files of the run, wherever they are now, or start a new run with another --out"
                raise UsageError(f"{path.parent} is a run of other pictures or weights", hint)
        if (began := state.pop("meaning", "")) != self.meaning:
            what = f"with {began}" if began else f"in an earlier version, without {self.meaning}"
            raise UsageError(f"{path.parent} began {what}", "start a new run with another --out")
        try:
            self._restore(state, progress)
        # The parts of torch trust their own files, and raise nearly everything for others.
        except Exception as error:
            raise UsageError(f"{path} cannot be read as a checkpoint", "start a new run with another --out") from error
        changed = content not in {None, self.content}
        return "the pictures or weights of the run have changed since its last checkpoint" if changed else ""

    def _another_recipe(self, run: Path) -> UsageError:
        """Return the error for a run folder of another recipe, with the options that differ from the recipe there."""
        try:
            names = differing_options(read_recipe(run / "recipe.toml"), self.recipe)
        except DscloraError:
            names = []
        other = f" with other {', '.join(names)}" if names else ""
        finished = finished_weights(run)
        if not names:
            hint = "recipe.toml in that folder has changed since; undo that, or start a new run with another --out"
        elif names == ["steps"] and finished is not None:
            option = "--init-adapter" if finished.name == ADAPTER_FILE else "--init"
            hint = f"train on in a new run: {option} {finished} and another --out"
        else:
            hint = "give the options of recipe.toml in the same folder, or start a new run with another --out"
        return UsageError(f"{run} is a run of another recipe{other}", hint)

    def _restore(self, state: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Load all parts and the progress. Raises any exception for a file that another program has changed."""
        restored = TrainingProgress(**progress)
        if progress["step"].bit_length() > 62 or progress["step"] < 0:  # AttributeError for other types
            raise ValueError("no step")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for key, value in vars(restored).items():
            setattr(self.progress, key, value)
