"""From the user's choice of a model to a verified weight file (`find_weights`) and to a network (`open_network`).

No torch until a file must be opened: for `open_network`, for an adapter, for the scale of a file outside the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsclora_cli.config import DEFAULT_SCALE, ModelOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.hub_client import HubUnavailable
from dsclora_cli.paths import is_file, sha256_of
from dsclora_cli.storage.places import RemotePlace, is_url, parse_place
from dsclora_cli.weights.catalog import Catalog, PhotoRule, WeightEntry, load_catalog
from dsclora_cli.weights.download import known_sha256, obtain
from dsclora_cli.weights.finished import NoNetwork, unreadable_weights
from dsclora_cli.weights.hub_models import WEIGHT_SUFFIXES, check_reference, is_hub_reference, obtain_hub_model
from dsclora_cli.weights.remote import local_weights

if TYPE_CHECKING:
    from dsclora_cli.models.network import Network

AUTO = "auto"

AUTO_PHOTO = "auto for a compressed picture"
"""Model name that `select_model` puts in place of `auto`; users cannot type the name."""

_SPOKEN = {"JPEG": "a JPEG", "WEBP": "a WebP", "AVIF": "an AVIF"}

_SHARP_HINT = "leave --sharp out, or give a file of weights as the model, and its sharp model with --sharp-weights"


@dataclass(frozen=True)
class FoundWeights:
    """A weight file on this machine, verified by sha256."""

    path: Path

    sha256: str
    """sha256 of the file at `path`; a slash and the sha256 of the adapter follow, then a slash and the strength and
    sha256 of the sharp network."""

    name: str
    """Name in the catalog, or the name of the file without its suffix."""

    entry: WeightEntry | None
    """Entry of the catalog with the same bytes, if any."""

    note: str | None = None
    """Sentence for the user if `auto` could not get its first choice."""

    adapter: Path | None = None
    """File of an adapter to merge into the weights."""

    licence: str = ""
    """Terms in the model card, for weights of a repository on the Hub outside the catalog."""

    sharp: FoundWeights | None = None
    """Sharp network towards which all weights are moved, after the adapter is merged."""

    strength: float = 0.0
    """Share of the way to `sharp`, 0 to 1."""

    @property
    def base_sha256(self) -> str:
        """Return the sha256 of the file at `path`, without the adapter and the sharp network."""
        return self.sha256.partition("/")[0]

    @property
    def is_plain(self) -> bool:
        """Return whether the file at `path` alone is the network: no adapter, no sharp network."""
        return self.adapter is None and self.sharp is None


def find_weights(options: ModelOptions, scale: int | None) -> FoundWeights:
    """Return the weights for one native scale, downloaded if necessary.

    A file or a name gives the same weights every time, or an error. `auto` tries the next name of its list if the Hub
    cannot give a file, but never after a wrong sha256.

    Args:
        options: Model, weight file, adapter and sharpness of the user's choice.
        scale: Native scale; None means the only scale of the model, and the default scale for `auto`.

    Raises:
        UsageError: Options contradict each other, or name an unknown model, or the scale does not match.
        WeightsError: A file is missing, damaged, or cannot be fetched.
    """
    _check_options(options)
    catalog = load_catalog()
    found = _find_unsharpened(options, catalog, scale)
    return _sharpen(found, options, catalog) if options.sharp else found


def settle_model(options: ModelOptions) -> ModelOptions:
    """Return options in which a model that names a file is `weights`, and weights on the Hub are a model."""
    model, weights = options.model, options.weights
    if weights is None and (is_url(model) or names_file(model)):
        model, weights = AUTO, parse_place(model)
    if isinstance(weights, RemotePlace) and weights.scheme == "hf" and model == AUTO:
        model, weights = weights.url, None
    return replace(options, model=model, weights=weights)


def check_model(options: ModelOptions, catalog: Catalog) -> None:
    """Raise UsageError for the name of an unknown model, or a misspelled reference to the Hub; look at no file."""
    if options.weights is not None or options.model == AUTO:
        return
    if is_hub_reference(options.model):
        check_reference(options.model)
    else:
        catalog.entry(options.model)


def _find_unsharpened(options: ModelOptions, catalog: Catalog, scale: int | None) -> FoundWeights:
    """Return the weights for one native scale as `find_weights` does, whatever the sharpness."""
    if options.adapter is not None:
        return _find_adapted(options, options.adapter, scale)
    if options.weights is not None:
        return _find_file(local_weights(options.weights, options.offline), catalog)
    if options.model in {AUTO, AUTO_PHOTO}:
        return _find_auto(options, catalog, int(DEFAULT_SCALE) if scale is None else scale)
    if is_hub_reference(options.model):
        return _find_on_hub(options, scale)
    entry = catalog.entry(options.model)
    if scale not in {None, entry.scale}:
        raise UsageError(f"{entry.name} upscales by {entry.scale}, not by {scale}", "see `dsclora models list`")
    return _find_entry(entry, catalog, options.offline)


def open_network(found: FoundWeights) -> Network:
    """Load the network in merged form, with the adapter merged in and moved towards the sharp network.

    Raises WeightsError.
    """
    from dsclora_cli.models.lora import merge_adapters
    from dsclora_cli.models.network import interpolate
    from dsclora_cli.weights.adapters import build_adapters, load_adapters
    from dsclora_cli.weights.checkpoint import load_network

    network = load_network(found.path)
    if found.adapter is not None:
        adapters = build_adapters(network, found.base_sha256, load_adapters(found.adapter))
        network = merge_adapters(network, adapters)
    if found.sharp is None:
        return network
    sharp = load_network(found.sharp.path)
    if sharp.config != network.config or _shapes(sharp) != _shapes(network):
        raise WeightsError(
            f"{found.sharp.name} cannot sharpen {found.path.name}: their sizes differ",
            "give a sharp network that was trained from the same network",
        )
    return interpolate(network, sharp, found.strength)


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor: the configuration of a network from another library does not tell all sizes."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def open_named_weights(text: str, offline: bool, option: str) -> tuple[FoundWeights, Network]:
    """Return the weights that a training option names, and their network. Raises as `find_weights` and `open_network`.

    Hints name `option`, such as "--init": a command that trains has no option for models and adapters.
    """
    try:
        found = find_named_weights(text, offline, option)
        return found, open_network(found)
    except NoNetwork as error:
        hint = "merge it with its base: `dsclora merge BASE ADAPTER -o FILE.safetensors`"
        if option == "--base":
            hint = f"continue it with --init-adapter ADAPTER and its own --base, or {hint}"
        raise NoNetwork(error.message, hint) from error


def find_named_weights(text: str, offline: bool = False, option: str = "") -> FoundWeights:
    """Return weights by path or by name in the catalog, given with `option`. Raises as `find_weights`."""
    options = named_options(text, offline)
    if options.weights is None:
        return find_weights(options, None)
    return _find_file(local_weights(options.weights, offline), load_catalog(), option)


def named_options(text: str, offline: bool = False, adapter: Path | None = None) -> ModelOptions:
    """Return the options for weights given in one word: the path of a file, or a name in the catalog."""
    options = ModelOptions(weights=parse_place(text)) if names_file(text) else ModelOptions(text)
    return replace(options, offline=offline, adapter=adapter)


def names_file(text: str) -> bool:
    """Return whether a text is the path or the URL of a weight file, and not the name of a model."""
    if is_url(text):
        return not text.startswith("hf://")  # the name of a model on the Hub
    path = Path(text)
    # A known suffix means a path even if no such file exists, so that the error names the missing file.
    return is_file(path) or path.suffix in WEIGHT_SUFFIXES


def native_scales(options: ModelOptions) -> tuple[int, ...]:
    """Return the scales that the chosen weights reach in one pass, ascending, without accessing the internet.

    With a sharpness, `auto` reaches only the scales for which the catalog names a sharp network.

    Raises UsageError, and WeightsError for a file that holds no network.
    """
    _check_options(options)
    if options.adapter is not None:
        return native_scales(_base_options(options, options.adapter)[0])
    if options.weights is not None:
        from dsclora_cli.weights.checkpoint import describe_file

        return (describe_file(local_weights(options.weights, options.offline)).scale,)
    catalog = load_catalog()
    if options.model == AUTO:
        return _auto_scales(options, catalog)
    if is_hub_reference(options.model):
        return _scales_on_hub(options)
    entry = catalog.entry(options.model)
    if options.sharp and options.sharp_weights is None:
        _sharp_entry(entry.name, entry, catalog)  # before any picture is read
    return (entry.scale,)


def _scales_on_hub(options: ModelOptions) -> tuple[int, ...]:
    """Return the scale of the weights in a repository of the Hub, or of the base of an adapter there."""
    from dsclora_cli.weights.checkpoint import describe_file

    path = obtain_hub_model(options.model, options.offline).path
    if _holds_adapter(path):
        return native_scales(_with_local_adapter(options, path))
    return (describe_file(path).scale,)


def _auto_scales(options: ModelOptions, catalog: Catalog) -> tuple[int, ...]:
    scales = sorted(
        scale
        for scale, names in catalog.auto.items()
        if not options.sharp or any(catalog.entry(name).sharp for name in names)
    )
    if not scales:
        raise _no_sharp_model("auto", catalog)
    return tuple(scales)


def select_model(
    options: ModelOptions, saved: tuple[str, int | None], scale: int, rules: Mapping[int, PhotoRule]
) -> tuple[ModelOptions, str | None]:
    """Choose between the weights for compressed pictures and all other weights, for one picture.

    Args:
        options: The user's choice. Only `auto` leaves a choice to make.
        saved: Format of the picture and, for a JPEG, a lossy WebP and a lossy AVIF, the quality from 0 to 100.
        scale: First native scale that the picture goes through.
        rules: Rules of the catalog, by native scale.

    Returns:
        Options to use for the first pass, and the reason in words; None as reason if there was no choice.
    """
    if not rules or (options.model, options.weights, options.adapter) != (AUTO, None, None):
        return options, None
    format, quality = saved
    if quality is None:
        return options, "no JPEG, lossy WebP or lossy AVIF of known quality"
    picture = f"{_SPOKEN[format]} of quality {quality}"
    if scale not in rules:
        return options, f"{picture}, but no model for photographs upscales by {scale}"
    below = rules[scale].below.get(format)
    if below is None:
        return options, f"{picture}, but no quality is measured for the model for photographs"
    if quality >= below:
        return options, f"{picture}, not below {below:g}"
    return replace(options, model=AUTO_PHOTO), f"{picture}, below {below:g}"


def _check_options(options: ModelOptions) -> None:
    """Raise UsageError where options contradict each other."""
    if options.weights is not None and options.model != AUTO:
        raise UsageError(
            f"both a model ({options.model}) and a weights file ({options.weights}) are given", "give only one of them"
        )
    if options.sharp_weights is None:
        return
    if options.sharp is None:
        raise UsageError("--sharp-weights is given without --sharp", "give a sharpness from 0 to 1 with --sharp")
    if (options.model, options.weights, options.adapter) == (AUTO, None, None):
        # The models of `auto` have several origins, so a file fits one of them at best.
        raise UsageError(
            "--sharp-weights is given without a model to sharpen", "name the model, or give its file of weights"
        )


def _find_auto(options: ModelOptions, catalog: Catalog, scale: int) -> FoundWeights:
    """Return the first weights of the list of `auto` that are available, with a note if the first choice failed."""
    if scale not in catalog.auto:
        scales = ", ".join(str(known) for known in sorted(catalog.auto))
        raise UsageError(f"no model upscales by {scale} in one pass", f"there are models for {scales}")
    rule = catalog.photo.get(scale) if options.model == AUTO_PHOTO else None
    names = (*((rule.model,) if rule else ()), *catalog.auto[scale])
    # Results and scores must not depend on luck without a message: every fallback is reported in `note`.
    problems: list[str] = []
    missed: list[HubUnavailable] = []
    for name in names:
        entry = catalog.entry(name)
        if options.sharp and entry.sharp is None:
            problems.append(f"{name} has no sharp model")
            continue
        try:
            found = _find_entry(entry, catalog, options.offline)
        except HubUnavailable as error:  # not WeightsError: wrong bytes must never be passed over
            problems.append(f"{entry.base or name} could not be fetched ({error.reason})")
            # A copy without a traceback, which would tie the frames of all callers to this list, in a circle.
            missed.append(error.reworded())
            continue
        if not problems:
            return found
        kind = "" if entry.repo else "embedded "
        return replace(found, note=f"{problems[0]}: using the {kind}{name}")
    raise missed[0] if missed else _no_sharp_model(names[0], catalog)


def _find_entry(entry: WeightEntry, catalog: Catalog, offline: bool) -> FoundWeights:
    """Return the weights of a catalog entry; for an adapter the weights of the base, with the adapter to merge."""
    path = obtain(entry, offline)
    # After `obtain`, which stores the sha256 of a file at a web address whose sha256 the catalog does not state.
    sha256 = known_sha256(entry)
    if entry.base is None:
        return FoundWeights(path, sha256, entry.name, entry)
    base = _find_entry(catalog.entry(entry.base), catalog, offline)
    return FoundWeights(base.path, f"{base.sha256}/{sha256}", entry.name, entry, adapter=path)


def _find_on_hub(options: ModelOptions, scale: int | None) -> FoundWeights:
    """Return the weights in a repository of the Hub, or the base of an adapter there, with the adapter to merge.

    Raises UsageError where the scale does not match.
    """
    from dsclora_cli.weights.checkpoint import describe_file

    model = obtain_hub_model(options.model, options.offline)
    trusted = model.trusted
    if _holds_adapter(model.path):
        found = _find_adapted(_with_local_adapter(options, model.path), model.path, scale)
        note = "; ".join(filter(None, (model.note, found.note))) or None
        return replace(found, note=note, licence=trusted.licence)
    if scale is not None and (native := describe_file(model.path).scale) != scale:
        raise UsageError(f"{options.model} upscales by {native}, not by {scale}", "leave the size out, or change it")
    return FoundWeights(model.path, trusted.sha256, trusted.name, None, model.note, licence=trusted.licence)


def _holds_adapter(path: Path) -> bool:
    from dsclora_cli.weights.adapters import is_adapter
    from dsclora_cli.weights.state_dict import read_tensors

    return is_adapter(read_tensors(path))


def _with_local_adapter(options: ModelOptions, adapter: Path) -> ModelOptions:
    """Return options for an adapter that came from the Hub. Raises WeightsError for a base outside the catalog."""
    from dsclora_cli.weights.adapters import load_adapters

    base_sha256 = load_adapters(adapter).base_sha256
    base = load_catalog().with_sha256(base_sha256)
    if base is None:
        raise NoNetwork(
            f"{options.model} is an adapter for weights that are not in the catalogue: sha256 {base_sha256[:12]}...",
            f"give its file of weights as the model, and --adapter {adapter}",
        )
    return replace(options, model=base.name, adapter=adapter)


def _sharpen(found: FoundWeights, options: ModelOptions, catalog: Catalog) -> FoundWeights:
    """Return the weights, to be moved towards the sharp network of the user's choice, or of the catalog."""
    if options.sharp_weights is not None:
        sharp = _find_file(options.sharp_weights, catalog, "--sharp-weights")
    else:
        # An adapter of the user has no entry: the sharp network of the base serves the adapted base as well.
        entry = found.entry or catalog.with_sha256(found.base_sha256)
        sharp = _find_entry(_sharp_entry(found.name, entry, catalog), catalog, options.offline)
    strength = float(options.sharp or 0)
    # The strength and both sha256s identify a result. No published score belongs to the mixture, so no entry.
    sha256 = f"{found.sha256}/{strength!r}x{sharp.sha256}"
    name = f"{found.name}-sharp{strength:g}"
    return replace(found, sha256=sha256, name=name, entry=None, sharp=sharp, strength=strength)


