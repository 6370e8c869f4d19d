"""Option classes that check their values. An annotation states type, range and words of an option.

A value is checked when an object is made. Defaults are not checked: a program starts without reading annotations.
"""

from __future__ import annotations

import math
import os
import reprlib
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import Place, RemotePlace, parse_place, place_text

T = TypeVar("T")


@dataclass(frozen=True)
class Numbers:
    """Numbers that an option takes, both ends included."""

    min: float
    """Smallest number."""
    max: float = math.inf
    """Largest number."""

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - a number
        """Return whether a number is in the range; NaN never is."""
        return bool(self.min <= value <= self.max)

    def __str__(self) -> str:
        """Return the words behind "a whole number"."""
        return f"of at least {self.min:g}" if self.max == math.inf else f"from {self.min:g} to {self.max:g}"


@dataclass(frozen=True)
class Words:
    """Texts that an option takes."""

    words: tuple[str, ...]

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - a text
        """Return whether a text is one of the words."""
        return value in self.words

    def __str__(self) -> str:
        """Return the words as a list."""
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"


class Checked:
    """Base of frozen dataclasses of options."""

    def __post_init__(self) -> None:
        """Check every value that is not the default, and convert values that mean the same in another type.

        A path as text becomes a path, a path where a text is meant becomes a text, and a list becomes a tuple. Raises
        UsageError.
        """
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if value is not each.default:
                hint = _hints(type(self))[each.name]
                converted = _checked(f"{type(self).__name__}.{each.name}", value, hint)
                object.__setattr__(self, each.name, converted)


def limits(options: type[Checked], name: str) -> dict[str, float]:
    """Return `min` and `max` of an option, without an end that is infinite, as `typer.Option` takes them."""
    (found,) = (mark for mark in _marks(_hints(options)[name]) if isinstance(mark, Numbers))
    return {end: value for end, value in vars(found).items() if value != math.inf}


def words(options: type[Checked], name: str) -> tuple[str, ...]:
    """Return the words that an option takes."""
    (found,) = (mark for mark in _marks(_hints(options)[name]) if isinstance(mark, Words))
    return found.words


def check_argument(name: str, value: object, kind: type[T]) -> T:
    """Return an argument of a function. Raises UsageError for an argument of another type."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {reprlib.repr(value)}", f"give {kind.__name__}(...), or leave {name} out")
    return value


class _Unfit(Exception):
    """A value is of another type, or out of range."""


_known_hints: dict[type[Checked], dict[str, Any]] = {}


def _hints(options: type[Checked]) -> dict[str, Any]:
    """Return the annotations of a class, as types; they are read once."""
    if options not in _known_hints:
        # config.py, lower than the storage, imports `Place` for type checkers only.
        _known_hints[options] = get_type_hints(options, localns={"Place": Place}, include_extras=True)
    return _known_hints[options]


def _marks(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type
    """Return the ranges and words in an annotation."""
    own = hint.__metadata__ if get_origin(hint) is Annotated else ()
    return (*own, *(mark for inner in get_args(hint) for mark in _marks(inner)))


def _checked(where: str, value: object, hint: Any) -> object:  # noqa: ANN401 - a type
    try:
        return _convert(value, hint)
    except _Unfit:
        # Not `from error`: the traceback of a wrong argument is short.
        raise UsageError(f"{where} is {reprlib.repr(value)}", f"give {_describe(hint)}") from None


def _convert(value: Any, hint: Any) -> Any:  # noqa: ANN401 - any value and any type
    """Return a value in the type of an annotation. Raises _Unfit."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        converted = _convert(value, inner[0])
        each = converted if isinstance(converted, tuple) else (converted,)
        if not all(mark.holds(one) for mark in hint.__metadata__ for one in each):
            raise _Unfit
        return converted
    if origin in {Union, UnionType}:
        if value is None and NoneType in inner:
            return None
        if RemotePlace in inner:
            return value if isinstance(value, Path) else parse_place(_text(value))
        (only,) = (kind for kind in inner if kind is not NoneType)
        return _convert(value, only)
    if origin is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, list | tuple) and inner[-1] is ... else inner
        if not isinstance(value, list | tuple) or len(kinds) != len(value):
            raise _Unfit
        return tuple(map(_convert, value, kinds))
    return _convert_single(value, hint)


def _convert_single(value: Any, kind: type) -> Any:  # noqa: ANN401 - any value
    """Return a value in a type that is a class. Raises _Unfit."""
    if kind is str:
        return _text(value)
    if kind is Path:
        return value if isinstance(value, Path) else Path(_text(value))
    if kind is bool and getattr(getattr(value, "dtype", None), "kind", "") == "b" and value.ndim == 0:
        return bool(value)
    known = {int: Integral, float: Real}.get(kind, kind)
    if not isinstance(value, known) or (known is not kind and isinstance(value, bool)):  # True is an int
        raise _Unfit
    # NumPy has numbers of its own; a whole number stays one where any number is allowed.
    return value if known is kind or isinstance(value, int | float) else kind(value)


def _text(value: Any) -> str:  # noqa: ANN401 - any value
    """Return a text or a path as text. Raises _Unfit."""
    text = place_text(value) if isinstance(value, str | os.PathLike | RemotePlace) else None
    if not isinstance(text, str):  # a path may be made of bytes
        raise _Unfit
    return text


_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    RemotePlace: "a URL",
    NoneType: "None",
}


def _describe(hint: Any) -> str:  # noqa: ANN401 - a type
    """Return in words what an annotation allows: "a whole number from 1 to 100 or None"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        (mark,) = hint.__metadata__
        return str(mark) if isinstance(mark, Words) else f"{_describe(inner[0])} {mark}"
    if origin in {Union, UnionType}:
        return " or ".join(map(_describe, inner))
    if origin is tuple:
        count = "" if inner[-1] is ... else f"{len(inner)} "
        return f"a tuple of {count}values, each {_describe(inner[0])}"
    return _NAMES.get(hint) or f"{hint.__name__}(...)"
