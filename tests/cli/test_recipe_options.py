"""From a command line of `dsclora train` or `dsclora distill` to a recipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsclora_cli.cli import recipe_options
from dsclora_cli.methods import DISTILL_METHODS
from dsclora_cli.recipe import EXPERT_OPTIONS, TABLES, DistillOptions, OptionField, Recipe, option_fields
from dsclora_cli.recipe_toml import READERS, recipe_to_toml, with_values

TRAIN = [table for table in TABLES if table != "distill"]


@pytest.fixture
def parsed(dsclora, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Parse a command line to a recipe; nothing is trained."""
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
    """The words of an option with a value that is not the default, and the value of its field."""
    if option.kind is bool:
        return [option.flag], True
    plain = {int: str(max(3, option.min)), float: "0.25", Path: "some/where", str: "cuda:1"}[option.kind]
    # A folder would be a second teacher of method logits, as `check_recipe` says.
    text = option.choices[-1] if option.choices else {"teacher_images": "whole"}.get(option.name, plain)
    words = {0: [option.flag, text] * 2, 1: [option.flag, text], 2: [option.flag, text, text]}[option.count]
    value = option.kind(text)
    return words, value if option.count == 1 else (value, value)


@pytest.mark.parametrize("method", ["", *DISTILL_METHODS])
def test_every_field_is_an_option(parsed, method: str) -> None:
    # `expanded` contradicts the last `arch`, and facd compares several patches.
    apart = {"expanded", "accumulate"} if method == "facd" else {"expanded"}
    given = {option.name: typed(option) for option in option_fields(*TRAIN) if option.name not in apart}
    command, empty = ("train",), Recipe()
    if method:
        command, empty = ("distill", "--method", method), Recipe(distill=DistillOptions(method=method))
        read = [each for each in option_fields("distill") if method in READERS.get(each.name, DISTILL_METHODS)]
        given |= {option.name: typed(option) for option in read if option.name != "method"}
    recipe = parsed(*command, *(word for words, _ in given.values() for word in words))
    assert recipe == with_values(empty, {name: value for name, (_, value) in given.items()})


