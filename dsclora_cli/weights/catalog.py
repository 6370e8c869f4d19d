"""The catalogue: the packaged `weights.toml` and the user's own, read and checked. No torch.

docs/weights.md says what each key means.

One TOML table being read: each key is taken once and checked, and what is left over is unknown.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.paths import config_dir

FILE_NAME = "weights.toml"
_ARCHITECTURES = ("span", "edsr", "rcan")
_METRICS = ("psnr_y", "ssim_y", "psnr_rgb")
_SHA256 = "[0-9a-f]{64}"
_ADDRESS = r"https://\S+|http://(localhost|127\.0\.0\.1)[:/]\S*"
_REPO_PART = r"\w+(?:[.-]\w+)*"
_PACKAGE = Path(__file__).parent.parent
EMBEDDED = _PACKAGE / "weights" / "embedded"

Scores = Mapping[str, Mapping[str, float]]
"""Benchmark set to metric to value, in dB for PSNR."""


@dataclass(frozen=True)
class WeightEntry:
    """One weight file. `size` is in bytes, `sha256` the pin.

    `file` is a path in the Hub repository `repo`; without one it lies in `folder`, or at the address `url`, where alone
    `size` and `sha256` may be unknown, 0 and "". `published` scores are printed in `source`, `reference` scores
    measured by us. With `base`, the name of another entry, the file is an adapter for it.
    """

    name: str
    arch: str
    scale: int
    channels: int
    file: str
    size: int
    sha256: str
    licence: str
    source: str
    folder: Path
    repo: str | None = None
    revision: str | None = None
    url: str | None = None
    base: str | None = None
    published: Scores = field(default_factory=dict)
    reference: Scores = field(default_factory=dict)


@dataclass(frozen=True)
class PhotoRule:
    """What `--model auto` takes for a JPEG of a quality below `below`: names by native scale."""

    below: float
    models: Mapping[int, str]


@dataclass(frozen=True)
class Catalog:
    """All entries by name, and for each native scale the names that `--model auto` tries in turn."""

    entries: Mapping[str, WeightEntry]
    auto: Mapping[int, tuple[str, ...]]
    photo: PhotoRule | None = None

    def entry(self, name: str) -> WeightEntry:
        """The entry of that name. Raises UsageError naming similar ones."""
        if name not in self.entries:
            close = difflib.get_close_matches(name, self.entries, n=3, cutoff=0.5) or list(self.entries)
            raise UsageError(f"no model is called {name!r}", f"there is {', '.join(close)}; see `dsclora models list`")
        return self.entries[name]

    def with_sha256(self, sha256: str) -> WeightEntry | None:
        """The entry of the file with these bytes, if any."""
        return next((entry for entry in self.entries.values() if entry.sha256 == sha256), None)


def load_catalog() -> Catalog:
    """The packaged catalogue with the user's entries added. Raises UsageError naming file, table and key."""
    packaged = packaged_file()
    catalog = read_catalog(packaged, EMBEDDED)
    own = config_dir() / FILE_NAME
    if not own.is_file():
        return _linked(catalog, packaged)
    added = read_catalog(own, own.parent)
    for heading, used in (("auto", added.auto), ("photo", added.photo)):
        if used:
            hint = "choose your weights with --model NAME"
            raise UsageError(f"{own}: [{heading}] belongs to the packaged catalogue", hint)
    for name in added.entries:
        if name in catalog.entries:
            raise UsageError(f"{own}: [weights.{name}]: the packaged catalogue has that name", "choose another name")
    return _linked(Catalog({**catalog.entries, **added.entries}, catalog.auto, catalog.photo), own)


def packaged_file() -> Path:
    """The catalogue inside an installed wheel, else the one beside the package in a checkout or editable install."""
    for folder in (_PACKAGE, _PACKAGE.parent):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise WeightsError(f"{FILE_NAME} is missing beside {_PACKAGE}", "install dsclora again")


def read_catalog(path: Path, folder: Path) -> Catalog:
    """One catalogue file; files of entries without a repository lie in `folder`. Raises UsageError."""
    try:
        document = TomlTable(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}", "see docs/weights.md for an example") from error
    weights = document.table("weights")
    entries = {name: _read_entry(name, weights.table(name), folder) for name in list(weights.rest)}
    auto = document.table("auto")
    choices = {auto.scale_of(key): auto.names(key) for key in list(auto.rest)}
    photo = _read_photo(document.table("photo"))
    document.close()
    return Catalog(entries, choices, photo)


def _read_photo(table: TomlTable) -> PhotoRule | None:
    if not table.rest:
        return None
    below = table.number("below")
    if not 0 <= below <= 100:
        raise table.error("below", below, "a JPEG quality, 0 to 100")
    models = {table.scale_of(key): table.text(key) for key in list(table.rest)}
    return PhotoRule(below, models)


def _read_entry(name: str, table: TomlTable, folder: Path) -> WeightEntry:
    if name == "auto":
        raise table.error("name", name, "free: `--model auto` means something else")
    url = table.optional("url", _ADDRESS)
    entry = WeightEntry(
        name=name,
        arch=table.text("arch", "|".join(_ARCHITECTURES)),
        scale=table.count("scale"),
        channels=table.count("channels"),
        file=table.text("file") if url is None else url,
        size=table.count("size") if url is None or "size" in table.rest else 0,
        sha256=table.text("sha256", _SHA256) if url is None else table.optional("sha256", _SHA256) or "",
        licence=table.text("licence"),
        source=table.text("source"),
        folder=folder,
        repo=table.optional("repo", f"{_REPO_PART}/{_REPO_PART}"),
        revision=table.optional("revision"),
        url=url,
        base=table.optional("base"),
        published=table.scores("published", _METRICS),
        reference=table.scores("reference", _METRICS),
    )
    if entry.repo is not None and url is not None:
        raise table.error("url", url, "given without `repo`")
    if entry.repo is not None and not set(entry.file.split("/")).isdisjoint({"", ".", ".."}):
        raise table.error("file", entry.file, "a path inside the repository")
    if entry.repo is None and entry.revision is not None:
        raise table.error("revision", entry.revision, "given together with `repo`")
    table.close()
    return entry


def _linked(catalog: Catalog, path: Path) -> Catalog:
    """The catalogue, once every name that an entry or `[auto]` refers to is known to be there and to fit."""
    for entry in catalog.entries.values():
        base = catalog.entries.get(entry.base or "")
        if entry.base is not None and (base is None or base.base is not None or base.scale != entry.scale):
            raise UsageError(
                f"{path}: [weights.{entry.name}] base: {entry.base!r} is no entry of weights and that scale"
            )
    photo = {} if catalog.photo is None else {scale: (name,) for scale, name in catalog.photo.models.items()}
    for heading, choices in (("auto", catalog.auto), ("photo", photo)):
        for scale, names in choices.items():
            for name in names:
                if name not in catalog.entries or catalog.entries[name].scale != scale:
                    raise UsageError(f"{path}: [{heading}] {scale}: {name!r} is no entry of that scale")
    return catalog


_SHOWN = 60
_FILLED = r"(?s).*\S.*"


class TomlTable:
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

    def table(self, key: str) -> TomlTable:
        """A table inside this one, empty where it is absent."""
        value = self.rest.pop(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "a table")
        return TomlTable(self.file, value, f"{self.heading}.{key}" if self.heading else key)

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
