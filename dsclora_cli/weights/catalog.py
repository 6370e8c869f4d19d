"""The catalog of weights: read and check the packaged `weights.toml` and the user's own file. No torch.

`load_catalog` is the entry point; docs/weights.md explains every key of the file.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.names import ARCHITECTURES
from dsclora_cli.paths import config_dir, is_file, is_inner_path, is_taken, read_small

FILE_NAME = "weights.toml"
_PACKAGE = Path(__file__).parent.parent
EMBEDDED = _PACKAGE / "weights" / "embedded"
"""Folder of the weight files inside the package."""

_METRICS = ("psnr_y", "ssim_y", "psnr_rgb")
"""Keys of `METRICS` that a catalog may state scores of."""

_SHA256 = "[0-9a-f]{64}"
# Plain http only for this machine; no file: or ftp: addresses.
_ADDRESS = r"https://\S+|http://(localhost|127\.0\.0\.1)[:/]\S*"
_REPO_PART = r"\w+(?:[.-]\w+)*"

Scores = Mapping[str, Mapping[str, float]]
"""Benchmark set to metric to value; PSNR in dB."""


@dataclass(frozen=True)
class WeightEntry:
    """A weight file of the catalog.

    The bytes lie in one of three places: in a Hub repository (`repo` is set), at a web address (`url` is set), or in
    `folder` on this machine.
    """

    name: str

    arch: str
    """Architecture, a key of `ARCHITECTURES`."""

    scale: int
    """Factor by which the network enlarges the sides in one pass."""

    channels: int
    """Number of channels between the layers of the network."""

    file: str
    """Path inside the Hub repository, or path relative to `folder`; the address itself for a file with `url`."""

    size: int
    """Size in bytes; 0 for an unknown size, possible with `url` only."""

    sha256: str
    """Expected sha256 of the file, the pin; empty for an unknown sha256, possible with `url` only."""

    licence: str

    source: str
    """Text for users: where the weights come from."""

    folder: Path
    """Folder of the file, for an entry without `repo` and `url`."""

    repo: str | None = None
    """Model repository on the Hugging Face Hub, `owner/name`."""

    revision: str | None = None
    """Branch, tag or commit of `repo`; None means the default branch."""

    url: str | None = None
    """Address of the file, for weights that no Hub repository holds."""

    base: str | None = None
    """Name of another entry: the file is an adapter for the weights of that entry."""

    sharp: str | None = None
    """Name of another entry: the network towards which `--sharp` moves these weights."""

    published: Scores = field(default_factory=dict)
    """Scores printed in `source`."""

    reference: Scores = field(default_factory=dict)
    """Scores measured by this project."""


@dataclass(frozen=True)
class PhotoRule:
    """Choice of `--model auto` for compressed pictures, at one native scale."""

    model: str
    """Name of an entry."""

    below: Mapping[str, float]
    """Format, JPEG, WEBP or AVIF, to a quality from 0 to 100; the rule holds for pictures of a lower quality."""


@dataclass(frozen=True)
class Catalog:
    """All known weights, and the choices of `--model auto`."""

    entries: Mapping[str, WeightEntry]
    """Entries by name, in the order of the file."""

    auto: Mapping[int, tuple[str, ...]]
    """Native scale to the names that `--model auto` tries in turn."""

    photo: Mapping[int, PhotoRule] = field(default_factory=dict)
    """Native scale to the choice for compressed pictures, where there is a special one."""

    def entry(self, name: str) -> WeightEntry:
        """Return the entry called `name`. Raises UsageError with similar names."""
        if name not in self.entries:
            import difflib

            close = difflib.get_close_matches(name, self.entries, n=3, cutoff=0.5)
            choice = f"choose {', '.join(close)}; " if close else ""
            raise UsageError(f"no model is called {name!r}", f"{choice}see `dsclora models list`")
        return self.entries[name]

    def with_sha256(self, sha256: str) -> WeightEntry | None:
        """Return the entry with this sha256, if any."""
        return next((entry for entry in self.entries.values() if entry.sha256 == sha256), None)


def load_catalog() -> Catalog:
    """Return the packaged catalog together with the user's entries. Raises UsageError with file, table and key.

    The files are read and checked again only after a change.
    """
    own = config_dir() / FILE_NAME
    # A pipe or a folder of this name is no catalog, and reading says so.
    return _load(_version(packaged_file()), _version(own) if is_taken(own) else None)


_FileVersion = tuple[Path, int, int]
"""Path, size and time of modification (ns) of a file: equal versions mean equal contents."""


def _version(path: Path) -> _FileVersion:
    """Return the version of a file. Raises OSError."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1)