@pytest.mark.parametrize("method", DISTILL_METHODS)
def test_options_that_a_method_does_not_read_are_refused_in_new_runs(
    dsclora, parsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    needed = {"dsclora": ("--base", "b"), "none": ()}.get(method, ("--teacher", "b"))
    command = ("distill", "--method", method, "--data", "photos", *needed)
    ignored = [option for option in option_fields("distill") if method not in READERS.get(option.name, (method,))]
    for option in ignored:
        words, value = typed(option)
        code, _, err = dsclora(*command, *words, "--out", "run")
        assert code == 2 and err.startswith(f"error: {option.flag} is of no use to method {method}"), err
        # A run of an earlier version, which passed over the option.
        if option.name != "init_adapter":  # refused in earlier versions too
            own = {"method": method, option.name: value, **{each.removeprefix("--"): "b" for each in needed[:1]}}
            kept = with_values(Recipe(distill=DistillOptions()), own)
            Path("run/recipe.toml").write_text(recipe_to_toml(kept), encoding="utf-8")
            assert parsed("distill", "--resume") == kept


def test_without_options_a_recipe_has_the_defaults(parsed) -> None:
    assert parsed("train") == Recipe()
    assert parsed("distill", "--base", "dscf-x4") == Recipe(distill=DistillOptions(base="dscf-x4"))
    continued = DistillOptions(base="dscf-x4", init_adapter=Path("a.safetensors"))
    assert parsed("distill", "--base", "dscf-x4", "--init-adapter", "a.safetensors") == Recipe(distill=continued)


def test_options_win_over_the_recipe_file_and_the_file_over_defaults(parsed, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    kept = with_values(Recipe(), {"scale": 2, "expanded": True, "data": ("photos",), "batch": 8})
    file.write_text(recipe_to_toml(kept))
    got = parsed("train", "--config", file, "--batch", 4, "--no-expanded")
    assert got == with_values(kept, {"batch": 4, "expanded": False})


def test_a_resumed_run_reads_the_recipe_in_its_folder(parsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    kept = Recipe(distill=DistillOptions(base="dscf-x4", ad=0.5))
    Path("run/recipe.toml").write_text(recipe_to_toml(kept))
    assert parsed("distill", "--resume") == kept
    assert parsed("distill", "--resume", "--threads", 2) == with_values(kept, {"threads": 2})


def test_train_learns_from_a_teachers_pictures_as_method_logits(parsed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Recipe(distill=DistillOptions(method="logits", teacher_images="answers", ts=0.8, rec=0.2))
    assert parsed("train", "--teacher-images", "answers", "--ts", 0.8, "--rec", 0.2) == kept
    assert parsed("distill", "--method", "logits", "--teacher-images", "answers", "--ts", 0.8, "--rec", 0.2) == kept
    Path("run").mkdir()
    Path("run/recipe.toml").write_text(recipe_to_toml(kept))
    for command in ("train", "distill"):
        assert parsed(command, "--resume") == kept
        assert parsed(command, "--resume", "--ts", 0.5) == with_values(kept, {"ts": 0.5})
    assert parsed("train", "--resume", "--teacher-images", "moved") == with_values(kept, {"teacher_images": "moved"})


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("train", "--ts", "0.5"),
            "error: --ts has no teacher's pictures to weigh (give --teacher-images DIR as well)",
        ),
        (
            ("train", "--teacher-images", "whole"),
            "error: --teacher-images whole needs a teacher's network (run dsclora",
        ),
        (("train", "--teacher-images", "a", "--ts", "0"), "error: --teacher-images a is of no use with --ts 0 (raise"),
        (
            ("distill", "--method", "none", "--teacher-images", "a"),
            "error: --teacher-images a is of no use to method none (give --method logits",
        ),
        (
            ("distill", "--method", "logits", "--teacher", "b", "--teacher-images", "a"),
            "error: --teacher-images a and --teacher b are two teachers (leave one",
        ),
        (
            ("distill", "--method", "logits", "--teacher", "b", "--init-adapter", "a"),
            "error: --init-adapter is of no use to method logits, which trains no adapter (leave",
        ),
        (
            ("distill", "--base", "b", "--adapters", "none", "--init-adapter", "a"),
            "error: --init-adapter is of no use to --adapters none, which trains no adapter (leave",
        ),
        (("distill", "--method", "fd", "--teacher-images", "a"), "error: method fd needs a teacher (name its weights"),
    ],
)
def test_a_teachers_pictures_that_nothing_would_read_are_refused(dsclora, arguments, line: str) -> None:
    code, _, err = dsclora(*arguments, "--data", "photos", "--out", "run")
    assert code == 2 and err.startswith(line) and err.count("\n") == 1


@pytest.mark.parametrize("table", ['method = "fd"\nteacher = "x"', 'method = "logits"\nteacher = "x"', ""])
def test_train_refuses_a_recipe_that_needs_a_network_of_a_teacher(dsclora, tmp_path: Path, table: str) -> None:
    (tmp_path / "recipe.toml").write_text(f"[distill]\n{table}\n")
    code, _, err = dsclora("train", "--config", tmp_path / "recipe.toml", "--data", "photos", "--out", "run")
    assert code == 2 and "[distill] is for dsclora distill (run dsclora distill" in err


def test_the_first_start_may_use_resume_too(parsed) -> None:
    assert parsed("train", "--resume", "--data", "photos") == with_values(Recipe(), {"data": ("photos",)})


@pytest.mark.parametrize(("option", "text"), [("--loss", "l3"), ("--device", "gpu"), ("--steps", "x"), ("--lrr", "1")])
def test_a_wrong_value_or_unknown_option_is_refused_by_name(dsclora, option: str, text: str) -> None:
    code, _, err = dsclora("train", "--data", "photos", "--out", "run", option, text)
    assert code == 2 and option in err


def test_a_command_gets_one_mapping_of_the_given_options() -> None:
    caught: list[tuple[object, ...]] = []

    @recipe_options.with_recipe_options("loss")
    def command(*, out: recipe_options.OutOption, given: recipe_options.Given, quiet: bool = False) -> None:
        caught.append((out, given, quiet))

    command(out=Path("run"), quiet=True, loss="l2", fft=None)
    assert caught == [(Path("run"), {"loss": "l2"}, True)]
    assert list(command.__annotations__) == ["out", "loss", "fft", "quiet"]


@pytest.mark.parametrize(
    ("default", "text"), [(None, ""), ((), ""), (True, "yes"), (1e-3, "0.001"), ((0.0, 0.6), "0 0.6"), ("l1", "l1")]
)
def test_format_default_writes_defaults_as_on_the_command_line(default: object, text: str) -> None:
    assert recipe_options.format_default(default) == text


@pytest.mark.parametrize(("command", "tables"), [("train", TRAIN), ("distill", TABLES)])
def test_help_shows_every_option_except_those_for_experts(dsclora, command: str, tables: list[str]) -> None:
    shown = set(re.findall(r"--[a-z][a-z-]*", dsclora(command, "--help").out))
    flags = {option.flag: option.name in EXPERT_OPTIONS for option in option_fields(*tables)}
    assert {flag for flag, expert in flags.items() if not expert} <= shown
    assert not {flag for flag, expert in flags.items() if expert} & (shown - {"--margin"})  # --condition names --margin


RUNS = {"train": Recipe(), "distill": Recipe(distill=DistillOptions(base="dscf-x4"))}


@pytest.mark.parametrize(("command", "other"), [("train", "distill"), ("distill", "train")])
@pytest.mark.parametrize("given", [(), ("--threads", "2"), ("--data", "photos")])
def test_a_run_of_the_other_command_is_named_so(dsclora, tmp_path: Path, command: str, other: str, given) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(RUNS[other]))
    code, _, err = dsclora(command, "--out", tmp_path, "--resume", *given)
    hint = f"resume it with dsclora {other} --out {tmp_path} --resume"
    assert (code, err) == (2, f"error: {tmp_path} is a run of dsclora {other} ({hint})\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("train", "--threads", "1", "--device", "cpu"), " (check --out, or start a run with --data DIR)"),
        (("train", "--teacher-images", "answers"), " (check --out, or start a run with --data DIR)"),
        (("train", "--ts", "0.5"), " (check --out, or start a run with --data DIR)"),
        (("train", "--config", "short.toml"), " (check --out, or start a run with --data DIR)"),
        (("distill",), " (check --out, or start a run with --data DIR)"),
        (("distill", "--base", "dscf-x4"), " (check --out, or start a run with --data DIR)"),
        (
            ("distill", "--data", "photos"),
            ", and no run can start: adapters need a network to adapt (check --out, or name its weights: --base FILE|",
        ),
    ],
)
def test_resume_without_a_run_and_without_the_options_to_start_one(
    dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.toml").write_text("[run]\nsteps = 4\n")
    code, _, err = dsclora(*arguments, "--out", "nowhere", "--resume")
    assert code == 2 and err.startswith(f"error: nowhere holds no run to resume{line}") and err.count("\n") == 1


def test_a_recipe_of_a_method_whose_package_is_missing_says_so(dsclora, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[distill]\nmethod = "attention"\nteacher = "x"\n')
    code, _, err = dsclora("distill", "--out", tmp_path, "--resume")
    assert code == 2 and "'attention' is not one of dsclora, logits, " in err
    assert "; if another package adds it, install that package" in err and err.count("\n") == 1
    typed = dsclora("distill", "--out", tmp_path, "--method", "attention")
    assert typed.code == 2 and "if another package adds it" in typed.err
