"""A network or an adapter of the user, ready to leave this machine: bytes, facts and recipe without local paths."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dsclora_cli.datasets.download import SOURCES
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.models.network import Network
from dsclora_cli.paths import is_file, is_folder, is_taken, sha256_of
from dsclora_cli.recipe import OptionField
from dsclora_cli.recipe_toml import read_recipe, recipe_digest, recipe_to_toml
from dsclora_cli.weights.adapters import build_adapters, is_adapter, load_adapters, pack_adapters
from dsclora_cli.weights.catalog import EMBEDDED, Catalog, WeightEntry, load_catalog
from dsclora_cli.weights.checkpoint import load_network, pack_network
from dsclora_cli.weights.detect import architecture_of
from dsclora_cli.weights.download import find_local
from dsclora_cli.weights.finished import ADAPTER_FILE, NETWORK_FILE, finished_weights
from dsclora_cli.weights.state_dict import read_tensors

_HINT = "give the folder of a run, or a file of weights"


@dataclass(frozen=True)
class _Held:
    """What a file holds, in the form in which this program saves models."""

    kind: str
    """network or adapter."""
    content: bytes
    """Bytes of the safetensors file to upload."""
    facts: Mapping[str, Any]
    """Architecture, scale, sizes and halo; of the base, for an adapter of a known base."""
    base: WeightEntry | None
    """Weights that an adapter is for, if the catalog knows the weights."""
    base_sha256: str
    """sha256 of the weights that an adapter is for; empty for a network."""


@dataclass(frozen=True)
class OwnModel(_Held):
    """A network or an adapter, as it is uploaded."""

    sha256: str
    """sha256 of the user's file: as long as `notes` are silent, of `content` too."""
    training: Mapping[str, Any]
    """What the file says of the training run."""
    recipe: str
    """Recipe in TOML, without local paths; empty for a file without the recipe of its run."""
    left_out: tuple[str, ...]
    """Options of the recipe that name files or folders of this machine."""
    notes: tuple[str, ...]
    """Sentences about what differs from the user's file."""


def open_own_model(source: Path) -> OwnModel:
    """Return the model in the folder of a run, or in a file.

    Raises:
        UsageError: The folder holds no finished run, the weights belong to the catalog, or spandrel has to open the
            network.
        WeightsError: The file cannot be read, or holds no network and no adapter.
    """
    path = _find_file(source)
    catalog = load_catalog()
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", _HINT) from error
    entry = catalog.with_sha256(sha256)
    # The user's own catalog may name the user's own files: these are not published.
    if entry is not None and (entry.repo or entry.url or entry.folder == EMBEDDED):
        raise UsageError(f"{path} holds {entry.name} of the catalogue, which is published already", _HINT)
    file = read_tensors(path)
    training, notes = _clean_training(file.metadata.get("training", ""), path)
    # The file is written anew, so that nothing which another program left in the file travels along. A file of this
    # program comes out with equal bytes, and keeps the sha256 by which adapters and scores know the weights.
    held = _read_adapter(path, training, catalog) if is_adapter(file) else _read_network(path, training)
    if not notes and hashlib.sha256(held.content).hexdigest() != sha256:
        notes = (f"{path} is converted to the form in which dsclora saves weights, so its sha256 changes",)
    recipe, left_out = _recipe_next_to(path, training, catalog)
    said = json.loads(training or "{}")
    return OwnModel(**vars(held), sha256=sha256, training=said, recipe=recipe, left_out=left_out, notes=notes)


def _find_file(source: Path) -> Path:
    """Return the weights of a run, or the file itself. Raises UsageError."""
    if not is_folder(source):
        if not is_taken(source):
            raise UsageError(f"there is no file or folder {source}", _HINT)
        return source
    found = finished_weights(source)
    if found is None:
        raise UsageError(
            f"{source} holds no finished weights ({NETWORK_FILE} or {ADAPTER_FILE})",
            "train longer with --resume, or give a file such as last.safetensors",
        )
    return found