def _load(packaged: _FileVersion, own: _FileVersion | None) -> Catalog:
    """Read and check both files, and join the entries."""
    catalog = read_catalog(packaged[0], EMBEDDED)
    if own is None:
        return _check_names(catalog, packaged[0])
    path = own[0]
    added = read_catalog(path, path.parent)
    # A user's file adds names and changes nothing: `--model auto` and every packaged name mean the same for all users.
    for heading, used in (("auto", added.auto), ("photo", added.photo)):
        if used:
            hint = "choose your weights by their name"
            raise UsageError(f"{path}: [{heading}] belongs to the packaged catalogue", hint)
    for name in added.entries:
        if name in catalog.entries:
            raise UsageError(f"{path}: [weights.{name}]: the packaged catalogue has that name", "choose another name")
    return _check_names(Catalog({**catalog.entries, **added.entries}, catalog.auto, catalog.photo), path)


def packaged_file() -> Path:
    """Return the catalog inside an installed wheel, else the catalog next to the package in a checkout."""
    for folder in (_PACKAGE, _PACKAGE.parent):
        if is_file(folder / FILE_NAME):
            return folder / FILE_NAME
    raise WeightsError(f"{FILE_NAME} is missing in {_PACKAGE}", "install dsclora again")


def read_catalog(path: Path, folder: Path) -> Catalog:
    """Read a catalog file; files of entries without a repository and address lie in `folder`. Raises UsageError."""
    try:
        document = TomlTable(path, tomllib.loads(read_small(path)))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise UsageError(f"{path}: {error.strerror}", "check the permissions") from error
        raise UsageError(f"{path}: {error}", "see docs/weights.md for an example") from error
    weights = document.table("weights")
    # Lists of the keys, because reading a key takes it out of `rest`.
    entries = {name: _read_entry(name, weights.table(name), folder) for name in list(weights.rest)}
    auto = document.table("auto")
    choices = {auto.scale_of(key): auto.names(key) for key in list(auto.rest)}
    photo = document.table("photo")
    rules = {photo.scale_of(key): _read_rule(photo.table(key)) for key in list(photo.rest)}
    document.close()
    return Catalog(entries, choices, rules)


def _read_entry(name: str, table: TomlTable, folder: Path) -> WeightEntry:
    """Read the table of one weight file. Raises UsageError for a wrong key or value."""
    if name == "auto":
        raise table.error("name", name, "free: `--model auto` has its own meaning")
    if "/" in name or not is_inner_path(name):  # the name becomes a folder of the cache, and a part of file names
        raise table.error("name", name, "a name that can be part of a file name")
    url = table.optional("url", _ADDRESS)
    # With an address, `file` is the address, and `size` and `sha256` may be left out: nobody may have stated them.
    entry = WeightEntry(
        name=name,
        arch=table.text("arch", "|".join(ARCHITECTURES)),
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
        sharp=table.optional("sharp"),
        published=table.scores("published", _METRICS),
        reference=table.scores("reference", _METRICS),
    )
    if entry.repo is not None and url is not None:
        raise table.error("url", url, "given without `repo`")
    if entry.repo is not None and not is_inner_path(entry.file):
        raise table.error("file", entry.file, "a path inside the repository")
    if entry.repo is None and entry.revision is not None:
        raise table.error("revision", entry.revision, "given together with `repo`")
    table.close()
    return entry


def _read_rule(table: TomlTable) -> PhotoRule:
    """Read the table of one native scale in `[photo]`. Raises UsageError for a wrong key or value."""
    model, below = table.text("model"), {}
    for key in ("jpeg", *(key for key in ("webp", "avif") if key in table.rest)):
        quality = table.number(key)
        # Above the best quality, so that a rule can hold for every file of the format.
        if not 0 <= quality <= 101:
            raise table.error(key, quality, "a quality, 0 to 101")
        below[key.upper()] = quality
    table.close()
    return PhotoRule(model, below)


