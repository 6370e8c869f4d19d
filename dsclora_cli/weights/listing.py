"""`dsclora models list` and `dsclora models fetch`: the catalog, and where the files are. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsclora_cli import hub
from dsclora_cli.errors import ErrorInfo, UsageError, WeightsError
from dsclora_cli.paths import config_dir, downloads_dir, engines_dir
from dsclora_cli.weights.catalog import EMBEDDED, FILE_NAME, Catalog, Scores, WeightEntry, load_catalog
from dsclora_cli.weights.download import OnBytes, WeightPlace, fetch_step, find_local, known_sha256, obtain, place_of
from dsclora_cli.weights.hub_models import find_trusted, is_hub_reference, obtain_hub_model


@dataclass(frozen=True)
class ModelRow:
    """An entry of the catalog for `dsclora models list`; the field names are keys of the JSON output."""

    name: str

    arch: str
    """Architecture: span, compact, edsr or rcan."""

    scale: int
    """Factor by which the network enlarges the sides in one pass."""

    channels: int

    size: int
    """Size of the file in bytes; 0 for an unknown size."""

    licence: str
    source: str

    place: str
    """Where the file is: embedded, local, cached, on the Hub, on the web or missing; see `WeightPlace`."""

    auto: int | None
    """Rank, from 1, among the models that `--model auto` tries for this scale; None for a model that it never tries."""

    photo: float | None
    """JPEG quality below which `--model auto` tries this model first; None for all other models."""

    photo_webp: float | None
    """WebP quality below which `--model auto` tries this model first; None for all other models."""

    photo_avif: float | None
    """AVIF quality below which `--model auto` tries this model first; None for all other models."""

    base: str | None
    """Name of the weights that an adapter is for; None for plain weights."""

    sharp: str | None
    """Name of the weights towards which `--sharp` moves these weights; None for weights without a sharp model."""

    repo: str | None
    """Hub repository of the file."""

    sha256: str
    """Pinned sha256, empty for an unknown sha256."""

    published: Scores
    reference: Scores


def list_models() -> tuple[ModelRow, ...]:
    """Return all entries in the order of the catalog, without accessing the internet. Raises UsageError."""
    catalog = load_catalog()
    return tuple(model_row(entry, catalog) for entry in catalog.entries.values())


def model_row(entry: WeightEntry, catalog: Catalog) -> ModelRow:
    """Return the row of an entry, without accessing the internet."""
    # The rank counts inside one scale, for `auto` compares only models of the wanted scale.
    ranked = catalog.auto.get(entry.scale, ())
    rule = next((rule for rule in catalog.photo.values() if rule.model == entry.name), None)
    return ModelRow(
        name=entry.name,
        arch=entry.arch,
        scale=entry.scale,
        channels=entry.channels,
        size=entry.size,
        licence=entry.licence,
        source=entry.source,
        place=str(place_of(entry)),
        auto=ranked.index(entry.name) + 1 if entry.name in ranked else None,
        photo=rule.below["JPEG"] if rule else None,
        photo_webp=rule.below.get("WEBP") if rule else None,
        photo_avif=rule.below.get("AVIF") if rule else None,
        base=entry.base,
        sharp=entry.sharp,
        repo=entry.repo,
        sha256=entry.sha256,
        published=entry.published,
        reference=entry.reference,
    )


class FetchStatus(StrEnum):
    """What `fetch` did for a model."""

    HERE = "here"
    """The file was on this machine before, and is intact."""

    FETCHED = "fetched"
    """The file was downloaded and verified."""

    LEFT_OUT = "left-out"
    """Nobody knows the sha256 of the file, and `--trust-unpinned` was not given."""

    FAILED = "failed"
    """The file cannot be fetched; `error` says why."""


@dataclass(frozen=True)
class FetchedModel:
    """Result of `dsclora models fetch` for a model; the field names are keys of the JSON output."""

    name: str
    status: FetchStatus

    path: Path | None
    """File on this machine; None for a model that was left out or failed."""

    sha256: str
    """sha256 of the file; empty without a file."""

    error: ErrorInfo | None = None
    """Why the model failed."""

    note: str = ""
    """Sentence for the user about the first use of a reference to the Hub; otherwise empty."""


def select_names(names: Sequence[str], every: bool) -> tuple[str, ...]:
    """Return the models to work on, each once: the named ones, or all of the catalog.

    Raises UsageError for an unknown name, for names together with `every`, and for neither.
    """
    catalog = load_catalog()
    if bool(names) == every:
        problem = "model names and --all are given together" if every else "no model is named"
        raise UsageError(problem, "give names, as `dsclora models list` shows them, or --all")
    if every:
        return tuple(catalog.entries)
    return tuple(dict.fromkeys(name if is_hub_reference(name) else catalog.entry(name).name for name in names))


def try_fetch(name: str, trust: bool, leave_out: bool, on_bytes: OnBytes | None = None) -> FetchedModel:
    """Download the file of a model like `fetch_model`, and return an error as a result.

    `leave_out` passes over a model without a known sha256, unless `trust` accepts any bytes.
    """
    if leave_out and not trust and not known_sha256(load_catalog().entry(name)):
        return FetchedModel(name, FetchStatus.LEFT_OUT, None, "")
    try:
        return fetch_model(name, trust, on_bytes)
    except UsageError as error:  # a repository with several weight files
        return FetchedModel(name, FetchStatus.FAILED, None, "", error.info)
    except WeightsError as error:
        return FetchedModel(name, FetchStatus.FAILED, None, "", error.step)


def fetch_model(name: str, trust: bool, on_bytes: OnBytes | None = None) -> FetchedModel:
    """Download the file of a model, and for an adapter the file of its base too.

    `trust` accepts a file without a known sha256. Raises UsageError for an unknown name, and WeightsError.
    """
    catalog = load_catalog()
    if is_hub_reference(name):
        model = obtain_hub_model(name)
        status = FetchStatus.FETCHED if model.note else FetchStatus.HERE
        return FetchedModel(name, status, model.path, model.trusted.sha256, note=model.note or "")
    entry = catalog.entry(name)
    bases = [] if entry.base is None else [catalog.entry(entry.base)]
    status = FetchStatus.HERE if all(map(find_local, (*bases, entry))) else FetchStatus.FETCHED
    for base in bases:
        obtain(base, on_bytes=on_bytes)
    path = obtain(entry, trust=trust, on_bytes=on_bytes)
    return FetchedModel(name, status, path, known_sha256(entry))


@dataclass(frozen=True)
class ModelPath:
    """Result of `dsclora models path NAME`; the field names are keys of the JSON output."""

    name: str
    path: Path
    sha256: str


def find_model_path(name: str) -> ModelPath:
    """Return the verified file of a model on this machine, without accessing the internet.

    Raises UsageError for an unknown name, and WeightsError for a model that is not here.
    """
    if is_hub_reference(name):
        trusted = find_trusted(name)
        found = hub.find_cached(trusted.wanted)
        if found is None:
            raise WeightsError(f"{name} is not on this machine", fetch_step(name, trusted.sha256))
        return ModelPath(name, found, trusted.sha256)
    entry = load_catalog().entry(name)
    path = find_local(entry)
    if path is None and place_of(entry) is WeightPlace.MISSING:
        path = obtain(entry)  # which tells what is wrong with the file
    if path is None:
        raise WeightsError(f"{name} is not on this machine", fetch_step(name, known_sha256(entry)))
    return ModelPath(name, path, known_sha256(entry))


@dataclass(frozen=True)
class ModelFolders:
    """Result of `dsclora models path`: the places of weights; the field names are keys of the JSON output."""

    embedded: Path
    """Weights inside the package."""

    hub: Path
    """Cache of the Hub's client, which other programs use as well."""

    downloads: Path
    """Weights from web addresses."""

    converted: Path
    """Networks that were converted for an engine."""

    catalogue: Path
    """The user's own catalog; the file need not exist."""


def list_folders() -> ModelFolders:
    """Return the places of weights on this machine."""
    return ModelFolders(EMBEDDED, hub.cache_folder(), downloads_dir(), engines_dir(), config_dir() / FILE_NAME)
