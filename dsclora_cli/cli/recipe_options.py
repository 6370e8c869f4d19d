"""Options of `dsclora train` and `dsclora distill`: an option for each field of a recipe, and the run folder.

`recipe` defines the fields. `with_recipe_options` adds the options to a command, and `resolve_recipe` makes a recipe of
what was given.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from dsclora_cli.cli.completion import complete_device, complete_method, complete_model
from dsclora_cli.cli.options import option, parse_device, parse_pixels
from dsclora_cli.errors import UsageError
from dsclora_cli.paths import is_taken
from dsclora_cli.recipe import EXPERT_OPTIONS, DistillOptions, OptionField, Recipe, option_fields
from dsclora_cli.recipe_toml import check_recipe, read_recipe, with_values

_RUN_FOLDER = "Run folder"
_SHORT_FLAGS = {"scale": ("-s",)}
_PARSERS: Mapping[str, Callable[[str], Any]] = {"device": parse_device, "max_pixels": parse_pixels}
_COMPLETIONS: Mapping[str, Callable[[str], Any]] = {
    "device": complete_device,
    "method": complete_method,
    **dict.fromkeys(("base", "teacher", "init"), complete_model),
}

_TEACHER_WEIGHTS = ("rec", "ts", "spectrum", "spectrum_block")
TEACHER_PICTURES = tuple(
    replace(
        field, metavar="DIR", help="Folder of a teacher's pictures to learn from, by name, at HR size.", default=None
    )
    if field.name == "teacher_images"
    else replace(field, help=f"With --teacher-images: {field.help[0].lower()}{field.help[1:]}")
    for field in option_fields("distill")
    if field.name in {"teacher_images", *_TEACHER_WEIGHTS}
)
"""Options of `dsclora train` that stand in `[distill]`: a folder of a teacher's pictures, and the terms of the loss."""

Given = Mapping[str, Any]
"""Values by field name of the recipe options that were given on the command line."""

OutOption = Annotated[
    Path, option(_RUN_FOLDER, "Folder for everything that the run writes.", "-o", "--out", metavar="RUN")
]
ConfigOption = Annotated[
    Path | None,
    option(_RUN_FOLDER, "Recipe to start from; options on the command line win.", "--config", metavar="RECIPE.toml"),
]
ResumeOption = Annotated[
    bool, option(_RUN_FOLDER, "Resume the run in --out with the recipe in that folder.", "--resume")
]
RunOfflineOption = Annotated[
    bool, option(_RUN_FOLDER, "Do not access the internet; use the files on this machine.", "--offline")
]


def with_recipe_options(
    *tables: str, second_flags: Mapping[str, str] = MappingProxyType({}), more: Sequence[OptionField] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for every field of some recipe tables.

    The options replace the command's parameter `given`, which receives the values from the command line. The help shows
    every table in a panel of its own and leaves out the options for experts.

    Args:
        tables: Names of tables, in the order of the panels.
        second_flags: A second flag of some fields, by field name.
        more: Fields of other tables, shown after the tables.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # Typer reads the signature of a command, so the options are parameters in a signature made here.
        options = [_parameter(field, second_flags.get(field.name)) for field in (*option_fields(*tables), *more)]
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            parameters += options if parameter.name == "given" else [parameter]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:  # noqa: ANN401 - as many types as options
            recipe_values = {parameter.name: values.pop(parameter.name) for parameter in options}
            # Typer passes None or an empty list for an option that was not given.
            given = {name: tuple(v) if isinstance(v, list) else v for name, v in recipe_values.items()}
            command(given={name: value for name, value in given.items() if value not in (None, ())}, **values)

        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_options

    return decorate


def _parameter(field: OptionField, second_flag: str | None) -> inspect.Parameter:
    kind: Any = {0: list[field.kind], 1: field.kind, 2: tuple[field.kind, field.kind]}[field.count]  # type: ignore[name-defined]
    flag = f"{field.flag}/--no-{field.flag.removeprefix('--')}" if field.kind is bool else field.flag
    default = typer.Option(
        None,  # not the field's default: only options that were given may replace values of a recipe file
        *_SHORT_FLAGS.get(field.name, ()),
        flag,
        *([second_flag] if second_flag else []),
        help=field.help,
        metavar="|".join(field.choices) or field.metavar or None,
        parser=_one_of(field) if field.choices else _PARSERS.get(field.name),
        show_default=format_default(field.default) or False,
        autocompletion=_COMPLETIONS.get(field.name),
        rich_help_panel=field.table.capitalize(),
        hidden=field.name in EXPERT_OPTIONS,
    )
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind | None)


