"""The folder of a training run.

`recipe.toml` is the recipe with every default resolved, `log.jsonl` has a line for each score, and `state.pt` is the
last checkpoint, written at the start and then every few minutes. `curve.png`, `samples.png` and `tensorboard/` are for
people.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsclora_cli.claims import ProcessClaim, local_key
from dsclora_cli.errors import DscloraError, UsageError, next_step
from dsclora_cli.imaging.contact_sheet import Panel, Strip, contact_sheet, save_png
from dsclora_cli.imaging.resize import matlab_bicubic
from dsclora_cli.paths import (
    append_line,
    atomic_write,
    check_path,
    is_folder,
    is_link,
    is_taken,
    open_regular,
    state_dir,
)
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import recipe_to_toml
from dsclora_cli.training.validation import Sample

_STATE = "state.pt"
_FIRST_FILES = {"recipe.toml", "log.jsonl", "tensorboard"}
"""Files of a run that was killed before its first checkpoint."""
_NEEDED_FOR = {"plot": "matplotlib", "TensorBoard log": "tensorboard"}
_SAMPLES, _CROP = 4, 96  # pictures in `samples.png`, and the edge of their crops in LR pixels


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other processes of the user from training in a folder, which need not exist.

    Raises UsageError where another process trains there at this moment.
    """
    name = hashlib.sha256(os.fsencode(local_key(path))).hexdigest()
    claim = ProcessClaim(state_dir() / "runs" / f"{name}.lock")
    if not claim.taken:
        raise UsageError(f"another process is training in {path}", "wait for its end, or choose another --out")
    try:
        yield
    finally:
        claim.release()


def is_new_run(path: Path, resume: bool) -> bool:
    """Return whether a run in this folder starts, rather than resumes.

    Raises UsageError where the run would overwrite something.
    """
    astray = next((place for place in (path, *path.parents) if is_link(place) and not is_taken(place)), None)
    if astray is not None:
        raise UsageError(f"{astray} is a link that leads nowhere", "make what the link names, or choose another --out")
    try:
        check_path(path / _STATE)  # before a folder is made
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "choose another --out") from error
    holds_run = is_taken(path / _STATE)
    if holds_run and not resume:
        raise UsageError(f"{path} already holds a run", "resume the run with --resume, or choose another --out")
    if not holds_run and is_taken(path) and not _may_start_in(path, resume):
        raise UsageError(f"{path} already exists and holds no run", "choose another --out")
    return not holds_run


def _may_start_in(path: Path, resume: bool) -> bool:
    """Return whether a folder is empty, or holds the first files of a run that is to be resumed."""
    if not is_folder(path):
        return False
    names = {each.name for each in path.iterdir() if not each.match(".dsclora-*.part")}
    # With `--resume` only: elsewhere `recipe.toml` may be a file of the user.
    return not names or (resume and "recipe.toml" in names and names <= _FIRST_FILES)


