"""The user's settings: defaults of options in `config.toml`, and in environment variables `DSCLORA_...`.

An option on the command line comes before the environment, the environment before the file, and the file before the
default of the option. The command line checks values, because the options know what is allowed.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsclora_cli.errors import UsageError, next_step
from dsclora_cli.paths import atomic_write, check_path, config_dir, is_allowed, read_small

SETTINGS = (
    *("scale", "model", "offline", "device", "engine", "dtype", "tile", "threads", "max-memory", "max-pixels"),
    *("ensemble", "format", "quality", "compression", "metadata", "strict", "salvage"),
    *("name", "recursive", "fail-fast"),
)
"""Names of the settings, equal to the long names of options of `dsclora upscale`."""

_STEP = "correct or remove the line; docs/config.md lists the settings"
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?")


class Origin(StrEnum):
    """Where the value of a setting comes from."""

    ENVIRONMENT = "environment"
    FILE = "file"

    DEFAULT = "default"
    """Neither the environment nor the file has a value."""


@dataclass(frozen=True)
class Setting:
    """A setting with a value; the field names are keys of the JSON output of `dsclora config show`."""

    name: str
    """Name of the setting: an option without the dashes in front."""

    value: str
    """Value as on the command line; "true" or "false" for options without a value."""

    origin: Origin

    place: str = ""
    """Name of the environment variable, or path of the file with the number of the line; empty for defaults."""


def settings_file() -> Path:
    """Return the place of the user's settings; the file need not exist."""
    return config_dir() / "config.toml"


def find_settings() -> dict[str, Setting]:
    """Return the settings of the environment and of the file by name. Raises UsageError for a file with mistakes."""
    return read_file() | read_environment()


def read_environment() -> dict[str, Setting]:
    """Return the settings of the environment; an empty variable has no effect."""
    values = {name: (variable, os.environ.get(variable)) for name in SETTINGS for variable in [variable_of(name)]}
    return {
        name: Setting(name, value, Origin.ENVIRONMENT, variable) for name, (variable, value) in values.items() if value
    }


_OTHER_VARIABLES = {
    *("DSCLORA_CONFIG_DIR", "DSCLORA_STATE_DIR", "DSCLORA_CACHE_DIR"),
    *("DSCLORA_DEBUG", "DSCLORA_NATIVE", "DSCLORA_NATIVE_CPU"),
}
"""Variables of the environment that are no settings."""


def unknown_variables() -> tuple[str, ...]:
    """Return the variables of the environment whose names begin with DSCLORA_ and that nothing reads, sorted."""
    known = {*_OTHER_VARIABLES, *map(variable_of, SETTINGS)}
    return tuple(sorted(name for name in os.environ if name.startswith("DSCLORA_") and name not in known))


def variable_of(name: str) -> str:
    """Return the environment variable of a setting: max-memory becomes DSCLORA_MAX_MEMORY."""
    return f"DSCLORA_{name.upper().replace('-', '_')}"


def read_file() -> dict[str, Setting]:
    """Return the settings of the file. Raises UsageError with file, line and next step."""
    path = settings_file()
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        # The message of the library ends with the place: "(at line 3, column 8)".
        line = re.search(r"\(at line (\d+)", str(error))
        number = line[1] if line else len(text.splitlines())  # "(at end of document)"
        problem = re.sub(r" \(at .*", "", str(error).partition("\n")[0])
        if problem == "Cannot overwrite a value":
            key = text.splitlines()[int(number) - 1].partition("=")[0].strip()
            problem = f"{key} is set in a line above already"
        raise UsageError(f"{path}, line {number}: {problem}", _STEP) from error
    settings = {}
    for name, value in document.items():
        place = f"{path}, line {_line_of(text, name)}"
        if name not in SETTINGS:
            raise UsageError(f"{place}: {_unknown(name)}", _STEP)
        if not isinstance(value, str | int | float):  # bool is an int
            raise UsageError(f"{place}: {name} is neither a text, nor a number, nor true or false", _STEP)
        settings[name] = Setting(name, _as_text(value), Origin.FILE, place)
    return settings


def check_name(name: str) -> str:
    """Return the usual spelling of a setting's name. Raises UsageError for an unknown name."""
    usual = name.strip().removeprefix("--").replace("_", "-")
    if usual not in SETTINGS:
        raise UsageError(_unknown(usual), f"the settings are {', '.join(SETTINGS)}")
    return usual