def _one_of(field: OptionField) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not field.takes(text):
            raise typer.BadParameter(f"{field.no_choice(text)}.")
        return text

    return parse


def format_default(default: object) -> str:
    """Return a default value in the form of the help; empty for no default."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def resolve_recipe(given: Given, out: Path, config: Path | None, resume: bool, distill: bool = False) -> Recipe:
    """Return the recipe of a command line: given options, then the recipe file, then the defaults.

    Args:
        given: Options on the command line.
        out: Folder of the run.
        config: Recipe file; None takes the recipe in `out` if the run resumes.
        resume: Resume the run in `out`.
        distill: True for `dsclora distill`.

    Raises:
        UsageError: No run to resume, a recipe for another command, or a value that is not allowed.
    """
    saved = out / "recipe.toml"
    resumes = resume and is_taken(saved)
    file = config or (saved if resumes else None)
    recipe = read_recipe(file) if file else Recipe()
    if resume and not resumes and not (given.get("data") or recipe.data.data):
        raise UsageError(f"{out} holds no run to resume", "check --out, or start a run with --data DIR")
    if resumes and config is None:
        _check_command(recipe.distill, out, distill)
    try:
        return _complete(recipe, given, file, distill, is_new=not resumes)
    except UsageError as error:
        if not resume or resumes:
            raise
        problem = f"{out} holds no run to resume, and no run can start: {error.message}"
        raise UsageError(problem, f"check --out, or {error.hint}") from error


def _check_command(options: DistillOptions | None, out: Path, distill: bool) -> None:
    """Raise UsageError where the run in `out` is a run of the other command; a run with pictures alone suits both."""
    if (options is not None) is distill or (options is not None and _trains_alone(options)):
        return
    other = "train" if distill else "distill"
    raise UsageError(f"{out} is a run of dsclora {other}", f"resume it with dsclora {other} --out {out} --resume")


def _complete(recipe: Recipe, given: Given, file: Path | None, distill: bool, is_new: bool) -> Recipe:
    """Return the recipe of a file, or of nothing, with the given options. Raises UsageError as `resolve_recipe`."""
    if distill:
        recipe = replace(recipe, distill=recipe.distill or DistillOptions())
    elif "teacher_images" in given:
        recipe = replace(recipe, distill=recipe.distill or DistillOptions(method="logits"))
    elif weights := sorted(given.keys() & set(_TEACHER_WEIGHTS)) if recipe.distill is None else []:
        raise UsageError(f"--{weights[0]} has no teacher's pictures to weigh", "give --teacher-images DIR as well")
    recipe = with_values(recipe, given)
    if recipe.distill and not distill:
        _check_trains_alone(recipe.distill, given, file)
    check_recipe(recipe, is_new)
    return recipe


def _check_trains_alone(options: DistillOptions, given: Given, file: Path | None) -> None:
    """Raise UsageError unless `[distill]` needs nothing but pictures, which `dsclora train` accepts too."""
    if _trains_alone(options):
        return
    if "teacher_images" in given and options.teacher_folder is None:
        raise UsageError(
            f"--teacher-images {options.teacher_images} needs a teacher's network",
            "run dsclora distill, or give a folder of pictures",
        )
    hint = "run dsclora distill, or leave the table out"
    raise UsageError(f"{file}: [distill] is for dsclora distill", hint)


def _trains_alone(options: DistillOptions) -> bool:
    return options.method == "logits" and options.teacher is None and options.teacher_folder is not None
