"""Commands that write something, each with a way to look at what is there and to run the command again to the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batches import save_animation, save_photo
from evaluations import save_set
from hub_server import HubServer
from limited import PROGRAM, Ended, Limits, private_environment, run_limited
from training import photographs

REPO, FILE = "someone/2xPhotos", "models/2xPhotos.safetensors"
EMBEDDED = Path(__file__).parents[2] / "dsclora_cli" / "weights" / "embedded"

TRAIN = (
    *("--channels", "4", "--blocks", "1", "--scale", "2", "--batch", "4", "--patch", "8", "--val-share", "0.3"),
    *("--compile", "off", "--device", "cpu", "--optimiser", "adam", "--learning-rate", "0.01", "--validate", "20"),
    *("--steps", "60", "--checkpoint-minutes", "0.001"),
)


@dataclass(frozen=True)
class Job:
    """A command in a folder of its own."""

    name: str

    prepare: Callable[[Path], None]
    """Write the inputs into an empty folder."""

    arguments: tuple[str, ...]

    results: tuple[str, ...]
    """Globs of the files that must be whole whenever they are there, and equal after every run."""

    resume: tuple[str, ...] = ()
    """Options of the second run."""

    fresh_without: str = ""
    """A file without which the second run starts as the first one did, instead of with `resume`."""

    is_json: bool = False
    """Whether the report on stdout must be equal too, apart from times."""

    is_served: bool = False
    """Whether the job asks a Hub."""

    def command(self, resumed: bool = False) -> tuple[str, ...]:
        """Return the command line."""
        return (*PROGRAM, *self.arguments, *(self.resume if resumed else ()))

    def start_again(self, folder: Path, environment: dict[str, str]) -> Ended:
        """Run the command to its end in a folder where it was cut short."""
        resumed = not self.fresh_without or (folder / self.fresh_without).exists()
        if not resumed:
            shutil.rmtree((folder / self.fresh_without).parent, ignore_errors=True)
        return run_limited(self.command(resumed), folder, environment, Limits(seconds=600))

    def files(self, folder: Path) -> dict[str, bytes]:
        """Return the results that are there, by name. Hidden files are no results."""
        found = (path for glob in self.results for path in folder.glob(glob) if path.is_file())
        shown = (path for path in found if not path.name.startswith("."))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in shown}

    def report(self, ended: Ended) -> object:
        """Return the part of the report that must be equal after every run."""
        return _without_times(json.loads(ended.stdout)) if self.is_json else None


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if "second" not in key and key != "cached"}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _prepare_pictures(folder: Path) -> None:
    for index, suffix in enumerate((".png", ".jpg", ".webp", ".tif", ".png", ".jpg", ".bmp", ".tif")):
        save_photo(folder / "in" / f"{index}{suffix}", (320, 240), seed=index)
    save_animation(folder / "in" / "moving.gif")


def _prepare_set(folder: Path) -> None:
    save_set(folder / "hr")


def _prepare_nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


JOBS = {
    job.name: job
    for job in (
        Job(
            "folder of pictures",
            _prepare_pictures,
            ("upscale", "in", "-o", "out", "--offline", "-s", "2", "--device", "cpu"),
            ("out/*",),
        ),
        Job(
            "training",
            lambda folder: (photographs(folder / "photos"), None)[1],
            ("train", "--data", "photos", "--out", "run", *TRAIN),
            ("run/best.safetensors", "run/last.safetensors"),
            resume=("--resume",),
            fresh_without="run/recipe.toml",
        ),
        Job(
            "evaluation",
            _prepare_set,
            ("eval", "--hr", "hr", "-s", "4", "-m", "dsclora-x4", "--offline", "--save", "saved", "--json"),
            ("saved/**/*.png",),
            is_json=True,
        ),
        Job(
            "download",
            _prepare_nothing,
            ("models", "fetch", f"hf://{REPO}/{FILE}"),
            ("home/hf/hub/models--someone--2xPhotos/snapshots/**/*.safetensors",),
            is_served=True,
        ),
        Job(
            "conversion",
            _prepare_nothing,
            ("export", "dsclora-x4", "-o", "made.safetensors", "--format", "spandrel", "--offline", "--overwrite"),
            ("made.safetensors",),
        ),
    )
}
"""Jobs by name."""


@contextmanager
def hub(job: Job) -> Iterator[dict[str, str]]:
    """Run the Hub that a job asks, and yield the variables that lead there; no Hub for a job that asks none."""
    if not job.is_served:
        yield {}
        return
    weights = next(EMBEDDED.glob("dsclora-x2*.safetensors")).read_bytes()
    # Slow enough that most moments of the process lie in the download.
    with HubServer(REPO, {FILE: weights}, delay=0.2) as server:
        yield {"HF_ENDPOINT": server.url}


def environment_of(folder: Path, served: dict[str, str]) -> dict[str, str]:
    """Return the environment of a job in a folder."""
    return private_environment(folder / "home", **served)
