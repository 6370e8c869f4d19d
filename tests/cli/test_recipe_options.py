"""From the words after `dsclora train` and `dsclora distill` to a recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsclora_cli.cli import recipe_options
from dsclora_cli.recipe import TABLES, DistillOptions, OptionField, Recipe, option_fields
from dsclora_cli.recipe_toml import recipe_to_toml, with_values

TRAIN = [table for table in TABLES if table != "distill"]


@pytest.fixture
def parsed(dsclora, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """The recipe that a command line leads to; nothing is trained."""
    caught: list[Recipe] = []

    def task(recipe: Recipe, *_: object) -> None:
        caught.append(recipe)
        raise KeyboardInterrupt

    class Task:
        train = distill = staticmethod(task)

    for name in ("training.train", "distillation.distill"):
        monkeypatch.setitem(sys.modules, f"dsclora_cli.{name}", Task)

    def run(*arguments: object) -> Recipe:
        assert dsclora(*arguments, "--out", "run").code == 130
        return caught.pop()

    return run


def typed(option: OptionField) -> tuple[list[str], Any]:
    """An option as people type it, with another value than its default, and what its field is to hold."""
    if option.kind is bool:
        return [option.flag], True
    plain = {int: str(max(3, option.min)), float: "0.25", Path: "some/where", str: "cuda:1"}[option.kind]
    text = option.choices[-1] if option.choices else plain
    words = {0: [option.flag, text] * 2, 1: [option.flag, text], 2: [option.flag, text, text]}[option.count]
    value = option.kind(text)
    return words, value if option.count == 1 else (value, value)


@pytest.mark.parametrize(("command", "tables"), [("train", TRAIN), ("distill", TABLES)])
def test_every_field_is_an_option(parsed, command: str, tables: list[str]) -> None:
    # `expanded` contradicts the last `arch`; that it is an option is seen below.
    given = {option.name: typed(option) for option in option_fields(*tables) if option.name != "expanded"}
    recipe = parsed(command, *(word for words, _ in given.values() for word in words))
    empty = Recipe(distill=DistillOptions() if "distill" in tables else None)
    assert recipe == with_values(empty, {name: value for name, (_, value) in given.items()})


def test_without_options_everything_is_as_the_defaults_say(parsed) -> None:
    assert parsed("train") == Recipe()
    assert parsed("distill", "--base", "dscf-x4") == Recipe(distill=DistillOptions(base="dscf-x4"))


def test_options_come_before_the_file_and_the_file_before_defaults(parsed, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    kept = with_values(Recipe(), {"scale": 2, "expanded": True, "data": ("photos",), "batch": 8})
    file.write_text(recipe_to_toml(kept))
    got = parsed("train", "--config", file, "--batch", 4, "--no-expanded")
    assert got == with_values(kept, {"batch": 4, "expanded": False})


def test_a_run_that_goes_on_has_its_own_recipe(parsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    kept = Recipe(distill=DistillOptions(base="dscf-x4", ad=0.5))
    Path("run/recipe.toml").write_text(recipe_to_toml(kept))
    assert parsed("distill", "--resume") == kept
    assert parsed("distill", "--resume", "--threads", 2) == with_values(kept, {"threads": 2})


def test_the_first_start_may_say_resume_too(parsed) -> None:
    assert parsed("train", "--resume", "--data", "photos") == with_values(Recipe(), {"data": ("photos",)})


@pytest.mark.parametrize(("option", "text"), [("--loss", "l3"), ("--device", "gpu"), ("--steps", "x"), ("--lrr", "1")])
def test_what_no_option_can_be_is_refused_by_name(dsclora, option: str, text: str) -> None:
    code, _, err = dsclora("train", "--data", "photos", "--out", "run", option, text)
    assert code == 2 and option in err


def test_a_command_gets_one_mapping_of_what_was_given() -> None:
    caught: list[tuple[object, ...]] = []

    @recipe_options.with_recipe("loss")
    def command(*, out: recipe_options.Out, given: recipe_options.Given, quiet: bool = False) -> None:
        caught.append((out, given, quiet))

    command(out=Path("run"), quiet=True, loss="l2", fft=None)
    assert caught == [(Path("run"), {"loss": "l2"}, True)]
    assert list(command.__annotations__) == ["out", "loss", "fft", "quiet"]


@pytest.mark.parametrize(
    ("default", "text"), [(None, ""), ((), ""), (True, "yes"), (1e-3, "0.001"), ((0.0, 0.6), "0 0.6"), ("l1", "l1")]
)
def test_defaults_are_shown_as_people_write_them(default: object, text: str) -> None:
    assert recipe_options.shown(default) == text
