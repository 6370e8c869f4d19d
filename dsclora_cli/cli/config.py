"""`dsclora config`: show, set and unset the defaults of options; and the use of the settings as defaults.

The options themselves check the values, with the parsers that check the command line. The code that uses an option
checks some values later: `_CHECKS` runs the same checks for settings, so that an error names the place of the setting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsclora_cli.cli import console, options
from dsclora_cli.cli.completion import complete_setting
from dsclora_cli.cli.numbers import name_numbers
from dsclora_cli.errors import DscloraError, UsageError, escape_control
from dsclora_cli.paths import is_taken

if TYPE_CHECKING:
    from dsclora_cli.settings import Setting

config_app = typer.Typer(help="Show and change the defaults of options.", no_args_is_help=True)

_PICTURE_COMMANDS = ("upscale", "frames", "compare")
"""Commands that take all settings. Scores and training must not depend on a file, so others take `offline` only."""

_UNAFFECTED = ("models", "doctor", "config")
"""Commands that must work whatever the file contains."""

_REPLACED_BY = MappingProxyType(
    {
        "model": ("weights", "adapter"),
        "scale": ("width", "height", "fit", "long_edge", "short_edge", "megapixels"),
    }
)
"""Setting to options that take its place: an option on the command line must not contradict a setting."""

_SHOW_EXAMPLES = """[bold]Examples[/]

  dsclora config show

  dsclora config show device --json
"""
_SET_EXAMPLES = """[bold]Examples[/]

  dsclora config set quality 90

  dsclora config set max-memory 4GB
"""

_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Setting: the long name of an option of `dsclora upscale`, without the dashes.",
        autocompletion=complete_setting,
        show_default=False,
    ),
]


@config_app.command("show", epilog=_SHOW_EXAMPLES)
def show_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show this setting only.",
            autocompletion=complete_setting,
            show_default=False,
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Show every setting, its value, and whether the value comes from the environment, the file or the default."""
    from dsclora_cli.settings import check_name, shown_settings, unknown_variables

    for variable in unknown_variables():
        console.print_labeled("note", f"{variable} is the variable of no setting, and has no effect", "cyan")
    parameters = _parameters()
    wanted = None if name is None else check_name(name)
    rows = shown_settings({name: _default_text(parameter) for name, parameter in parameters.items()})
    rows = tuple(row for row in rows if wanted in {None, row.name})
    for row in rows:
        if row.place:
            _check_value(parameters[row.name], row)
    if json:
        for row in rows:
            console.show_json(row)
        return
    columns = {
        "setting": [row.name for row in rows],
        "value": [row.value for row in rows],
        "origin": [f"{row.origin} {row.place}".strip() for row in rows],
    }
    console.show_columns(columns)


@config_app.command("path")
def settings_path_command() -> None:
    """Show the path of the file with the settings; the file need not exist."""
    from dsclora_cli.settings import settings_file

    console.print_data(str(settings_file()))


@config_app.command("set", epilog=_SET_EXAMPLES, no_args_is_help=True)
def set_command(
    name: _Name,
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE",
            help="Value, as on the command line; true or false for an option without a value.",
            show_default=False,
        ),
    ],
) -> None:
    """Set the default of an option in the file. A wrong value is refused, and other lines of the file stay."""
    from dsclora_cli.settings import Origin, Setting, check_name, read_environment, write_setting

    name = check_name(name)
    _check_value(_parameters()[name], Setting(name, value, Origin.DEFAULT))
    written = write_setting(name, value)
    console.print_line(f"{name} is {written.value} in {written.place}")
    if name in read_environment():
        variable = read_environment()[name].place
        console.print_labeled("note", f"{variable} in the environment still comes first", "cyan")


@config_app.command("unset", no_args_is_help=True)
def unset_command(name: _Name) -> None:
    """Remove a setting from the file, so that the default of the option holds again."""
    from dsclora_cli.settings import check_name, remove_setting, settings_file

    name = check_name(name)
    if remove_setting(name):
        console.print_line(f"{name} is no longer set in {settings_file()}")
    else:
        console.print_labeled("note", f"{name} was not set in {settings_file()}", "cyan")


def _parameters() -> dict[str, Any]:
    """Return the options of `dsclora upscale` that are settings, by the name of the setting."""
    from dsclora_cli.cli.upscale import upscale
    from dsclora_cli.settings import SETTINGS

    program = typer.Typer()
    program.command()(upscale)
    command = typer.main.get_command(program)
    name_numbers(command)
    parameters = {str(parameter.name).replace("_", "-"): parameter for parameter in command.params}
    return {name: parameters[name] for name in SETTINGS}


def _default_text(parameter: Any) -> str:  # noqa: ANN401 - Typer's own class, which has no public name
    """Return the default of an option as the help shows it; empty for no default."""
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = parameter.default
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def apply_settings(group: Any, argv: Sequence[str]) -> tuple[Setting, ...]:  # noqa: ANN401 - Typer's own class, which has no public name
    """Give the command named in `argv` the user's settings as defaults, and return the settings that count.

    Args:
        group: The program, from `typer.main.get_command`. The defaults go to the settings of its context.
        argv: Command line without the name of the program.

    Raises:
        UsageError: The file has mistakes, or a value that an option does not take.
    """
    name = argv[0] if argv else ""
    # Help must be there for whoever wants to correct the file.
    if name in _UNAFFECTED or name not in group.commands or {"-h", "--help"}.intersection(argv):
        return ()
    from dsclora_cli.settings import find_settings

    parameters = {parameter.name: parameter for parameter in group.commands[name].params}
    defaults, applied = {}, []
    for setting in find_settings().values():
        parameter = parameters.get(setting.name.replace("-", "_"))
        is_meant = name in _PICTURE_COMMANDS or setting.name == "offline"
        if parameter is not None and is_meant and not _is_replaced(setting.name, parameters, argv):
            _check_value(parameter, setting)
            defaults[parameter.name] = setting.value
            applied.append(setting)
    group.context_settings["default_map"] = {name: defaults}
    return tuple(applied)


