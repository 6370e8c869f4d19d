"""`dsclora models list` and `dsclora models fetch`: the catalog, and where the files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.weights.catalog import Scores, load_catalog
from dsclora_cli.weights.download import OnBytes, known_sha256, obtain, place_of


@dataclass(frozen=True)
class ModelRow:
    """An entry of the catalog for `dsclora models list`; the field names are keys of the JSON output."""

    name: str

    arch: str
    """Architecture: span, edsr or rcan."""

    scale: int
    """Factor by which the network enlarges the sides in one pass."""

    channels: int

    size: int
    """Size of the file in bytes; 0 for an unknown size."""

    licence: str
    source: str

    place: str
    """Where the file is: embedded, local, cached, on the Hub, on the web or missing; see `Place`."""

    auto: int | None
    """Rank, from 1, among the models that `--model auto` tries for this scale; None for a model that it never tries."""

    photo: float | None
    """JPEG quality below which `--model auto` tries this model first; None for all other models."""

    base: str | None
    """Name of the weights that an adapter is for; None for plain weights."""

    repo: str | None
    """Hub repository of the file."""

    sha256: str
    """Pinned sha256, empty for an unknown sha256."""

    published: Scores
    reference: Scores


def list_models() -> tuple[ModelRow, ...]:
    """Return all entries in the order of the catalog, without accessing the internet. Raises UsageError."""
    catalog = load_catalog()
    # The rank counts inside one scale, for `auto` compares only models of the wanted scale.
    ranks = {name: rank for names in catalog.auto.values() for rank, name in enumerate(names, 1)}
    photo = dict.fromkeys(catalog.photo.models.values(), catalog.photo.below) if catalog.photo else {}
    return tuple(
        ModelRow(
            name=entry.name,
            arch=entry.arch,
            scale=entry.scale,
            channels=entry.channels,
            size=entry.size,
            licence=entry.licence,
            source=entry.source,
            place=str(place_of(entry)),
            auto=ranks.get(entry.name),
            photo=photo.get(entry.name),
            base=entry.base,
            repo=entry.repo,
            sha256=entry.sha256,
            published=entry.published,
            reference=entry.reference,
        )
        for entry in catalog.entries.values()
    )


@dataclass(frozen=True)
class FetchedModel:
    """A model's file on this machine."""

    path: Path
    sha256: str


def fetch_model(name: str, trust: bool, on_bytes: OnBytes | None = None) -> FetchedModel:
    """Download the file of a model, and for an adapter the file of its base too.

    `trust` accepts a file without a known sha256. Raises UsageError for an unknown name, and WeightsError.
    """
    catalog = load_catalog()
    entry = catalog.entry(name)
    if entry.base is not None:
        obtain(catalog.entry(entry.base))
    path = obtain(entry, trust=trust, on_bytes=on_bytes)
    return FetchedModel(path, known_sha256(entry))
