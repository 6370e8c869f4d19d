"""Recipes as TOML files: read, written, checked and named by a digest."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from dsclora_cli.errors import UsageError
from dsclora_cli.recipe import ARCHITECTURES, GROUPS, OPTIMISERS, TABLES, DistillOptions, Recipe, Setting, settings

_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
_SHAPES = {0: "a list, each ", 1: "", 2: "a list of two, each "}


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file: what it leaves out is as the defaults say, `distill` is None without that table.

    Raises UsageError, naming file, table and key: no such file, not TOML, an unknown table or key, a wrong value.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "name a recipe, as docs/train.md has it") from error
    except ValueError as error:
        raise _wrong(str(path), f"not TOML: {error}") from error
    given: dict[str, object] = {}
    for table, values in tables.items():
        if table not in TABLES or not isinstance(values, dict):
            raise _wrong(f"{path}: {table}", _not_a_table(table))
        known = {setting.name: setting for setting in settings(table)}
        for key, value in values.items():
            where = f"{path}: [{table}] {key}"
            if key not in known:
                raise _wrong(where, _not_a_key(key))
            given[key] = _parsed(known[key], value, where)
    return with_settings(Recipe(distill=DistillOptions() if "distill" in tables else None), given)


def _wrong(where: str, what: str) -> UsageError:
    return UsageError(f"{where}: {what}", "see docs/train.md")


def _not_a_table(name: str) -> str:
    if home := _home(name):
        return f"stands outside its table, [{home}]"
    return "is a table" if name in TABLES else f"unknown table{_near(name, TABLES)}"


def _not_a_key(name: str) -> str:
    if home := _home(name):
        return f"belongs to [{home}]"
    return f"unknown key{_near(name, (setting.name for setting in settings()))}"


def _home(name: str) -> str | None:
    return next((setting.table for setting in settings() if setting.name == name), None)


def _near(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1)
    return f", perhaps {near[0]}" if near else ""


def _parsed(setting: Setting, value: object, where: str) -> object:
    """What TOML holds, as the field has it."""
    several = value if isinstance(value, list) else None
    parsed = tuple(_one(setting.kind, each) for each in ([value] if setting.count == 1 else several or ()))
    right_count = setting.count == 1 or (several is not None and setting.count in {0, len(several)})
    if not right_count or None in parsed:
        raise _wrong(where, f"{value!r} is not {_SHAPES[setting.count]}{_NOUNS[setting.kind]}")
    result = parsed[0] if setting.count == 1 else parsed
    if refusal := _refusal(setting, result):
        raise _wrong(where, refusal)
    return result


def _one(kind: type, value: object) -> object:
    """A value of TOML as this type, None where it is of another; `True` is no number."""
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and type(value) is str:
        return Path(value)
    return value if type(value) is kind else None


def with_settings(recipe: Recipe, given: Mapping[str, object]) -> Recipe:
    """The recipe with some fields set by name, whatever table they are in."""
    groups = {}
    for table in _tables(recipe):
        mine = {setting.name: given[setting.name] for setting in settings(table) if setting.name in given}
        groups[table] = replace(getattr(recipe, table), **mine)
    return replace(recipe, **groups)


def check(recipe: Recipe) -> None:
    """Raises UsageError where a field lies outside its range or contradicts another, or a method lacks something."""
    for setting in settings(*_tables(recipe)):
        if refusal := _refusal(setting, _value(recipe, setting)):
            raise _wrong(setting.flag, refusal)
    network = recipe.network
    if network.expanded and network.arch not in {"dsclora", "span"}:
        raise _wrong("--expanded", f"{network.arch} has no training form")
    if network.groups is not None and network.arch != "rcan":
        raise _wrong("--groups", f"{network.arch} has no groups of blocks")
    if recipe.distill is not None:
        _check_distillation(recipe.distill)


def _check_distillation(options: DistillOptions) -> None:
    if options.method == "dsclora" and options.base is None:
        raise UsageError("adapters need a network to adapt", "name its weights: --base FILE|NAME")
    if options.method not in {"dsclora", "none"} and options.teacher is None:
        raise UsageError(f"method {options.method} needs a teacher", "name its weights: --teacher FILE|NAME")
    own = {"dsclora": options.ad, "logits": 0.0, "none": 0.0}.get(options.method, options.feature_weight)
    if not options.rec and (not options.ts or options.method == "none") and own == 0:
        raise UsageError("every term of the loss has weight 0", "raise --rec, --ts, --ad or --feature-weight")


def _refusal(setting: Setting, value: object) -> str:
    """Why a value cannot be, empty where it can."""
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    for each in values:
        refusal = _number_refusal if isinstance(each, int | float) else _text_refusal
        if wrong := refusal(setting, each):
            return wrong
    if setting.form == "LOW HIGH" and values[0] > values[1]:
        return f"{values[0]!r} to {values[1]!r} is no range"
    return ""


def _number_refusal(setting: Setting, number: float) -> str:
    if not math.isfinite(number):
        return f"{number!r} is not finite"
    if number < setting.least:
        return f"{number!r} is below {setting.least:g}"
    return f"{number!r} is above {setting.most:g}" if number > setting.most else ""


def _text_refusal(setting: Setting, text: str | Path) -> str:
    if setting.choices and text not in setting.choices:
        return f"{text!r} is not one of {', '.join(setting.choices)}"
    return "" if _is_unicode(str(text)) else f"{str(text)!r} is not Unicode, so no recipe can hold it"


def _is_unicode(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode("utf-8")


def recipe_toml(recipe: Recipe) -> str:
    """All of a recipe as TOML, which `read_recipe` gives back as it was; fields that are None are left out."""
    return _toml(recipe, settings(*_tables(recipe)))


def completed(recipe: Recipe) -> Recipe:
    """The recipe with what depends on other fields filled in."""
    network, chosen = recipe.network, recipe.optimiser.optimiser or _usual_optimiser(recipe)
    channels, blocks = ARCHITECTURES[network.arch]
    rate, betas = OPTIMISERS[chosen]
    given = recipe.optimiser
    return replace(
        recipe,
        network=replace(
            network,
            channels=network.channels or channels,
            blocks=network.blocks or blocks,
            groups=(network.groups or GROUPS) if network.arch == "rcan" else None,
        ),
        optimiser=replace(
            given,
            optimiser=chosen,
            learning_rate=rate if given.learning_rate is None else given.learning_rate,
            betas=given.betas or betas,
        ),
    )


def _usual_optimiser(recipe: Recipe) -> str:
    """SOAP for a SPAN, whose start it is tuned with; Adam for adapters, and for networks with PyTorch's usual start."""
    method = recipe.distill
    if method and method.method == "dsclora":
        return "soap" if method.adapters == "none" else "adam"
    return "soap" if recipe.network.arch in {"dsclora", "span"} else "adam"


