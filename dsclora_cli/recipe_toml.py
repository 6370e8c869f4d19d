"""Read, write, check and hash recipes; a recipe file is TOML.

`recipe` defines the options. `training` and `distillation` take a recipe; `cli.recipe_options` makes a recipe from a
command line.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from dsclora_cli.errors import UsageError, next_step
from dsclora_cli.host import worker_count
from dsclora_cli.methods import DISTILL_METHODS, find_plugin
from dsclora_cli.paths import read_named
from dsclora_cli.recipe import (
    DEFAULT_RCAN_GROUPS,
    DEFAULT_SHAPES,
    OPTIMIZER_DEFAULTS,
    TABLES,
    DistillOptions,
    OptionField,
    Recipe,
    option_fields,
)

_LARGEST = 2**63 - 1
"""Largest whole number of an option: larger ones fit neither a float nor a tensor."""

_WITH_MAPS = ("dsclora", "fd", "fakd", "facd")
_WITH_TEACHER = tuple(method for method in DISTILL_METHODS if method != "none")
READERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("base", "adapters", "init_adapter", "ad"), ("dsclora",)),
    **dict.fromkeys(("teacher", "teacher_images", "spectrum", "spectrum_block"), _WITH_TEACHER),
    **dict.fromkeys(("taps", "teacher_taps"), _WITH_MAPS),
    "feature_weight": ("fd", "fakd", "facd", "augkd"),
    "feature_distance": ("fd", "facd"),
    **dict.fromkeys(("contrast", "negatives", "condition", "margin", "temperature"), ("facd",)),
    "positions": ("dsclora", "fakd"),
}
"""Methods of dsclora that read an option of `[distill]`; other options are refused for no method."""

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
_COUNT_NAMES = {0: "a list, each ", 1: "", 2: "a list of two, each "}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file.

    Missing keys have their defaults; `distill` is None if the file has no table `[distill]`.

    Raises:
        UsageError: The file does not exist or is not TOML, a table or key is unknown, or a value is wrong. The message
            names file, table and key.
    """
    try:
        tables = tomllib.loads(read_named(path).decode("utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        hint = next_step(error, "give a recipe file, see docs/train.md")
        raise UsageError(f"cannot read {path}: {error.strerror}", hint) from error
    except (ValueError, RecursionError) as error:
        raise _wrong(str(path), f"not TOML: {error}") from error
    # Field names are unique over all tables, so a flat mapping holds the values of all tables.
    given: dict[str, object] = {}
    for table, values in tables.items():
        if table not in TABLES or not isinstance(values, dict):
            raise _wrong(f"{path}: {table}", _explain_table(table))
        known = {option.name: option for option in option_fields(table)}
        for key, value in values.items():
            where = f"{path}: [{table}] {key}"
            if key not in known:
                raise _wrong(where, _explain_key(key))
            given[key] = _parse(known[key], value, where)
    return with_values(Recipe(distill=DistillOptions() if "distill" in tables else None), given)


def recipe_to_toml(recipe: Recipe, is_wanted: Callable[[OptionField, object], bool] | None = None) -> str:
    """Return a recipe in TOML, without options of value None; `read_recipe` reads an equal recipe.

    With `is_wanted`, only the options for which the function returns True are written.
    """
    values = _values(recipe)
    return _to_toml(values if is_wanted is None else (each for each in values if is_wanted(*each)))


def with_values(recipe: Recipe, given: Mapping[str, object]) -> Recipe:
    """Return a copy of a recipe with new values for some options, given by name without their table.

    Options of a table missing from the recipe (`distill`) are ignored.
    """
    changes: dict[str, dict[str, object]] = {}
    for option, _ in _values(recipe):
        if option.name in given:
            changes.setdefault(option.table, {})[option.name] = given[option.name]
    return replace(recipe, **{table: replace(getattr(recipe, table), **new) for table, new in changes.items()})


def check_recipe(recipe: Recipe, is_new: bool = True) -> None:
    """Raise UsageError if an option is out of range or contradicts another, or if a method lacks an option.

    For a new run, also if the method does not read an option: runs of earlier versions with such options may resume.
    """
    for option, value in _values(recipe):
        if problem := next(_problems(option, value), None):
            raise _wrong(option.flag, problem)
    network, distill = recipe.network, recipe.distill
    if network.expanded and network.arch not in {"dsclora", "span"}:
        raise _wrong("--expanded", f"{network.arch} has no training form")
    if network.groups is not None and network.arch != "rcan":
        raise _wrong("--groups", f"{network.arch} has no groups of blocks")
    if network.scale == 1 and not recipe.degrade.degrade and recipe.data.lr is None:
        raise _wrong("--scale", "at 1 the inputs equal the targets without --degrade and without --lr")
    if distill is not None:
        _check_distillation(distill)
        if is_new:
            _check_read(distill)
        if distill.method == "facd":
            check_contrast(recipe.data.batch // (recipe.optimiser.accumulate * worker_count()))


def check_contrast(patches: int) -> None:
    """Raise UsageError unless method facd gets several patches at a time, which the method compares."""
    if patches < 2:
        raise UsageError(
            "method facd compares each patch with other patches, but there is one patch at a time",
            "raise --batch, or lower --accumulate or the number of workers",
        )


def _check_distillation(options: DistillOptions) -> None:
    """Raise UsageError unless the networks and pictures of the method are named, and the loss is not 0 everywhere."""
    method, folder = options.method, options.teacher_folder
    plugin = find_plugin(method)
    if method == "dsclora" and options.base is None:
        raise UsageError("adapters need a network to adapt", "name its weights: --base FILE|NAME")
    if options.init_adapter is not None and (method != "dsclora" or options.adapters == "none"):
        trained = f"method {method}" if method != "dsclora" else "--adapters none"
        raise UsageError(f"--init-adapter is of no use to {trained}, which trains no adapter", "leave the option out")
    # Whether the method of a plugin needs a teacher is known only after its function has run.
    needs_teacher = not plugin and method not in {"dsclora", "none"}
    if needs_teacher and options.teacher is None and (method != "logits" or folder is None):
        pictures = ", or a folder of its pictures: --teacher-images DIR" if method == "logits" else ""
        raise UsageError(f"method {method} needs a teacher", f"name its weights: --teacher FILE|NAME{pictures}")
    if folder is not None:
        _check_teacher_folder(options)
    if options.spectrum and not options.ts:
        raise UsageError("--spectrum compares with the teacher's output, which --ts 0 leaves out", "raise --ts")
    # A feature weight of None stands for the default of the method, which is not 0.
    weight = {"dsclora": options.ad, "logits": 0.0, "none": 0.0}.get(method, options.feature_weight)
    if not options.rec and (not options.ts or method == "none") and weight == 0:
        raise UsageError("every term of the loss has weight 0", "raise --rec, --ts, --ad or --feature-weight")


def _check_read(options: DistillOptions) -> None:
    """Raise UsageError for an option with another value than its default that the method does not read."""
    # A method of another package may read any option.
    if options.method not in DISTILL_METHODS:
        return
    for option in option_fields("distill"):
        readers = READERS.get(option.name, DISTILL_METHODS)
        if options.method not in readers and getattr(options, option.name) != option.default:
            problem = f"{option.flag} is of no use to method {options.method}"
            raise UsageError(problem, f"leave the option out; methods that read the option: {', '.join(readers)}")


def _check_teacher_folder(options: DistillOptions) -> None:
    """Raise UsageError where nothing would look at the pictures of --teacher-images."""
    given = f"--teacher-images {options.teacher_images}"
    if options.method == "none":
        raise UsageError(f"{given} is of no use to method none", "give --method logits, or leave the pictures out")
    if options.method == "logits" and options.teacher is not None:
        raise UsageError(f"{given} and --teacher {options.teacher} are two teachers", "leave one of them out")
    if not options.ts:
        raise UsageError(f"{given} is of no use with --ts 0", "raise --ts, or leave the pictures out")


def resolve_defaults(recipe: Recipe) -> Recipe:
    """Return a recipe with the shape, optimizer, learning rate and betas that other options imply."""
    network, distill, given = recipe.network, recipe.distill, recipe.optimiser
    channels, blocks = DEFAULT_SHAPES[network.arch]
    # SOAP suits the initial weights of a SPAN. Adapters start at zero, other networks with PyTorch's usual weights.
    if distill is not None and distill.method == "dsclora":
        suits_soap = distill.adapters == "none"
    else:
        suits_soap = network.arch in {"dsclora", "span"}
    optimizer = given.optimiser or ("soap" if suits_soap else "adam")
    rate, betas = OPTIMIZER_DEFAULTS[optimizer]
    return replace(
        recipe,
        network=replace(
            network,
            channels=network.channels or channels,
            blocks=network.blocks or blocks,
            groups=(network.groups or DEFAULT_RCAN_GROUPS) if network.arch == "rcan" else None,
        ),
        optimiser=replace(
            given,
            optimiser=optimizer,
            learning_rate=rate if given.learning_rate is None else given.learning_rate,
            betas=given.betas or betas,
        ),
    )


def recipe_digest(recipe: Recipe, files: bool = True) -> str:
    """Return 64 hex digits, equal for two recipes with the same trained weights (apart from rounding).

    Options without effect on the result (`device`, `threads`, `compile`, `accumulate`, ...) are left out, so a run may
    resume on another machine. Options at their default are left out too, so a run may resume after an update with new
    options.

    Args:
        recipe: The recipe.
        files: False leaves out the paths of pictures and weights, whose content is to be compared instead.
    """

    def decides(option: OptionField, value: object) -> bool:
        # The words of `teacher_images` are no paths.
        is_path = option.names_files and value not in option.metavar.split("|")
        return option.affects_result and value != option.default and (files or not is_path)

    tables = [table for table in TABLES if getattr(recipe, table) is not None]
    deciding = ((option, value) for option, value in _values(recipe) if decides(option, value))
    return hashlib.sha256(f"{tables}\n{_to_toml(deciding)}".encode()).hexdigest()


def differing_options(recipe: Recipe, other: Recipe) -> list[str]:
    """Return the names of the options that decide the trained weights and have other values in another recipe.

    A table that one of the recipes lacks has its defaults there.
    """
    own, others = ({option.name: value for option, value in _values(each)} for each in (recipe, other))
    return [
        option.name
        for option in option_fields()
        if option.affects_result and own.get(option.name, option.default) != others.get(option.name, option.default)
    ]


def _wrong(where: str, problem: str) -> UsageError:
    return UsageError(f"{where}: {problem}", "see docs/train.md")


def _explain_table(name: str) -> str:
    """Return why `name` with its value cannot stand at the top level of a recipe."""
    if home := _table_of(name):
        return f"stands outside its table, [{home}]"
    return "is a table" if name in TABLES else f"unknown table{_suggest(name, TABLES)}"


def _explain_key(name: str) -> str:
    """Return why `name` cannot be a key of its table."""
    if home := _table_of(name):
        return f"belongs to [{home}]"
    return f"unknown key{_suggest(name, (option.name for option in option_fields()))}"


def _table_of(name: str) -> str | None:
    return next((option.table for option in option_fields() if option.name == name), None)


def _suggest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f", perhaps {near[0]}" if near else ""


def _parse(option: OptionField, value: object, where: str) -> object:
    """Convert a TOML value to the type of the option. Raises UsageError for a wrong type, count or range."""
    values = [value] if option.count == 1 else value if isinstance(value, list) else None
    # No option means anything by an empty text, and an empty path would be the current folder.
    if "" in (values or ()):
        raise _wrong(where, "is empty; give a value, or leave the key out")
    parsed = tuple(_convert(option.kind, each) for each in values or ())
    right_count = values is not None and option.count in {0, len(values)}
    if not right_count or None in parsed:
        raise _wrong(where, f"{value!r} is not {_COUNT_NAMES[option.count]}{_TYPE_NAMES[option.kind]}")
    result = parsed[0] if option.count == 1 else parsed
    if problem := next(_problems(option, result), None):
        raise _wrong(where, problem)
    return result


def _convert(kind: type, value: object) -> object:
    """Convert a TOML value to `kind`; return None for a value of another type."""
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return math.inf  # which `_problems` refuses
    if kind is Path and type(value) is str:
        return Path(value)
    return value if type(value) is kind else None  # not isinstance: True is an int


def _problems(option: OptionField, value: object) -> Iterator[str]:
    """Yield the reasons why a value (one value or a tuple) is not allowed."""
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    for each in values:
        if isinstance(each, str | Path):
            if option.choices and not option.takes(each):
                yield option.no_choice(each)
            # A file name that is not Unicode reaches Python as lone surrogates, which TOML cannot hold.
            if str(each) != str(each).encode("utf-8", "replace").decode("utf-8"):
                yield f"{str(each)!r} is not Unicode, so no recipe can hold it"
        elif isinstance(each, int) and abs(each) > _LARGEST:
            yield f"{str(each)[:20]}... has too many digits"
        elif not math.isfinite(each):
            yield f"{each!r} is not finite"
        elif each < option.min:
            yield f"{each!r} is below {option.min:g}"
        elif each > option.max:
            yield f"{each!r} is above {option.max:g}"
    # Ranges to draw from, unlike other pairs (`betas`), have an order.
    if option.metavar == "LOW HIGH" and values[0] > values[1]:
        yield f"{values[0]!r} to {values[1]!r} is no range"


def _values(recipe: Recipe) -> Iterator[tuple[OptionField, object]]:
    """Yield every option of a recipe with its value; a table that is None has no options."""
    for option in option_fields():
        group = getattr(recipe, option.table)
        if group is not None:
            yield option, getattr(group, option.name)


def _to_toml(values: Iterable[tuple[OptionField, object]]) -> str:
    blocks: dict[str, list[str]] = {}
    for option, value in values:
        # A table is written even if all of its options are None, because `[distill]` alone has a meaning.
        lines = blocks.setdefault(option.table, [f"[{option.table}]"])
        if value is not None:
            lines.append(f"{option.name} = {_literal(value)}")
    return "\n\n".join("\n".join(lines) for lines in blocks.values()) + "\n"


def _literal(value: object) -> str:
    """Return a value in TOML syntax."""
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(each) for each in value)}]"
    if isinstance(value, str | Path):
        # JSON escapes text as TOML does, except for DEL.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
