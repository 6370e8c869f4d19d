"""One TOML table being read: each key is taken once and checked, and what is left over is unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from dsclora_cli.errors import UsageError

_SHOWN = 60
_FILLED = r"(?s).*\S.*"


class Table:
    """A table of `file` under `heading`. `rest` holds the keys not yet taken; every error is a UsageError."""

    def __init__(self, file: Path, values: Mapping[str, object], heading: str = "") -> None:
        self.file = file
        self.heading = heading
        self.rest = dict(values)

    def error(self, key: str, value: object, expected: str) -> UsageError:
        """What is wrong with a key: `value` is not `expected`."""
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        return self._error(key, f"{shown} is not {expected}")

    def text(self, key: str, pattern: str = _FILLED) -> str:
        """Text that matches the whole pattern; required."""
        value = self._take(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.error(key, value, "text" if pattern == _FILLED else f"text like {pattern}")
        return value

    def optional(self, key: str, pattern: str = _FILLED) -> str | None:
        """As `text`, or None where the key is absent."""
        return self.text(key, pattern) if key in self.rest else None

    def count(self, key: str) -> int:
        """A whole number above 0; required."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, value, "a whole number above 0")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of one or more names; required."""
        value = self._take(key)
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            raise self.error(key, value, "a list of names")
        return tuple(value)

    def scale_of(self, key: str) -> int:
        """A key that is itself a native scale."""
        if not re.fullmatch("[1-9][0-9]?", key):
            raise self.error(key, key, "a native scale")
        return int(key)

    def table(self, key: str) -> Table:
        """A table inside this one, empty where it is absent."""
        value = self.rest.pop(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "a table")
        return Table(self.file, value, f"{self.heading}.{key}" if self.heading else key)

    def scores(self, key: str, metrics: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """A table of benchmark sets, each a table of finite numbers by metric; empty where it is absent."""
        sets = self.table(key)
        scores: dict[str, dict[str, float]] = {}
        for name in list(sets.rest):
            table = sets.table(name)
            scores[name] = {metric: table.number(metric) for metric in metrics if metric in table.rest}
            table.close()
        return scores

    def number(self, key: str) -> float:
        """A finite number; required."""
        value = self._take(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.error(key, value, "a number")
        return float(value)

    def close(self) -> None:
        """Refuse what nothing took."""
        for key in self.rest:
            raise self._error(key, "unknown key")

    def _take(self, key: str) -> object:
        if key not in self.rest:
            raise self._error(key, "missing")
        return self.rest.pop(key)

    def _error(self, key: str, what: str) -> UsageError:
        heading = f"[{self.heading}] " if self.heading else ""
        return UsageError(f"{self.file}: {heading}{key}: {what}", "see docs/weights.md")