def _sharp_entry(name: str, entry: WeightEntry | None, catalog: Catalog) -> WeightEntry:
    """Return the entry of the sharp network for weights called `name`. Raises UsageError where there is none."""
    if entry is not None and entry.sharp is not None:
        return catalog.entry(entry.sharp)
    bodies = [each.name for each in catalog.entries.values() if entry and each.sharp == entry.name]
    if bodies:
        hint = f"leave --sharp out, or sharpen less with {' or '.join(bodies)}"
        raise UsageError(f"{name} is a sharp model already", hint)
    raise _no_sharp_model(name, catalog)


def _no_sharp_model(name: str, catalog: Catalog) -> UsageError:
    """Return the error for a sharpness of a model called `name`; the hint names the models that have a sharp model."""
    others = ", ".join(each.name for each in catalog.entries.values() if each.sharp)
    hint = f"name a model that has one: {others}; or {_SHARP_HINT}" if others else _SHARP_HINT
    return UsageError(f"{name} has no sharp model", hint)


def _find_file(path: Path, catalog: Catalog, option: str = "") -> FoundWeights:
    """Return the weights in a file of the user, given with `option`; empty where several options take such a file."""
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        hint = f"check the path given with {option}" if option else "check the path"
        raise unreadable_weights(path, error, hint) from error
    # A copy of known weights counts as the known weights, whatever the name of the file.
    entry = catalog.with_sha256(sha256)
    return FoundWeights(path, sha256, path.stem if entry is None else entry.name, entry)


