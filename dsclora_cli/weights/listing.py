"""The catalogue with what of it is on this machine, behind `dsclora models list`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.weights.catalog import Scores, load_catalog
from dsclora_cli.weights.download import OnBytes, obtain, place_of, sha256_pinned


@dataclass(frozen=True)
class ModelRow:
    """One entry of the catalogue. `size` is in bytes, 0 where it is unknown.

    `place` is embedded, local, cached, on the Hub, on the web or missing.
    `auto` is its rank, from 1, among what `--model auto` tries for its scale, or None; `photo` the JPEG quality below
    which it is tried first, or None. An adapter has a `base`. Scores: set to metric to value.
    """

    name: str
    arch: str
    scale: int
    channels: int
    size: int
    licence: str
    source: str
    place: str
    auto: int | None
    photo: float | None
    base: str | None
    repo: str | None
    sha256: str
    published: Scores
    reference: Scores


def list_models() -> tuple[ModelRow, ...]:
    """Every entry in the order of the catalogue, without any request. Raises UsageError for a broken catalogue."""
    catalog = load_catalog()
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
    """Where a model's file is, and its sha256."""

    path: Path
    sha256: str


def fetch_model(name: str, trust: bool, on_bytes: OnBytes | None = None) -> FetchedModel:
    """Have the file of a model, and of its base, on this machine.

    `trust` takes one that has no pin. Raises UsageError for no such name, and WeightsError.
    """
    catalog = load_catalog()
    entry = catalog.entry(name)
    if entry.base is not None:
        obtain(catalog.entry(entry.base))
    path = obtain(entry, trust=trust, on_bytes=on_bytes)
    return FetchedModel(path, sha256_pinned(entry))
