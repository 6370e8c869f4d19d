"""From what the user asked for to a file of weights. No torch, but for reading the scale of a file given by path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.config import DEFAULT_SCALE, ModelOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.hub import HubUnavailable
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.catalog import Catalog, WeightEntry, load_catalog
from dsclora_cli.weights.store import obtain

AUTO = "auto"
_SUFFIXES = {".pth", ".pt", ".safetensors"}


@dataclass(frozen=True)
class FoundWeights:
    """A file with verified bytes. `note` is one sentence where `auto` had to take another than its first choice."""

    path: Path
    sha256: str
    name: str
    entry: WeightEntry | None
    note: str | None = None


def find_weights(options: ModelOptions, scale: int | None) -> FoundWeights:
    """The weights for a native scale; None means the only one, or with `auto` the default one.

    A file or a name gives the same answer every time or an error. `auto` goes on to the next of its list where the
    Hub cannot give a file, never where the bytes it gave are wrong. Raises UsageError and WeightsError.
    """
    _check(options)
    catalog = load_catalog()
    if options.weights is not None:
        return _from_file(options.weights, catalog)
    if options.model == AUTO:
        return _first_obtainable(catalog, int(DEFAULT_SCALE) if scale is None else scale, options.offline)
    entry = catalog.entry(options.model)
    if scale not in {None, entry.scale}:
        raise UsageError(f"{entry.name} upscales by {entry.scale}, not by {scale}", "see `dsclora models list`")
    return _found(entry, options.offline)


def named_weights(text: str, offline: bool = False) -> FoundWeights:
    """Weights by a file's path or a name of the catalogue, as training options give them. Raises as `find_weights`."""
    path = Path(text)
    is_file = path.is_file() or path.suffix in _SUFFIXES
    options = ModelOptions(weights=path, offline=offline) if is_file else ModelOptions(text, offline=offline)
    return find_weights(options, None)


def joined(found: Iterable[FoundWeights]) -> tuple[str, str]:
    """Name and sha256 of the weights of a chain of passes, each given once, with `+` between them."""
    chain = list(found)
    return "+".join(weights.name for weights in chain), "+".join(weights.sha256 for weights in chain)


def native_scales(options: ModelOptions) -> tuple[int, ...]:
    """The scales that these weights upscale by in one pass, ascending, without any request.

    Raises UsageError, and WeightsError for a file that holds no network.
    """
    _check(options)
    if options.weights is not None:
        from dsclora_cli.weights.checkpoint import describe_file

        return (describe_file(options.weights).scale,)
    catalog = load_catalog()
    if options.model == AUTO:
        return tuple(sorted(catalog.auto))
    return (catalog.entry(options.model).scale,)


def _check(options: ModelOptions) -> None:
    if options.weights is not None and options.model != AUTO:
        raise UsageError(
            f"both a model ({options.model}) and a weights file ({options.weights}) are given", "give only one of them"
        )


def _from_file(path: Path, catalog: Catalog) -> FoundWeights:
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", "check the path given with --weights") from error
    entry = catalog.with_sha256(sha256)
    return FoundWeights(path, sha256, path.stem if entry is None else entry.name, entry)


def _first_obtainable(catalog: Catalog, scale: int, offline: bool) -> FoundWeights:
    if scale not in catalog.auto:
        scales = ", ".join(str(known) for known in sorted(catalog.auto))
        raise UsageError(f"no model upscales by {scale} in one pass", f"there are models for {scales}")
    missed: list[HubUnavailable] = []
    for name in catalog.auto[scale]:
        entry = catalog.entry(name)
        try:
            found = _found(entry, offline)
        except HubUnavailable as error:
            missed.append(error)
            continue
        if not missed:
            return found
        kind = "" if entry.repo else "embedded "
        note = f"{catalog.auto[scale][0]} could not be fetched ({missed[0].reason}): using the {kind}{name}"
        return FoundWeights(found.path, found.sha256, name, entry, note)
    raise missed[0]


def _found(entry: WeightEntry, offline: bool) -> FoundWeights:
    return FoundWeights(obtain(entry, offline), entry.sha256, entry.name, entry)