def _find_adapted(options: ModelOptions, adapter: Path, scale: int | None) -> FoundWeights:
    """Return the base of an adapter file, with the adapter to merge. Raises UsageError for another base."""
    base_options, base_sha256 = _base_options(options, adapter)
    base = find_weights(base_options, scale)
    if base.sha256 != base_sha256:
        known = load_catalog().with_sha256(base_sha256)
        wanted = f"weights with sha256 {base_sha256[:12]}..." if known is None else known.name
        hint = "give its base as the model"
        raise UsageError(f"{adapter} is an adapter for {wanted}, not for {base.name}", hint)
    # Both sha256s identify a result: after a change of the adapter, older results no longer count as done.
    sha256, name = f"{base.sha256}/{sha256_of(adapter)}", f"{base.name}-{adapter.stem}"
    return FoundWeights(base.path, sha256, name, None, base.note, adapter)


def _base_options(options: ModelOptions, adapter: Path) -> tuple[ModelOptions, str]:
    """Return options for the base of an adapter, and the sha256 of the base that the adapter was trained on.

    `auto` becomes the catalog's name for the base.
    """
    from dsclora_cli.weights.adapters import load_adapters

    base_sha256 = load_adapters(adapter).base_sha256
    # The adapted network is sharpened, not the base.
    base = replace(options, adapter=None, sharp=None, sharp_weights=None)
    if options.weights is not None or options.model != AUTO:
        return base, base_sha256
    entry = load_catalog().with_sha256(base_sha256)
    if entry is None:
        raise WeightsError(
            f"{adapter} is an adapter for weights that are not in the catalogue: sha256 {base_sha256[:12]}...",
            "give the file of these weights as the model",
        )
    return replace(base, model=entry.name), base_sha256