def _unknown(name: str) -> str:
    import difflib  # for mistakes only

    close = difflib.get_close_matches(name, SETTINGS, n=1)
    return f"there is no setting {name!r}" + (f"; perhaps {close[0]} is meant" if close else "")


def _as_text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_text(path: Path) -> str:
    """Return the text of the file; an absent file has an empty text. Raises UsageError."""
    try:
        return read_small(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: not UTF-8", "save the file as UTF-8") from error
    except (OSError, ValueError) as error:
        # The folder of another user, as after sudo.
        if isinstance(error, PermissionError) and not is_allowed(path.parent, os.X_OK):
            return ""
        reason = getattr(error, "strerror", None) or error
        hint = "check the permissions, remove the file, or set DSCLORA_CONFIG_DIR to another folder"
        raise UsageError(f"cannot read {path}: {reason}", hint) from error


def _line_of(text: str, name: str) -> int:
    """Return the number of the line of a setting, from 1."""
    pattern = _pattern(name)
    return next((number for number, line in enumerate(text.split("\n"), 1) if pattern.match(line)), 1)


def _pattern(name: str) -> re.Pattern[str]:
    """Return the pattern for the line of a setting: the name bare, in quotes, or in the heading of a table."""
    return re.compile(rf"\s*\[*\s*([\"']?){re.escape(name)}\1\s*[=.\]]")


def write_setting(name: str, value: str) -> Setting:
    """Set a setting in the file; comments, line ends and all other lines stay.

    Raises UsageError for a file with mistakes, and for a file that cannot be written.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:  # bytes from a terminal with another encoding
        raise UsageError(f"{name}: the value is no valid text", "set the terminal and the locale to UTF-8") from error
    _edit(name, f"{name} = {_to_toml(value)}")
    return read_file()[name]


def remove_setting(name: str) -> bool:
    """Remove a setting from the file; return False where the file does not have the setting. Raises UsageError."""
    if name not in read_file():
        return False
    _edit(name, None)
    return True


def _edit(name: str, line: str | None) -> None:
    """Replace the line of a setting, or add the line at the end; None removes the line. Raises UsageError."""
    is_known, text = name in read_file(), _read_text(settings_file())
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = re.findall(r"[^\n]*\n", text if text.endswith("\n") or not text else f"{text}{ending}")
    number = _line_of(text, name) if is_known else len(lines) + 1
    old = lines[number - 1] if is_known else ending
    lines[number - 1 : number] = [] if line is None else [_in_place_of(old, line)]
    edited = "".join(lines)
    # A text over several lines, for example, cannot be replaced line by line.
    if not _is_same_but_for(name, text, edited):
        raise UsageError(f"{settings_file()}, line {number}: {name} cannot be changed here", "edit the file by hand")
    _write(edited)


def _in_place_of(old: str, line: str) -> str:
    """Return a line with the comment and the line end of the old line."""
    body = old.rstrip("\r\n")
    for match in re.finditer(r"\s*#", body):
        # A sign inside a text begins no comment: what stands before it is no whole setting.
        with suppress(ValueError, RecursionError):
            if tomllib.loads(body[: match.start()]):
                return f"{line}{old[match.start() :]}"
    return f"{line}{old[len(body) :]}"


def _is_same_but_for(name: str, before: str, after: str) -> bool:
    """Return whether two texts are valid and differ in no other setting."""
    try:
        old, new = tomllib.loads(before), tomllib.loads(after)
    except (ValueError, RecursionError):
        return False
    return {key: old[key] for key in old if key != name} == {key: new[key] for key in new if key != name}


def _to_toml(value: str) -> str:
    """Return a value in TOML: numbers and booleans bare, everything else in quotes."""
    if value in {"true", "false"} or _NUMBER.fullmatch(value):
        return value
    return json.dumps(value)  # a JSON string is a TOML string as well


def _write(text: str) -> None:
    """Replace the file. Raises UsageError."""
    # The file may be a link into a folder that is kept under version control; the link must stay.
    path = settings_file().resolve()
    try:
        check_path(settings_file())  # otherwise the file that was read is another one
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        hint = next_step(error, "set DSCLORA_CONFIG_DIR to a folder that can be written")
        raise UsageError(f"cannot write {path}: {error.strerror}", hint) from error


def shown_settings(defaults: Mapping[str, str]) -> tuple[Setting, ...]:
    """Return all settings with their values and origins; `defaults` has the texts of the defaults by option."""
    found = find_settings()
    return tuple(found.get(name, Setting(name, defaults.get(name, ""), Origin.DEFAULT)) for name in SETTINGS)