def _read_network(path: Path, training: str) -> _Held:
    network = load_network(path)
    if not network.config.descriptor.traceable:
        arch = network.config.descriptor.arch
        raise UsageError(f"{path} is a network of spandrel ({arch})", "upload the file as its author saved it")
    return _Held("network", pack_network(network, {"training": training}), _network_facts(network), None, "")


def _read_adapter(path: Path, training: str, catalog: Catalog) -> _Held:
    """Return an adapter. Raises WeightsError where the adapter does not fit a base at hand."""
    loaded = load_adapters(path)
    base = catalog.with_sha256(loaded.base_sha256)
    facts: dict[str, Any] = {}
    if base is not None and (local := find_local(base)) is not None:
        network = load_network(local)
        # An adapter that fits nothing is found out here, and not by the first user.
        build_adapters(network, loaded.base_sha256, loaded)
        facts = _network_facts(network)
    elif base is not None:
        facts = {"arch": base.arch, "channels": base.channels, "scale": base.scale}
    trained = sum(tensor.numel() for name, tensor in loaded.tensors.items() if not name.endswith(".alpha"))
    facts["adapter_parameters"] = trained
    return _Held("adapter", pack_adapters(loaded, training), facts, base, loaded.base_sha256)


def _network_facts(network: Network) -> dict[str, Any]:
    descriptor = network.config.descriptor
    sizes = {key: getattr(network.config, key) for key in architecture_of(network).stated}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"arch": descriptor.arch, **sizes, "scale": descriptor.scale}
    return {**facts, "halo": descriptor.halo, "parameters": parameters}


def _clean_training(text: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """Return what a file says of its training, or nothing where the words are not of this program, and notes."""
    if not text or _is_ours(text):
        return text, ()
    return "", (f"the words about the training in {path} are left out: they may name files of this machine",)


def _is_ours(text: object) -> bool:
    """Return whether a text is the JSON of `train`, `distill` and `merge`: numbers and digests."""
    try:
        read = json.loads(str(text))
    except (ValueError, RecursionError):
        return False
    return isinstance(read, dict) and all(key in _TRAINING and _TRAINING[key](value) for key, value in read.items())


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_version(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,60}", value) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


_TRAINING: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        **dict.fromkeys(("recipe", "data", "base", "adapter"), _is_digest),
        **dict.fromkeys(("seed", "step", "held_out_psnr_y", "strength"), _is_number),
        "torch": _is_version,
        "adapter_training": lambda value: value == "" or _is_ours(value),
    }
)
"""Keys of the entry `training` of a weight file, and what their values look like."""


def _recipe_next_to(path: Path, training: str, catalog: Catalog) -> tuple[str, tuple[str, ...]]:
    """Return the recipe that made a file, and the names of the options that stay on this machine."""
    place = path.with_name("recipe.toml")
    if not is_file(place) or not training:
        return "", ()
    try:
        recipe = read_recipe(place)
    except UsageError:  # a file of the same name, of another program or for another version
        return "", ()
    # A file that was copied into the folder of another run has another recipe.
    if json.loads(training).get("recipe") != recipe_digest(recipe):
        return "", ()
    # Names of the packaged catalog and of the user's own: the latter say nothing to strangers, and hide no path.
    known = {*catalog.entries, *SOURCES}
    left_out: list[str] = []

    def is_public(option: OptionField, value: object) -> bool:
        if value is None or not option.affects_result:
            return False
        values = value if isinstance(value, tuple) else (value,)
        if not option.names_files or all(_is_public_name(each, known, option) for each in values):
            return True
        left_out.append(option.name)
        return False

    return recipe_to_toml(recipe, is_public), tuple(left_out)


def _is_public_name(value: object, known: set[str], option: OptionField) -> bool:
    """Return whether a value of an option for files is a name that everybody knows, and no path."""
    # USER/REPO is not among the names: a folder may be called the same.
    words = {word for word in option.metavar.split("|") if word.islower()}
    return isinstance(value, str) and (value in known | words or value.startswith("hf://"))
