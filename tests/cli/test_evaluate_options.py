"""Options of `dsclora eval` and the config that they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from dsclora_cli.cli import evaluate as command
from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.evaluation import evaluate as task


def parsed(dsclora: Callable, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> EvalOptions:
    caught: list[EvalOptions] = []

    def evaluate(options: EvalOptions, observer: object) -> None:
        caught.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "evaluate", evaluate)
    assert dsclora("eval", *arguments).code == 130
    return caught[0]


def test_without_options_the_defaults_come_from_the_config(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(dsclora, monkeypatch, "-q") == EvalOptions()


def test_every_option_reaches_the_config(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(
        dsclora,
        monkeypatch,
        *("--dataset", "Set5", "--dataset", "Set14", "--data-dir", "sets", "--hr", "h", "--lr", "l", "-s", "2"),
        *("-m", "one", "--weights", "a.pth", "-m", "two", "--offline"),
        *("--protocol", "ntire", "--metric", "lpips", "--ensemble", "--cost", "--worst", "3"),
        *(
            "--device",
            "cuda:1",
            "--engine",
            "auto",
            "--dtype",
            "float16",
            "--tile",
            "128",
            "--threads",
            "3",
            "--fresh",
            "--save",
            "out",
        ),
    )
    assert options == EvalOptions(
        datasets=("Set5", "Set14"),
        data_dir=Path("sets"),
        hr=Path("h"),
        lr=Path("l"),
        scale=2,
        models=(ModelOptions("one"), ModelOptions("two"), ModelOptions(weights=Path("a.pth"))),
        protocol="ntire",
        metrics=("lpips",),
        engine=EngineOptions(device="cuda:1", dtype="float16", tile=128, threads=3, ensemble=True),
        cost=True,
        worst=3,
        save=Path("out"),
        offline=True,
        fresh=True,
    )


@pytest.mark.parametrize(("text", "tile"), [("auto", None), ("0", 0), ("64", 64)])
def test_the_tile_is_auto_whole_or_a_number(dsclora, monkeypatch, text: str, tile: int | None) -> None:
    assert parsed(dsclora, monkeypatch, "--tile", text).engine.tile == tile


def test_every_field_of_the_config_has_an_option() -> None:
    names = set(command.evaluate.__annotations__)
    many = {"datasets": "dataset", "models": "model", "metrics": "metric"}
    asked = {many.get(field.name, field.name) for field in fields(EvalOptions)} - {"engine"}
    assert asked | {field.name for field in fields(EngineOptions)} <= names
