"""Commands that write something, each with a way to look at what is there and to run the command again to the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from batches import save_animation, save_photo
from evaluations import save_set
from hub_server import HubServer
from limited import PROGRAM, Ended, Limits, private_environment, run_limited
from sets import noise, png, tar_gz
from training import photographs

from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import save_network

REPO, FILE = "someone/2xPhotos", "models/2xPhotos.safetensors"
EMBEDDED = Path(__file__).parents[2] / "dsclora_cli" / "weights" / "embedded"

TRAIN = (
    *("--scale", "2", "--batch", "4", "--patch", "8", "--val-share", "0.3", "--threads", "1", "--offline"),
    *("--compile", "off", "--device", "cpu", "--optimiser", "adam", "--learning-rate", "0.01", "--validate", "12"),
    *("--steps", "24", "--checkpoint-minutes", "0.001"),
)
TINY = ("--channels", "4", "--blocks", "1")
UPSCALE = ("upscale", "in", "-o", "out", "--offline", "-s", "2", "--device", "cpu", "--json")
REPORTS = ("--csv", "scores.csv", "--markdown", "scores.md")
TAPS = ("--taps", "block_1.*")
PARTS = (".part", ".incomplete", ".link")
"""Suffixes of unfinished files."""


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
    """More options of the second run; with options, results may be of another step when a run is cut short."""

    refuses: bool = False
    """Whether the command refuses, with exit code 2, to replace a result that is there."""

    stdin: str = ""
    """Input that the command reads from stdin."""

    is_json: bool = False
    """Whether the report on stdout must be equal too, apart from times."""

    has_lines: bool = False
    """Whether stdout has a JSON object in a line for each input, with the result of the input."""

    serve: Callable[[], HubServer] | None = None
    """Make the Hub that the job asks."""

    def command(self, resumed: bool = False) -> tuple[str, ...]:
        """Return the command line."""
        return (*PROGRAM, *self.arguments, *(self.resume if resumed else ()))

    def start_again(self, folder: Path, environment: dict[str, str]) -> Ended:
        """Run the command to its end in a folder where it was cut short."""
        return run_limited(self.command(resumed=True), folder, environment, Limits(seconds=600), self.given(folder))

    def given(self, folder: Path) -> bytes:
        """Return the bytes for stdin."""
        return (folder / self.stdin).read_bytes() if self.stdin else b""

    def unfinished(self, folder: Path) -> list[str]:
        """Return the names of unfinished files, wherever they lie."""
        walked = ((place, name) for place, _, names in os.walk(folder) for name in names)
        return [f"{place}/{name}" for place, name in walked if name.endswith(PARTS)]

    def files(self, folder: Path) -> dict[str, bytes]:
        """Return the results that are there, by name."""
        return {name: (folder / name).read_bytes() for name in self.names(folder)}

    def names(self, folder: Path) -> list[str]:
        """Return the names of the results that are there. Hidden files are no results."""
        found = (path for glob in self.results for path in folder.glob(glob) if path.is_file())
        return [path.relative_to(folder).as_posix() for path in found if not path.name.startswith(".")]

    def told(self, stdout: str) -> list[str]:
        """Return the names of the results that the lines on stdout name."""
        return [line["output"] for line in map(json.loads, stdout.splitlines()) if line.get("status") == "done"]

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


def _prepare_many(folder: Path) -> None:
    for index in range(40):
        save_photo(folder / "in" / f"{index:02}{('.png', '.jpg', '.webp')[index % 3]}", (24, 18), seed=index)


def _prepare_training(folder: Path) -> None:
    photographs(folder / "photos")


def _prepare_base(folder: Path) -> None:
    """Write pictures, a tiny network, and an adapter for the network."""
    photographs(folder / "photos")
    torch.manual_seed(0)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2))
    save_network(network, folder / "base.safetensors", training="{}")
    adapters = Adapters(network, parse_ranks(network, "small"))
    for parameter in adapters.parameters():
        torch.nn.init.constant_(parameter, 0.03)
    save_adapters(adapters, folder / "adapter.safetensors", sha256_of(folder / "base.safetensors"), "{}")


def _prepare_video(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frames = (b"FRAME\n" + rng.integers(0, 256, 32 * 24 * 3 // 2, np.uint8).tobytes() for _ in range(6))
    (folder / "in.y4m").write_bytes(b"YUV4MPEG2 W32 H24 F25:1 Ip A1:1 C420jpeg\n" + b"".join(frames))


def _prepare_set(folder: Path) -> None:
    save_set(folder / "hr")


def _prepare_nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _weights_hub() -> HubServer:
    weights = next(EMBEDDED.glob("dsclora-x2*.safetensors")).read_bytes()
    # Slow enough that most moments of the process lie in the download.
    return HubServer(REPO, {FILE: weights}, delay=0.2)


def _set_hub() -> HubServer:
    pictures = {f"Set5_HR/{seed}.png": png(noise(seed, (100, 80))) for seed in range(5)}
    return HubServer("datasets/eugenesiow/Set5", {"data/Set5_HR.tar.gz": tar_gz(pictures)}, delay=0.2)


JOBS = {
    job.name: job
    for job in (
        Job(
            "folder of pictures",
            _prepare_pictures,
            UPSCALE,
            ("out/*",),
            has_lines=True,
        ),
        Job(
            "many small pictures",
            _prepare_many,
            UPSCALE,
            ("out/*",),
            has_lines=True,
        ),
        Job(
            "video",
            _prepare_video,
            ("frames", "-o", "out.y4m", "--offline", "-s", "2", "--device", "cpu"),
            ("out.y4m",),
            stdin="in.y4m",
            refuses=True,
        ),
        Job(
            "training",
            _prepare_training,
            ("train", "--data", "photos", "--out", "run", *TRAIN, *TINY),
            ("run/best.safetensors", "run/last.safetensors"),
            resume=("--resume",),
        ),
        Job(
            "distillation",
            _prepare_base,
            (
                "distill",
                "--base",
                "base.safetensors",
                "--data",
                "photos",
                "--out",
                "run",
                *TRAIN,
                "--taps",
                "block_1.*",
            ),
            ("run/adapter.safetensors", "run/last.safetensors"),
            resume=("--resume",),
        ),
        Job(
            "merge",
            _prepare_base,
            ("merge", "base.safetensors", "adapter.safetensors", "-o", "mine.safetensors", "--offline"),
            ("mine.safetensors",),
            refuses=True,
        ),
        Job(
            "evaluation",
            _prepare_set,
            ("eval", "--hr", "hr", "-s", "4", "-m", "dsclora-x4", "--offline", "--save", "saved", "--json", *REPORTS),
            ("saved/**/*.png",),
            is_json=True,
        ),
        Job(
            "download",
            _prepare_nothing,
            ("models", "fetch", f"hf://{REPO}/{FILE}"),
            ("home/hf/hub/models--someone--2xPhotos/snapshots/**/*.safetensors",),
            serve=_weights_hub,
        ),
        Job(
            "benchmark set",
            _prepare_nothing,
            ("eval", "--dataset", "Set5", "-s", "4", "-m", "dsclora-x4", "--json"),
            ("home/cache/datasets/**/*.png",),
            serve=_set_hub,
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
    if job.serve is None:
        yield {}
        return
    with job.serve() as server:
        yield {"HF_ENDPOINT": server.url}


def environment_of(folder: Path, served: dict[str, str]) -> dict[str, str]:
    """Return the environment of a job in a folder."""
    return private_environment(folder / "home", **served)
