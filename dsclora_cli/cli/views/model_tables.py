"""Tables and lines of `dsclora models`: what the results of the commands look like for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dsclora_cli.cli import console
from dsclora_cli.names import METRICS
from dsclora_cli.weights.download import WeightPlace, fetch_step

if TYPE_CHECKING:
    from dsclora_cli.weights.catalog import Scores
    from dsclora_cli.weights.description import ModelDescription, NetworkFacts
    from dsclora_cli.weights.listing import FetchedModel, ModelFolders, ModelRow
    from dsclora_cli.weights.pruning import PrunableFile
    from dsclora_cli.weights.verification import VerifiedFile


def show_models(rows: Iterable[ModelRow], references: Sequence[str]) -> None:
    """Write the catalog to stdout as a table, and to stderr the references to the Hub that were used before."""
    rows = list(rows)
    columns = {
        "name": [row.name for row in rows],
        "scale": [f"x{row.scale}" for row in rows],
        "arch": [row.arch for row in rows],
        "size": [console.format_bytes(row.size) if row.size else "" for row in rows],
        "where": [row.place if row.base is None else f"{row.place}, over {row.base}" for row in rows],
        "auto": [_choice(row) for row in rows],
        "measured": [_first_score(row.reference) for row in rows],
        "published": [_first_score(row.published) for row in rows],
        "licence": [row.licence for row in rows],
    }
    console.show_columns(columns, ("published", "licence", "measured", "arch", "size", "auto"))
    if references:
        text = f"also used here, from the Hub: {', '.join(references)} (`dsclora models info` describes each)"
        console.print_labeled("note", text, "cyan")


def _choice(model: ModelRow | ModelDescription) -> str:
    """Return when `--model auto` takes a model: a rank, or the qualities below which the model comes first."""
    limits = {"JPEG": model.photo, "WebP": model.photo_webp, "AVIF": model.photo_avif}
    below = [f"{format} < {quality:g}" for format, quality in limits.items() if quality is not None]
    return ", ".join(below) or ("" if model.auto is None else f"{model.auto}.")


def _first_score(scores: Scores) -> str:
    """Return the PSNR on Y of the first set, such as "Set5 31.75 dB"."""
    return next((f"{name} {metrics['psnr_y']:.2f} dB" for name, metrics in scores.items() if "psnr_y" in metrics), "")


def show_description(model: ModelDescription) -> None:
    """Write everything that is known of a model to stdout, a fact on each line."""
    size = f"{console.format_bytes(model.size)} ({model.size} bytes)" if model.size else ""
    facts = {
        "name": model.name,
        "where": model.place,
        "file": str(model.path or ""),
        "size": size,
        "sha256": model.sha256 or "unknown",
        "scale": "" if model.scale is None else f"x{model.scale}",
        "architecture": model.arch or "",
        **_network_facts(model.network),
        **_adapter_facts(model),
        "training": ", ".join(f"{key} {_value(value)}" for key, value in model.training.items()),
        "auto": _choice(model),
        "sharp": model.sharp or "",
        "licence": model.licence,
        "source": model.source,
        "Hub": "" if model.repo is None else model.repo + (f" at {model.revision}" if model.revision else ""),
        "address": model.url or "",
        **_scores("measured", model.reference),
        **_scores("published", model.published),
    }
    console.show_fields(facts)
    if model.path is None:
        is_lost = model.place == WeightPlace.MISSING
        step = f"run `dsclora models verify {model.name}`" if is_lost else fetch_step(model.name, model.sha256)
        console.print_labeled("note", f"the file is not on this machine, so its tensors are unknown ({step})", "cyan")
    elif model.base is not None and model.network is None:
        step = fetch_step(model.name, model.sha256)
        console.print_labeled("note", f"the base, {model.base}, is not on this machine ({step})", "cyan")


def _network_facts(network: NetworkFacts | None) -> Mapping[str, str]:
    if network is None:
        return {}
    return {
        "channels": str(network.channels or ""),
        "blocks": str(network.blocks or ""),
        "parameters": f"{network.parameters:,}".replace(",", " "),
        "multiply-adds": f"{network.multiply_adds / 1e9:.3g} G for an input of 256x256"
        if network.multiply_adds
        else "",
        "halo": f"{network.halo} pixels",
        "tiles": "equal to the whole picture" if network.exact_tiles else "slightly different from the whole picture",
        "float16": "allowed" if network.half_precision else "not allowed",
    }


def _adapter_facts(model: ModelDescription) -> Mapping[str, str]:
    adapter = model.adapter
    if adapter is None:
        return {"base": model.base or ""}
    base = model.base or "not in the catalogue"
    trained = f"{adapter.parameters:,}".replace(",", " ")
    return {
        "adapter": f"{trained} values over {adapter.layers} convolutions",
        "base": f"{base}, sha256 {adapter.base_sha256}",
    }


def _value(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _scores(label: str, scores: Scores) -> Mapping[str, str]:
    """Return a line for each set: "measured on Set5" to "PSNR-Y 31.75 dB, SSIM-Y 0.8892"."""
    return {
        f"{label} on {name}": ", ".join(_score(metric, value) for metric, value in metrics.items())
        for name, metrics in scores.items()
    }


def _score(metric: str, value: float) -> str:
    title, unit = METRICS[metric].title, METRICS[metric].unit
    return f"{title} {value:.2f} {unit}" if unit else f"{title} {value:.4f}"


def show_fetched(model: FetchedModel) -> None:
    """Write the path and the sha256 of a fetched model to stdout, and the error of a failed one to stderr."""
    if model.path is not None:
        console.print_line(f"{model.name}: {model.path}, sha256 {model.sha256}")
        if model.note:
            console.print_labeled("note", model.note, "cyan")
    elif model.error is not None:
        console.print_labeled("error", console.failure_line(model.name, model.error), "bold red")


def show_left_out(models: Sequence[FetchedModel]) -> None:
    """Write to stderr which models `fetch --all` has left out, and how to fetch these models."""
    if models:
        names = ", ".join(model.name for model in models)
        text = f"left out, because the catalogue has no sha256: {names} (add --trust-unpinned to accept any bytes)"
        console.print_labeled("note", text, "cyan")


def show_verified(files: Sequence[VerifiedFile]) -> None:
    """Write the state of every file on this machine to stdout, and a sentence about all files to stderr."""
    here = [file for file in files if file.path is not None]
    columns = {
        "name": [file.name for file in here],
        "state": [str(file.state) for file in here],
        "file": [str(file.path) for file in here],
    }
    console.show_columns(columns)
    intact, size = sum(file.state == "intact" for file in here), sum(file.size for file in here)
    counted = f"{intact} of {len(here)} files ({console.format_bytes(size)}) are intact"
    away = len(files) - len(here)
    console.print_labeled("done", f"{counted}; {away} {'is' if away == 1 else 'are'} not on this machine")
    for file in here:
        if file.hint:
            console.print_labeled("error", f"{file.name} is {file.state}: {file.path} ({file.hint})", "bold red")


def show_prunable(files: Sequence[PrunableFile], as_json: bool = False) -> None:
    """Write what would be removed to stdout: a table and the sum of the sizes, or a JSON object a line."""
    if as_json:
        for file in files:
            console.show_json(file)
        return
    if not files:
        console.print_labeled("done", "there is nothing to remove")
        return
    columns = {
        "size": [console.format_bytes(file.size) for file in files],
        "reason": [str(file.reason) for file in files],
        "name": [file.name for file in files],
        "file": [str(file.path) for file in files],
    }
    console.show_columns(columns, ("name",))
    size = console.format_bytes(sum(file.size for file in files))
    console.print_labeled("note", f"removing {_files(len(files))} would free {size}", "cyan")


def show_removed(files: Iterable[PrunableFile], as_json: bool) -> int:
    """Show the outcome for every file as soon as it is known, and return how many files are still there."""
    removed, failed, size = 0, 0, 0
    for file in files:
        failed, removed = failed + bool(file.error), removed + file.removed
        size += file.size if file.removed else 0
        if as_json:
            console.show_json(file)
        elif file.error:
            problem = f"{file.path} cannot be removed: {file.error} (check the permissions of its folder)"
            console.print_labeled("error", problem, "bold red")
    if not as_json:
        console.print_labeled("done", f"removed {_files(removed)}; freed {console.format_bytes(size)}")
    return failed


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def show_folders(folders: ModelFolders) -> None:
    """Write the places of weights to stdout, a line each."""
    console.show_fields({label: str(path) for label, path in vars(folders).items()})