class RunDir:
    """The files of a run in the folder `path`; nothing is written before `begin`.

    Every method that writes raises DscloraError where the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / _STATE
        self._log = path / "log.jsonl"
        self._tensorboard: Any = None
        self._is_made = self._is_unwritable = False

    def begin(self, recipe: Recipe, step: int) -> None:
        """Create the folder, write the recipe, and drop lines of the log after `step`, which come again."""
        with self._reporting():
            self._is_made = not is_taken(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path / "recipe.toml") as temporary:
                temporary.write_text(recipe_to_toml(recipe), encoding="utf-8")
            kept = [line for line in self.lines() if line["step"] <= step]
            with atomic_write(self._log) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            if find_spec("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter

                # `purge_step` makes TensorBoard drop what an earlier part of the run logged after the checkpoint.
                self._tensorboard = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1)

    def remove(self) -> None:
        """Remove the files of a new run that failed before anything was trained, and the folder if `begin` made it.

        All files stay after an error of writing, whose next step is --resume. Files of other names always stay.
        """
        if self._is_unwritable:
            return
        if self._tensorboard is not None:
            self._tensorboard.close()
        with suppress(OSError):
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            # The recipe goes last: --resume needs the recipe where the removal is cut short.
            for name in (_STATE, "curve.png", "samples.png", self._log.name, "recipe.toml"):
                (self.path / name).unlink(missing_ok=True)
            if self._is_made:
                self.path.rmdir()

    def missing(self) -> str:
        """Return a note about the files that need a missing package; empty where no package is missing."""
        absent = [part for part, module in _NEEDED_FOR.items() if find_spec(module) is None]
        parts = " and no ".join(absent)
        return f'the run folder will have no {parts}: pip install "dsclora[train]" to have both' if absent else ""

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log, without a last line that a crash cut short.

        Raises UsageError for a log that holds anything else: the log of a run cannot be made again.
        """
        if not is_taken(self._log):
            return []
        with open_regular(self._log) as file:
            whole, _, _ = file.read().rpartition(b"\n")
        return [self._checked(line, number) for number, line in enumerate(whole.splitlines(), start=1)]

    def _checked(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            read = json.loads(line)
            # The keys that the plot needs. There is no loss where every step since the line before was skipped.
            if isinstance(read["step"], int) and all(
                isinstance(read[key], kinds) for key, kinds in (("loss", int | float | None), ("psnr_y", int | float))
            ):
                return dict(read)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise UsageError(f"line {number} of {self._log} is damaged", "remove the line, then --resume")

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log, and every number of the line to TensorBoard."""
        with self._reporting():
            append_line(self._log, json.dumps(line), is_synced=True)
        if self._tensorboard is not None:
            for name, value in {**line, **line["terms"], **line["facts"]}.items():
                if isinstance(value, int | float):
                    self._tensorboard.add_scalar(name, value, line["step"])
            self._tensorboard.flush()

    def draw(self, samples: Sequence[Sample]) -> None:
        """Write the plot of the log, and crops of the first samples next to bicubic and HR."""
        with self._reporting():
            draw_curve(self.lines(), self.path / "curve.png")
            save_png(contact_sheet([_strip(sample) for sample in samples[:_SAMPLES]]), self.path / "samples.png")

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn an OSError into a DscloraError with a next step."""
        try:
            yield
        except OSError as error:
            self._is_unwritable = True
            resume = "--resume from the last checkpoint" if is_taken(self.state) else "--resume"
            hint = f"{next_step(error)}, then {resume}; or choose another --out"
            raise DscloraError(f"cannot write to {self.path}: {error.strerror}", hint) from error


def draw_curve(lines: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw loss and held-out PSNR-Y over the steps as a PNG.

    Without lines, or without matplotlib, no file is written. Raises OSError.
    """
    if find_spec("matplotlib") is None or not lines:
        return
    from matplotlib.figure import Figure

    steps = [line["step"] for line in lines]
    # A Figure of its own, not pyplot, which keeps global state and may open a window.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    losses = [math.nan if line["loss"] is None else line["loss"] for line in lines]
    axes.plot(steps, losses, color="tab:gray")
    # The loss `psnr` may be negative, and a logarithmic axis has no negative values.
    axes.set(xlabel="step", ylabel="loss (grey)", yscale="linear" if any(loss <= 0 for loss in losses) else "log")
    scores = axes.twinx()
    scores.plot(steps, [line["psnr_y"] for line in lines], color="tab:blue")
    scores.set_ylabel("held-out PSNR-Y in dB (blue)")
    with atomic_write(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _strip(sample: Sample) -> Strip:
    """Return crops of the middle of a picture: bicubic, the network's output, and HR."""
    scale = sample.hr.shape[0] // sample.lr.shape[0]
    edge = min(_CROP, *sample.lr.shape[:2])
    top, left = ((side - edge) // 2 for side in sample.lr.shape[:2])
    hr = slice(top * scale, (top + edge) * scale), slice(left * scale, (left + edge) * scale)
    bicubic = matlab_bicubic(sample.lr[top : top + edge, left : left + edge], edge * scale, edge * scale)
    results = Panel("bicubic", bicubic), Panel(f"{sample.name} {sample.psnr_y:.2f} dB", sample.sr[hr])
    return Strip(results, Panel("HR", sample.hr[hr]))
