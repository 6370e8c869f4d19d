"""The model card (README.md) and `config.json` of an uploaded model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dsclora_cli import __version__
from dsclora_cli.names import ARCHITECTURES, BASELINE, metric_title
from dsclora_cli.publishing.own_model import OwnModel
from dsclora_cli.publishing.scores import ModelScores, SetScores

_LIBRARY = "dsclora"


@dataclass(frozen=True)
class CardFacts:
    """Everything that a model card says."""

    model: OwnModel
    repo: str
    """Repository, `owner/name`."""
    file: str
    """Name of the weight file in the repository."""
    sha256: str
    """sha256 of the weight file in the repository."""
    licence: str
    """Name of a licence on the Hub; empty where the author states none."""
    scores: ModelScores | None

    @property
    def title(self) -> str:
        """Return the name of the repository without its owner."""
        return self.repo.partition("/")[2]


def write_config(card: CardFacts) -> str:
    """Return the text of `config.json`: facts for programs. The Hub counts downloads by this file."""
    model = card.model
    base = {"sha256": model.base_sha256, "name": model.base.name if model.base else None}
    config = {
        "library_name": _LIBRARY,
        "library_version": __version__,
        "kind": model.kind,
        **model.facts,
        **({"base": base} if model.kind == "adapter" else {}),
        "file": card.file,
        "size": len(model.content),
        "sha256": card.sha256,
        "licence": card.licence or None,
        "training": model.training or None,
    }
    return json.dumps(config, indent=2) + "\n"


def write_card(card: CardFacts) -> str:
    """Return the text of the model card, in the Markdown of the Hub, with metadata in YAML at the top."""
    parts = [_metadata(card), f"# {card.title}", _summary(card), _usage(card), _facts_table(card)]
    parts += [_scores_section(card), _training_section(card.model), _licence_section(card)]
    return "\n\n".join(filter(None, parts)) + f"\n\nWritten by dsclora {__version__}.\n"


def _metadata(card: CardFacts) -> str:
    """Return the head of the card. JSON is YAML too, and quotes every name safely."""
    facts = card.model.facts
    words = [
        "super-resolution",
        "image-upscaling",
        facts.get("arch"),
        f"x{facts['scale']}" if "scale" in facts else None,
    ]
    head: dict[str, Any] = {"license": card.licence} if card.licence else {}
    head |= {"library_name": _LIBRARY, "pipeline_tag": "image-to-image", "tags": [word for word in words if word]}
    base = card.model.base
    # The Hub links a model with its base, which must be a repository; embedded weights are in none.
    if base is not None and base.repo:
        head |= {"base_model": base.repo, "base_model_relation": "adapter"}
    if card.scores:
        head["model-index"] = [{"name": card.title, "results": list(map(_index_entry, card.scores.sets))}]
    lines = (f"{key}: {json.dumps(value)}" for key, value in head.items())
    return "\n".join(["---", *lines, "---"])


def _index_entry(scores: SetScores) -> dict[str, Any]:
    """Return the scores of a set as the Hub's model index wants them; the index takes no infinity."""
    metrics = [
        {"type": key.partition("_")[0], "name": metric_title(key), "value": round(value, 5)}
        for key, value in scores.model.items()
        if math.isfinite(value)
    ]
    return {
        "task": {"type": "image-to-image", "name": "super-resolution"},
        "dataset": {"type": scores.name, "name": scores.name},
        "metrics": metrics,
    }


def _summary(card: CardFacts) -> str:
    facts, model = card.model.facts, card.model
    sizes = [_count(facts[key], key) for key in ("channels", "blocks") if key in facts]
    arch = str(facts.get("arch", "network"))
    arch = ARCHITECTURES[arch].title if arch in ARCHITECTURES else arch
    scale = facts.get("scale")
    does = "restores pictures at their own size" if scale == 1 else f"upscales pictures by {scale}"
    if model.kind == "network":
        return f"A network that {does}: {arch} of {' and '.join(sizes)}, {facts['parameters']:,} parameters."
    if model.base is None:
        return f"An adapter (ConvLoRA) for a network with sha256 `{model.base_sha256}`."
    base = f"`{model.base.name}`, {arch} of {' and '.join(sizes)}"
    return f"An adapter (ConvLoRA) for {base}. The adapted network {does}."