def digest(recipe: Recipe) -> str:
    """64 hex digits, equal for two recipes that lead to the same weights, but for rounding.

    Where and how fast a run goes (`device`, `threads`, `compile`, `accumulate`, ...) is not in it, so a run may go on
    elsewhere. Neither is what a field says by default, so a run may go on after an update that brings new fields.
    """
    tables = _tables(recipe)
    deciding = (each for each in settings(*tables) if each.decides and _value(recipe, each) != each.default)
    return hashlib.sha256(f"{tables}\n{_toml(recipe, deciding)}".encode()).hexdigest()


def _tables(recipe: Recipe) -> list[str]:
    return [table for table in TABLES if getattr(recipe, table) is not None]


def _value(recipe: Recipe, setting: Setting) -> object:
    return getattr(getattr(recipe, setting.table), setting.name)


def _toml(recipe: Recipe, chosen: Iterator[Setting]) -> str:
    blocks: dict[str, list[str]] = {}
    for setting in chosen:
        lines = blocks.setdefault(setting.table, [f"[{setting.table}]"])
        value = _value(recipe, setting)
        if value is not None:
            lines.append(f"{setting.name} = {_literal(value)}")
    return "\n\n".join("\n".join(lines) for lines in blocks.values()) + "\n"


def _literal(value: object) -> str:
    """A value as TOML writes it. JSON escapes text as TOML does, but for DEL."""
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(each) for each in value)}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
