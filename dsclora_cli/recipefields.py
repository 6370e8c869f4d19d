"""The fields of a recipe as data, for those who make options, tables and checks of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dsclora_cli.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """One field of one group. `kind` is the type of a value, and `count` how many it holds: 1, 2, or 0 for any number.

    The rest is as `explained` has it.
    """

    table: str
    name: str
    kind: type[bool | int | float | str | Path]
    count: int
    default: Any
    help: str
    form: str
    least: float
    most: float
    decides: bool

    @property
    def flag(self) -> str:
        """Its option."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a text may be; empty for any text. Capitals in `form` stand for something, as in "FILE"."""
        return tuple(self.form.split("|")) if self.kind is str and self.form == self.form.lower() else ()


def _kind(hint: Any) -> tuple[Any, int]:  # noqa: ANN401 - a type, or what `X | None` and `tuple[X, ...]` are
    """What one value is, and how many there are: of `int | None` (int, 1), of `tuple[float, ...]` (float, 0)."""
    if isinstance(hint, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is not tuple:
        return hint, 1
    kind, last = get_args(hint)
    return kind, 0 if last is ... else 2


TABLES: dict[str, Any] = {table: _kind(hint)[0] for table, hint in get_type_hints(Recipe).items()}
"""The groups by the names of their tables, in the order of `Recipe`."""


def settings(*tables: str) -> Iterator[Setting]:
    """The fields of these tables, of all of them without any."""
    for table in tables or TABLES:
        hints = get_type_hints(TABLES[table])
        for each in fields(TABLES[table]):
            yield Setting(table, each.name, *_kind(hints[each.name]), each.default, **each.metadata)
