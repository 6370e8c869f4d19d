"""The options of commands that train: one for each field of a recipe, and what belongs to every run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from dsclora_cli.cli.options import option, parse_device
from dsclora_cli.errors import UsageError
from dsclora_cli.recipe import DistillOptions, OptionField, Recipe, option_fields
from dsclora_cli.recipe_toml import check_recipe, read_recipe, with_values

FOLDER = "Run folder"
_SHORT = {"scale": ("-s",)}
_PARSERS = {"device": parse_device}

Given = Mapping[str, Any]
"""Fields of a recipe by name, of the options that were given."""

Out = Annotated[Path, option(FOLDER, "Where everything of the run goes.", "-o", "--out", metavar="RUN")]
Config = Annotated[
    Path | None,
    option(FOLDER, "A recipe; options here come before what it says.", "--config", metavar="RECIPE.toml"),
]
Resume = Annotated[bool, option(FOLDER, "Go on with the run in --out, by the recipe kept there.", "--resume")]
Offline = Annotated[bool, option(FOLDER, "Ask nothing of the internet; use what is here.", "--offline")]


def with_recipe(
    *tables: str, also: Mapping[str, str] = MappingProxyType({})
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put an option for each field of these tables where the command has its parameter `given`: a `Given`.

    Each is its field's name with hyphens, and a second one where `also` has it, in a panel named as its table; not
    given, it leaves the field alone.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        fields = [_parameter(option, also.get(option.name)) for option in option_fields(*tables)]
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            parameters += fields if parameter.name == "given" else [parameter]

        @functools.wraps(command)
        def with_fields(**values: Any) -> None:  # noqa: ANN401 - as many types as fields
            options = {field.name: values.pop(field.name) for field in fields}
            given = {name: tuple(each) if isinstance(each, list) else each for name, each in options.items()}
            command(given={name: each for name, each in given.items() if each not in (None, ())}, **values)

        with_fields.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_fields.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_fields

    return decorate


def _parameter(option: OptionField, also: str | None) -> inspect.Parameter:
    kind: Any = {0: list[option.kind], 1: option.kind, 2: tuple[option.kind, option.kind]}[option.count]  # type: ignore[name-defined]
    flag = f"{option.flag}/--no-{option.flag.removeprefix('--')}" if option.kind is bool else option.flag
    default = typer.Option(
        None,
        *_SHORT.get(option.name, ()),
        flag,
        *([also] if also else []),
        help=option.help,
        metavar=option.metavar or None,
        parser=_one_of(option.choices) if option.choices else _PARSERS.get(option.name),
        show_default=shown(option.default) or False,
        rich_help_panel=option.table.capitalize(),
    )
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind | None)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(choices)}.")
        return text

    return parse


def shown(default: object) -> str:
    """A default as the help shows it, empty where there is none."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def resolve(given: Given, out: Path, config: Path | None, resume: bool, distill: bool = False) -> Recipe:
    """The recipe that a command line asks for: defaults, then the file, then the options.

    The file is `config`, or the recipe that the run in `out` was begun with. Raises UsageError.
    """
    begun = out / "recipe.toml"
    if resume and not (config or given or begun.exists()):
        raise UsageError(f"{out} holds no run to go on with", "check --out, or begin one with --data DIR")
    file = config or (begun if resume and begun.exists() else None)
    recipe = read_recipe(file) if file else Recipe()
    if recipe.distill and not distill:
        raise UsageError(f"{file}: [distill] is for dsclora distill", "run dsclora distill, or leave the table out")
    if distill and not recipe.distill:
        recipe = replace(recipe, distill=DistillOptions())
    recipe = with_values(recipe, given)
    check_recipe(recipe)
    return recipe
