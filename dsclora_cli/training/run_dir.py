"""The folder of a training run: what it was told, what it measured, and pictures of both.

`recipe.toml` the resolved recipe; `log.jsonl` a line for each score; `state.pt` the last checkpoint, there from the
start; `curve.png`, `samples.png` and `tensorboard/` for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.imaging.contact_sheet import Panel, Strip, contact_sheet, save_png
from dsclora_cli.imaging.resize import matlab_bicubic
from dsclora_cli.paths import atomic_write
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import recipe_to_toml
from dsclora_cli.training.validation import Sample

_STATE = "state.pt"
_DRAWN_BY = {"plot": "matplotlib", "TensorBoard log": "tensorboard"}
_SHOWN, _CROP = 4, 96  # pictures of the sample sheet, and the edge of their crops in LR pixels


def is_new_run(path: Path, resume: bool) -> bool:
    """Whether a run in this folder starts, rather than goes on.

    Raises UsageError where it would overwrite something.
    """
    holds_run = (path / _STATE).exists()
    if holds_run and not resume:
        raise UsageError(f"{path} holds a run already", "go on with --resume, or choose another --out")
    if not holds_run and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already and holds no run", "choose another --out")
    return not holds_run


class RunDir:
    """The files of one run below `path`; nothing is written before `begin`.

    Whatever writes raises DscloraError where it cannot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / _STATE
        self._log = path / "log.jsonl"
        self._board: Any = None

    def begin(self, recipe: Recipe, step: int) -> None:
        """Make the folder, write the recipe, and drop what was logged after `step`: it is measured again."""
        with self._told():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "recipe.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
            kept = [line for line in self.lines() if line["step"] <= step]
            with atomic_write(self._log) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            self._board = _open_board(self.path / "tensorboard", step)

    def missing(self) -> str:
        """What the folder will lack, as a sentence; empty where nothing is."""
        absent = [part for part, module in _DRAWN_BY.items() if find_spec(module) is None]
        parts = " and no ".join(absent)
        return f"no {parts} in the run folder: pip install 'dsclora[train]' for them" if absent else ""

    def lines(self) -> list[dict[str, Any]]:
        """The log so far, without a last line that a crash cut short."""
        if not self._log.exists():
            return []
        whole, _, _ = self._log.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log, and its numbers to TensorBoard."""
        with self._told(), self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in {**line, **line["terms"], **line["facts"]}.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, line["step"])
            self._board.flush()

    def draw(self, samples: Sequence[Sample]) -> None:
        """Renew the plot of the log and the sheet of samples."""
        with self._told():
            draw_curve(self.lines(), self.path / "curve.png")
            save_png(contact_sheet([_strip(sample) for sample in samples[:_SHOWN]]), self.path / "samples.png")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A folder that cannot be written is told in one line."""
        try:
            yield
        except OSError as error:
            hint = "make room or choose another --out; --resume goes on from a checkpoint"
            raise DscloraError(f"cannot write to {self.path}: {error.strerror}", hint) from error


def _strip(sample: Sample) -> Strip:
    """The middle of a picture: bicubic, the network, HR."""
    scale = sample.hr.shape[0] // sample.lr.shape[0]
    edge = min(_CROP, *sample.lr.shape[:2])
    top, left = ((side - edge) // 2 for side in sample.lr.shape[:2])
    hr = slice(top * scale, (top + edge) * scale), slice(left * scale, (left + edge) * scale)
    bicubic = matlab_bicubic(sample.lr[top : top + edge, left : left + edge], edge * scale, edge * scale)
    results = Panel("bicubic", bicubic), Panel(f"{sample.name} {sample.psnr_y:.2f} dB", sample.sr[hr])
    return Strip(results, Panel("HR", sample.hr[hr]))


def _open_board(folder: Path, step: int) -> Any | None:  # noqa: ANN401 - an optional package has no types here
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def draw_curve(lines: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Loss and held-out PSNR-Y over the steps as a PNG; nothing where matplotlib is not installed or nothing is logged.

    Raises OSError.
    """
    if find_spec("matplotlib") is None or not lines:
        return
    from matplotlib.figure import Figure

    steps = [line["step"] for line in lines]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    losses = [line["loss"] for line in lines]
    axes.plot(steps, losses, color="tab:grey")
    axes.set(xlabel="step", ylabel="loss (grey)", yscale="log" if min(losses) > 0 else "linear")
    scores = axes.twinx()
    scores.plot(steps, [line["psnr_y"] for line in lines], color="tab:blue")
    scores.set_ylabel("held-out PSNR-Y in dB (blue)")
    with atomic_write(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