def name_settings(error: BaseException, applied: Sequence[Setting]) -> None:
    """Add to an error of a command the place of each setting whose option the error names.

    The options of a command line may be right each, and wrong together or on this machine. Then the error comes long
    after the settings were checked, and names an option that the user has not given.
    """
    if not isinstance(error, DscloraError):
        return
    text = f"{error.message} {error.hint}"
    named = [each for each in applied if re.search(rf"--{each.name}(?![\w-])", text)]
    places = [f"--{each.name}{'' if each.value == 'true' else f' {each.value}'} is from {each.place}" for each in named]
    error.message = "; ".join([error.message, *map(escape_control, places)])


def check_user_settings() -> None:
    """Raise UsageError, with the place, for the first setting that no command would take."""
    from dsclora_cli.settings import find_settings

    parameters = _parameters()
    for setting in find_settings().values():
        _check_value(parameters[setting.name], setting)


def _is_replaced(name: str, parameters: dict[str, Any], argv: Sequence[str]) -> bool:
    """Return whether the command line has the option itself, or something that takes the place of a setting."""
    if name == "format" and any(_names_format(parameters[each], argv) for each in ("output", "name")):
        return True
    others = (name.replace("-", "_"), *_REPLACED_BY.get(name, ()))
    options = [option for other in others if other in parameters for option in parameters[other].opts]
    return any(word.partition("=")[0] in options for word in argv) or _is_attached(options, parameters, argv)


def _names_format(parameter: Any, argv: Sequence[str]) -> bool:  # noqa: ANN401
    """Return whether the command line gives an option a path with the suffix of a picture."""
    from dsclora_cli.imaging.formats import is_picture_name

    opts = {option: len(option) + option.startswith("--") for option in parameter.opts}  # --output=PATH, -oPATH
    attached = [word[start:] for word in argv for option, start in opts.items() if word.startswith(option)]
    values = [*attached, *(word for before, word in pairwise(argv) if before in opts)]
    return any(is_picture_name(Path(value)) for value in values)


def _is_attached(options: Sequence[str], parameters: dict[str, Any], argv: Sequence[str]) -> bool:
    """Return whether a short option has its value in the same word: `-s2`, or `-qs2` with a flag before."""
    flags = [each.opts for each in parameters.values() if getattr(each, "is_flag", False)]
    before, letters = (
        "".join(re.escape(option[1]) for option in group if not option.startswith("--"))
        for group in ([option for opts in flags for option in opts], options)
    )
    return bool(letters) and any(re.match(f"-[{before}{letters}]*[{letters}]", word) for word in argv)


def _check_scale(text: str) -> None:
    from dsclora_cli.config import SizeOptions
    from dsclora_cli.upscaling.sizes import check_size

    if float(text) == 1:  # for networks that restore pictures, which take 1 without being told
        raise UsageError("--scale 1 enlarges nothing", "give a factor such as 2.5")
    check_size(SizeOptions(scale=float(text)))


def _check_model(text: str) -> None:
    from dsclora_cli.weights.catalog import load_catalog
    from dsclora_cli.weights.resolve import check_model

    try:
        catalog = load_catalog()
    except DscloraError:  # which the command itself reports: the setting is not at fault
        return
    asked = options.model_options(text, None, False, None)
    if isinstance(asked.weights, Path) and not is_taken(asked.weights):
        raise UsageError(f"there is no file {text}", "check the path")
    check_model(asked, catalog)


def _check_format(text: str) -> None:
    from dsclora_cli.upscaling.output_names import parse_format

    parse_format(text)


def _check_template(text: str) -> None:
    from dsclora_cli.upscaling.output_names import check_template

    check_template(text)


_CHECKS: MappingProxyType[str, Callable[[str], None]] = MappingProxyType(
    {"scale": _check_scale, "model": _check_model, "format": _check_format, "name": _check_template}
)
"""Setting to the check that a value of the option passes later than the parser; a check raises UsageError."""


def _check_value(parameter: Any, setting: Setting) -> None:  # noqa: ANN401
    """Raise UsageError, with the place of the setting, for a value that an option does not take."""
    step = f"`dsclora upscale --help` describes --{setting.name}"
    try:
        parameter.type.convert(setting.value, parameter, None)
        if setting.name in _CHECKS:
            _CHECKS[setting.name](setting.value)
    except UsageError as error:
        raise _refusal(setting, error.message.removeprefix(f"--{setting.name} "), error.hint or step) from error
    except Exception as error:
        # Typer's exception for a bad value has no public name; every other exception is a bug.
        message = getattr(error, "message", None)
        if message is None:
            raise
        if parameter.type.name == "boolean":  # the message lists all spellings, and an empty one first
            message = f"{setting.value!r} is not true or false"
        raise _refusal(setting, message, step) from error


def _refusal(setting: Setting, problem: str, step: str) -> UsageError:
    if setting.origin == "file":
        step = f"correct it with `dsclora config set {setting.name} VALUE`; {step}"
    return UsageError(f"{setting.place or 'config'}: {setting.name}: {problem}", step)
