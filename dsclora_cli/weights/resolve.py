"""From what the user asked for to a file of weights. No torch, but for reading the scale of a file given by path.

From weights that were found to a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsclora_cli.config import DEFAULT_SCALE, ModelOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.hub import HubUnavailable
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.catalog import Catalog, PhotoRule, WeightEntry, load_catalog
from dsclora_cli.weights.download import obtain, sha256_pinned

if TYPE_CHECKING:
    from dsclora_cli.models.network import Network

AUTO = "auto"
AUTO_PHOTO = "auto for a compressed JPEG"
"""What `select_model` makes of `auto`."""

_SUFFIXES = {".pth", ".pt", ".safetensors"}


@dataclass(frozen=True)
class FoundWeights:
    """A file with verified bytes. `note` is one sentence where `auto` had to take another than its first choice.

    With `adapter`, a file to be merged into the weights, `sha256` is that of the weights, a slash, and the adapter's.
    """

    path: Path
    sha256: str
    name: str
    entry: WeightEntry | None
    note: str | None = None
    adapter: Path | None = None

    @property
    def base_sha256(self) -> str:
        """The sha256 of the file at `path`."""
        return self.sha256.partition("/")[0]


def find_weights(options: ModelOptions, scale: int | None) -> FoundWeights:
    """The weights for a native scale; None means the only one, or with `auto` the default one.

    A file or a name gives the same answer every time or an error. `auto` goes on to the next of its list where the
    Hub cannot give a file, never where the bytes it gave are wrong. Raises UsageError and WeightsError.
    """
    _check(options)
    catalog = load_catalog()
    if options.adapter is not None:
        return _adapted(options, options.adapter, scale)
    if options.weights is not None:
        return _from_file(options.weights, catalog)
    if options.model in {AUTO, AUTO_PHOTO}:
        return _first_obtainable(catalog, int(DEFAULT_SCALE) if scale is None else scale, options)
    entry = catalog.entry(options.model)
    if scale not in {None, entry.scale}:
        raise UsageError(f"{entry.name} upscales by {entry.scale}, not by {scale}", "see `dsclora models list`")
    return _found(entry, catalog, options.offline)


def select_model(
    options: ModelOptions, jpeg_quality: int | None, scale: int, photo: PhotoRule | None
) -> tuple[ModelOptions, str | None]:
    """The options for one picture, and for `auto` what it is that decides: the weights for compressed JPEGs or others.

    `scale` is the first native scale that the picture goes through.
    """
    if photo is None or (options.model, options.weights, options.adapter) != (AUTO, None, None):
        return options, None
    if jpeg_quality is None:
        return options, "not a JPEG"
    if jpeg_quality >= photo.below:
        return options, f"a JPEG of quality {jpeg_quality}, not below {photo.below:g}"
    if scale not in photo.models:
        return options, f"a JPEG of quality {jpeg_quality}, but no model for photographs upscales by {scale}"
    return replace(options, model=AUTO_PHOTO), f"a JPEG of quality {jpeg_quality}, below {photo.below:g}"


def find_named_weights(text: str, offline: bool = False) -> FoundWeights:
    """Weights by a file's path or a name of the catalogue, as training options give them. Raises as `find_weights`."""
    path = Path(text)
    is_file = path.is_file() or path.suffix in _SUFFIXES
    options = ModelOptions(weights=path, offline=offline) if is_file else ModelOptions(text, offline=offline)
    return find_weights(options, None)


def chain_identity(found: Iterable[FoundWeights]) -> tuple[str, str]:
    """Name and sha256 of the weights of a chain of passes, each given once, with `+` between them."""
    chain = list(found)
    return "+".join(weights.name for weights in chain), "+".join(weights.sha256 for weights in chain)


def native_scales(options: ModelOptions) -> tuple[int, ...]:
    """The scales that these weights upscale by in one pass, ascending, without any request.

    Raises UsageError, and WeightsError for a file that holds no network.
    """
    _check(options)
    if options.adapter is not None:
        return native_scales(_base_of(options, options.adapter, _base_sha256(options.adapter)))
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


def _adapted(options: ModelOptions, adapter: Path, scale: int | None) -> FoundWeights:
    base_sha256 = _base_sha256(adapter)
    base = find_weights(_base_of(options, adapter, base_sha256), scale)
    if base.sha256 != base_sha256:
        known = load_catalog().with_sha256(base_sha256)
        wanted = f"weights with sha256 {base_sha256[:12]}..." if known is None else known.name
        raise UsageError(f"{adapter} is an adapter for {wanted}, not for {base.name}", "give it with these weights")
    sha256, name = f"{base.sha256}/{sha256_of(adapter)}", f"{base.name}-{adapter.stem}"
    return FoundWeights(base.path, sha256, name, None, base.note, adapter)


def _base_sha256(adapter: Path) -> str:
    from dsclora_cli.weights.adapters import load_adapters

    return load_adapters(adapter).base_sha256


def _base_of(options: ModelOptions, adapter: Path, base_sha256: str) -> ModelOptions:
    """The options without the adapter; `auto` becomes the entry that the adapter was trained over."""
    plain = replace(options, adapter=None)
    if options.weights is not None or options.model != AUTO:
        return plain
    entry = load_catalog().with_sha256(base_sha256)
    if entry is None:
        raise WeightsError(
            f"{adapter} adapts weights that no model of the catalogue has: sha256 {base_sha256[:12]}...",
            "give them with --weights FILE",
        )
    return replace(plain, model=entry.name)


def _first_obtainable(catalog: Catalog, scale: int, options: ModelOptions) -> FoundWeights:
    if scale not in catalog.auto:
        scales = ", ".join(str(known) for known in sorted(catalog.auto))
        raise UsageError(f"no model upscales by {scale} in one pass", f"there are models for {scales}")
    missed: list[HubUnavailable] = []
    photo = catalog.photo.models.get(scale) if catalog.photo and options.model == AUTO_PHOTO else None
    names = (*((photo,) if photo else ()), *catalog.auto[scale])
    for name in names:
        entry = catalog.entry(name)
        try:
            found = _found(entry, catalog, options.offline)
        except HubUnavailable as error:
            missed.append(error)
            continue
        if not missed:
            return found
        kind = "" if entry.repo else "embedded "
        note = f"{names[0]} could not be fetched ({missed[0].reason}): using the {kind}{name}"
        return replace(found, note=note)
    raise missed[0]


def _found(entry: WeightEntry, catalog: Catalog, offline: bool) -> FoundWeights:
    path = obtain(entry, offline)
    if entry.base is None:
        return FoundWeights(path, sha256_pinned(entry), entry.name, entry)
    base = catalog.entry(entry.base)
    sha256 = f"{base.sha256}/{entry.sha256}"
    return FoundWeights(obtain(base, offline), sha256, entry.name, entry, adapter=path)


def open_network(found: FoundWeights) -> Network:
    """The network in merged form, with its adapter merged in where it has one. Raises WeightsError."""
    from dsclora_cli.weights.adapters import apply_adapters, load_adapters
    from dsclora_cli.weights.checkpoint import load_network

    network = load_network(found.path)
    if found.adapter is None:
        return network
    return apply_adapters(network, found.base_sha256, load_adapters(found.adapter))