def _check_names(catalog: Catalog, path: Path) -> Catalog:
    """Return the catalog. Raises UsageError for a reference to an entry that is missing or has another scale."""
    entries = catalog.entries
    # The base of an adapter must be plain weights: adapters of adapters are not supported.
    plain: Mapping[str, WeightEntry] = {name: entry for name, entry in entries.items() if entry.base is None}
    references = [
        (f"[weights.{each.name}] base", each.base, each.scale, plain) for each in entries.values() if each.base
    ]
    references += [
        (f"[weights.{each.name}] sharp", each.sharp, each.scale, plain) for each in entries.values() if each.sharp
    ]
    references += [(f"[auto] {scale}", name, scale, entries) for scale, names in catalog.auto.items() for name in names]
    references += [(f"[photo.{scale}] model", rule.model, scale, entries) for scale, rule in catalog.photo.items()]
    for where, name, scale, allowed in references:
        if name not in allowed or allowed[name].scale != scale:
            problem = f"{path}: {where}: {name!r} is not the name of weights of scale {scale}"
            raise UsageError(problem, "see docs/weights.md")
    return catalog


_SHOWN = 60
_FILLED = r"(?s).*\S.*"


class TomlTable:
    """A TOML table that is read key by key: every method takes and checks a key, `close` refuses the keys left over.

    `rest` holds the keys not yet taken. Every error is a UsageError with file, heading and key.
    """

    def __init__(self, file: Path, values: Mapping[str, object], heading: str = "") -> None:
        self.file = file
        self.heading = heading
        self.rest = dict(values)

    def text(self, key: str, pattern: str = _FILLED) -> str:
        """Take a required text that matches the whole pattern."""
        value = self._take(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.error(key, value, "text" if pattern == _FILLED else f"text like {pattern}")
        return value

    def optional(self, key: str, pattern: str = _FILLED) -> str | None:
        """Take a text that matches the whole pattern; return None without the key."""
        return self.text(key, pattern) if key in self.rest else None

    def count(self, key: str) -> int:
        """Take a required whole number above 0."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:  # `true` is an int in Python
            raise self.error(key, value, "a whole number above 0")
        return value

    def number(self, key: str) -> float:
        """Take a required finite number."""
        value = self._take(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.error(key, value, "a number")
        return float(value)

    def names(self, key: str) -> tuple[str, ...]:
        """Take a required list of names, not empty."""
        value = self._take(key)
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            raise self.error(key, value, "a list of names")
        return tuple(value)

    def scale_of(self, key: str) -> int:
        """Return the native scale spelled by the key itself; the key stays in `rest`."""
        if not re.fullmatch("[1-9][0-9]?", key):
            raise self.error(key, key, "a native scale")
        return int(key)

    def table(self, key: str) -> TomlTable:
        """Take an inner table; return an empty table without the key."""
        value = self.rest.pop(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "a table")
        return TomlTable(self.file, value, f"{self.heading}.{key}" if self.heading else key)

    def scores(self, key: str, metrics: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """Take a table of benchmark sets, each with numbers by metric; return an empty table without the key."""
        sets = self.table(key)
        scores: dict[str, dict[str, float]] = {}
        for name in list(sets.rest):
            table = sets.table(name)
            scores[name] = {metric: table.number(metric) for metric in metrics if metric in table.rest}
            table.close()
        return scores

    def close(self) -> None:
        """Raise UsageError for a key left over."""
        for key in self.rest:
            raise self._error(key, "unknown key")

    def error(self, key: str, value: object, expected: str) -> UsageError:
        """Return the error for a key with a `value` other than `expected`."""
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        return self._error(key, f"{shown} is not {expected}")

    def _take(self, key: str) -> object:
        if key not in self.rest:
            raise self._error(key, "missing")
        return self.rest.pop(key)

    def _error(self, key: str, problem: str) -> UsageError:
        where = f"[{self.heading}] " if self.heading else ""
        return UsageError(f"{self.file}: {where}{key}: {problem}", "see docs/weights.md")