def _count(number: int, things: str) -> str:
    return f"1 {things.removesuffix('s')}" if number == 1 else f"{number} {things}"


def _usage(card: CardFacts) -> str:
    command = f"dsclora upscale photo.jpg -m {card.repo}"
    note = ""
    if card.model.kind == "adapter" and card.model.base is None:
        command = f"dsclora upscale photo.jpg --adapter {card.file} --weights BASE.safetensors"
        note = "\n\n`BASE.safetensors` is the network that the adapter was trained for."
    return f"## Use\n\n```bash\n{command}\n```{note}"


def _facts_table(card: CardFacts) -> str:
    named = {"arch": "architecture", "scale": "scale", "halo": "context of a tile, pixels of the input"}
    rows = {label: card.model.facts[key] for key, label in named.items() if key in card.model.facts}
    if "adapter_parameters" in card.model.facts:
        rows["parameters of the adapter"] = f"{card.model.facts['adapter_parameters']:,}"
    rows["file"] = f"`{card.file}`, {len(card.model.content):,} bytes"
    rows["sha256"] = f"`{card.sha256}`"
    return _table(("", ""), ((label, str(value)) for label, value in rows.items()))


def _scores_section(card: CardFacts) -> str:
    """Return the scores: of benchmark sets, and of the held-out pictures of the training."""
    parts = []
    if card.scores:
        metrics = card.scores.metrics
        rows: list[tuple[str, ...]] = []
        for scores in card.scores.sets:
            name = f"{scores.name} ({scores.images} pictures)"
            rows.append((name, card.title, *_cells(scores.model, metrics)))
            rows.append((name, BASELINE, *_cells(scores.bicubic, metrics)))
        header = ("set", "model", *map(metric_title, metrics))
        parts.append(f"{_table(header, rows)}\n\nMeasured with `dsclora eval`, {card.scores.conditions}.")
    # Without benchmark scores, the held-out pictures of the run are all that is known of the quality.
    held_out = card.model.training.get("held_out_psnr_y")
    if isinstance(held_out, int | float):
        parts.append(f"PSNR-Y on the held-out pictures of the training: {held_out:.2f} dB.")
    return "\n\n".join(["## Scores", *parts]) if parts else ""


def _cells(means: Mapping[str, float], metrics: tuple[str, ...]) -> Iterator[str]:
    for metric in metrics:
        decimals = 2 if metric.startswith("psnr") else 4
        yield f"{means[metric]:.{decimals}f}" if metric in means else ""


def _training_section(model: OwnModel) -> str:
    step = model.training.get("step")
    parts = [f"Weights of step {step:,}."] if isinstance(step, int) else []
    if model.recipe:
        command = "distill" if "[distill]" in model.recipe else "train"
        parts.append(f"Recipe, for `dsclora {command} --config recipe.toml`:\n\n```toml\n{model.recipe}```")
    if model.left_out:
        names = ", ".join(f"`{name}`" for name in model.left_out)
        parts.append(f"Not in the recipe, because the author's own files were named: {names}.")
    return "\n\n".join(["## Training", *parts]) if parts else ""


def _licence_section(card: CardFacts) -> str:
    licence = card.licence or "None is stated: ask the author before you use the weights."
    base = card.model.base
    of_base = f" The base, `{base.name}`, has the licence {base.licence}." if base is not None else ""
    return f"## Licence\n\n{licence}{'.' if card.licence else ''}{of_base}"


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    # A name of a set may hold a bar, which would end a cell.
    lines = [header, tuple("---" for _ in header), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
