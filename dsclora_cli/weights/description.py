"""`dsclora models info`: everything that is known of a model, or of a weight file of the user.

No torch for a model whose file is not on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsclora_cli import hub
from dsclora_cli.paths import sha256_of
from dsclora_cli.storage.places import parse_place
from dsclora_cli.weights.catalog import Catalog, Scores, WeightEntry, load_catalog
from dsclora_cli.weights.download import WeightPlace, find_local, known_sha256
from dsclora_cli.weights.finished import unreadable_weights
from dsclora_cli.weights.hub_models import find_trusted, is_hub_reference
from dsclora_cli.weights.listing import model_row
from dsclora_cli.weights.remote import local_weights
from dsclora_cli.weights.resolve import names_file

if TYPE_CHECKING:
    from dsclora_cli.weights.adapters import LoadedAdapter


@dataclass(frozen=True)
class NetworkFacts:
    """What the tensors of a file say of a network, in the merged form that upscales."""

    arch: str
    """Architecture: span, compact, edsr or rcan; for a network of spandrel, the name there in lower case."""

    scale: int
    """Factor by which the network enlarges the sides in one pass."""

    channels: int
    """Number of channels between the layers; 0 for a network of spandrel."""

    blocks: int
    """Number of blocks in the body (RCAN: in every group of the body); 0 for a network of spandrel."""

    parameters: int
    """Number of weights and biases."""

    multiply_adds: int
    """Multiply-adds of all convolutions for an input of 256x256, without biases; 0 for a network of spandrel."""

    halo: int
    """Radius of the receptive field in LR pixels: the context of a tile."""

    exact_tiles: bool
    """Whether tiles give the same picture as the whole; False where a layer sees the whole picture."""

    half_precision: bool
    """Whether the network may run in float16."""


@dataclass(frozen=True)
class AdapterFacts:
    """What the tensors of a file say of an adapter."""

    base_sha256: str
    """sha256 of the weights that the adapter was trained on."""

    parameters: int
    """Number of trained values."""

    layers: int
    """Number of adapted convolutions."""


@dataclass(frozen=True)
class ModelDescription:
    """Result of `dsclora models info`; the field names are keys of the JSON output."""

    name: str
    """Name in the catalog; for an unknown file, the name of the file without its suffix."""

    place: str
    """Where the file is: a file of the user, or one of `download.WeightPlace`."""

    path: Path | None
    """File on this machine, if there is one."""

    size: int
    """Size of the file in bytes; 0 for an unknown size."""

    sha256: str
    """sha256 of the file, or the pin of the catalog; empty for an unknown sha256."""

    scale: int | None
    """Factor by which the model enlarges the sides in one pass; None for an adapter without its base."""

    arch: str | None
    """Architecture, as in `NetworkFacts.arch`; None for an adapter without its base."""

    network: NetworkFacts | None = None
    """Facts on the network in the file, or on the base of an adapter; None without the file."""

    adapter: AdapterFacts | None = None
    """Facts on the adapter; None for plain weights."""

    base: str | None = None
    """Name of the weights that an adapter is for, if the catalog knows the weights."""

    training: Mapping[str, Any] = field(default_factory=dict)
    """What the file says of the training run."""

    licence: str = ""
    """Terms, as the catalog or else the file says; empty where neither does."""

    source: str = ""
    """Where the weights come from, as the catalog or else the file says; empty where neither does."""

    repo: str | None = None
    """Repository on the Hub."""

    revision: str | None = None
    """Pinned branch, tag or commit of `repo`; None means the default branch."""

    url: str | None = None
    """Address of the file outside the Hub."""

    auto: int | None = None
    """Rank, from 1, among the models that `--model auto` tries for this scale."""

    photo: float | None = None
    """JPEG quality below which `--model auto` tries this model first."""

    photo_webp: float | None = None
    """WebP quality below which `--model auto` tries this model first."""

    photo_avif: float | None = None
    """AVIF quality below which `--model auto` tries this model first."""

    sharp: str | None = None
    """Name of the weights towards which `--sharp` moves the model."""

    published: Scores = field(default_factory=dict)
    """Scores printed in `source`, by set and metric; PSNR in dB."""

    reference: Scores = field(default_factory=dict)
    """Scores measured by this project, by set and metric; PSNR in dB."""


def describe_model(text: str) -> ModelDescription:
    """Describe a model of the catalog by name, or a weight file by path, without accessing the internet.

    Raises UsageError for an unknown name, and WeightsError for a file that cannot be read or holds no weights.
    """
    catalog = load_catalog()
    if names_file(text):
        return _describe_own_file(local_weights(parse_place(text), offline=True), catalog)
    if is_hub_reference(text):
        return _describe_reference(text, catalog)
    entry = catalog.entry(text)
    path = find_local(entry)
    known = _describe_entry(entry, catalog, path)
    return known if path is None else _add_contents(known, path, catalog)


def _describe_reference(reference: str, catalog: Catalog) -> ModelDescription:
    """Return what is known of a file on the Hub that was used before."""
    trusted = find_trusted(reference)
    path = hub.find_cached(trusted.wanted)
    place = WeightPlace.CACHED if path else WeightPlace.HUB
    known = ModelDescription(
        reference, str(place), path, trusted.size, trusted.sha256, scale=None, arch=None, licence=trusted.licence,
        repo=trusted.repo, revision=trusted.revision,
    )  # fmt: skip
    return known if path is None else _add_contents(known, path, catalog)


def _describe_own_file(path: Path, catalog: Catalog) -> ModelDescription:
    try:
        sha256, size = sha256_of(path), path.stat().st_size
    except OSError as error:
        raise unreadable_weights(path, error) from error
    entry = catalog.with_sha256(sha256)
    if entry is None:
        known = ModelDescription(path.stem, "file", path, size, sha256, scale=None, arch=None)
    else:  # a copy of known weights, whatever the name of the file
        known = replace(_describe_entry(entry, catalog, path), place="file")
    return _add_contents(known, path, catalog)


def _describe_entry(entry: WeightEntry, catalog: Catalog, path: Path | None) -> ModelDescription:
    """Return what the catalog says of an entry."""
    row = model_row(entry, catalog)
    return ModelDescription(
        name=entry.name,
        place=row.place,
        path=path,
        size=path.stat().st_size if path else entry.size,
        sha256=known_sha256(entry),
        scale=entry.scale,
        arch=entry.arch,
        base=entry.base,
        licence=entry.licence,
        source=entry.source,
        repo=entry.repo,
        revision=entry.revision,
        url=entry.url,
        auto=row.auto,
        photo=row.photo,
        photo_webp=row.photo_webp,
        photo_avif=row.photo_avif,
        sharp=row.sharp,
        published=entry.published,
        reference=entry.reference,
    )


def _add_contents(known: ModelDescription, path: Path, catalog: Catalog) -> ModelDescription:
    """Return a description with what the tensors and the metadata of the file say."""
    # Here torch is imported; everything before reads text and hashes bytes.
    from dsclora_cli.weights.adapters import is_adapter, load_adapters
    from dsclora_cli.weights.state_dict import read_tensors

    file = read_tensors(path)
    stored = file.metadata
    known = replace(
        known,
        training=_read_training(stored.get("training", "")),
        licence=known.licence or stored.get("licence", ""),
        source=known.source or stored.get("source", ""),
    )
    if is_adapter(file):
        return _add_adapter(known, load_adapters(path), catalog)
    network = _network_facts(path)
    return replace(known, network=network, scale=network.scale, arch=network.arch)


def _add_adapter(known: ModelDescription, loaded: LoadedAdapter, catalog: Catalog) -> ModelDescription:
    parameters = sum(tensor.numel() for name, tensor in loaded.tensors.items() if not name.endswith(".alpha"))
    layers = sum(name.endswith(".A") for name in loaded.tensors)
    known = replace(known, adapter=AdapterFacts(loaded.base_sha256, parameters, layers))
    base = catalog.with_sha256(loaded.base_sha256)
    if base is None:
        return known
    path = find_local(base)
    network = _network_facts(path) if path else None
    return replace(known, base=base.name, scale=base.scale, arch=base.arch, network=network)


def _network_facts(path: Path) -> NetworkFacts:
    from dsclora_cli.models.complexity import complexity
    from dsclora_cli.weights.checkpoint import load_network

    network = load_network(path)
    config, descriptor = network.config, network.config.descriptor
    # A network of spandrel looks at values, which the meta device of the count does not have.
    counted = complexity(network).multiply_adds if descriptor.traceable else 0
    return NetworkFacts(
        arch=descriptor.arch,
        scale=descriptor.scale,
        channels=config.channels,
        blocks=config.blocks,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=counted,
        halo=descriptor.halo,
        exact_tiles=descriptor.exact_tiles,
        half_precision=descriptor.supports_half,
    )


def _read_training(text: str) -> Mapping[str, Any]:
    """Return the entry `training` of the metadata, which is JSON in most files and a sentence in others."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, dict):
        return read
    return {"note": text} if text else {}
