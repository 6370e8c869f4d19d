"""Words for the numbers that options take, for the errors of Typer: "a whole number from 1 to 100"."""

from __future__ import annotations

import math
from typing import Any

from dsclora_cli.checked import Numbers


def name_numbers(command: Any) -> None:  # noqa: ANN401 - Typer's own class, which has no public name
    """Let errors of a command, and of all commands in it, say which number an option takes; the help stays the same.

    Options with a range refuse NaN, which Typer takes for a number in every range.
    """
    for parameter in command.params:
        kind = parameter.type
        number = getattr(kind, "_number_class", None)
        if number is None:
            continue
        # The help shows the name of the type too. Types without a range are shared by all options.
        if parameter.metavar is None and hasattr(parameter, "is_flag"):
            parameter.metavar = f"<{type(kind).name}>"
        kind.name = _words(number, getattr(kind, "min", None), getattr(kind, "max", None))
        if number is float and hasattr(kind, "min"):
            _refuse_nan(kind)
    for inner in getattr(command, "commands", {}).values():
        name_numbers(inner)


def _refuse_nan(kind: Any) -> None:  # noqa: ANN401 - as above
    convert = kind.convert

    def convert_number(value: object, parameter: object, context: object) -> float:
        number: float = convert(value, parameter, context)
        if math.isnan(number):
            kind.fail(f"{value!r} is not a valid {kind.name}.", parameter, context)
        return number

    kind.convert = convert_number


def _words(number: type, least: float | None, most: float | None) -> str:
    """Return the words behind "is not a valid"."""
    words = "whole number" if number is int else "number"
    if least is None:
        return words if most is None else f"{words} up to {most:g}"
    return f"{words} {Numbers(least, math.inf if most is None else most)}"
