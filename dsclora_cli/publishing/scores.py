"""Benchmark scores for a model card, from a report of `dsclora eval --json`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsclora_cli.errors import UsageError, next_step
from dsclora_cli.names import BASELINE
from dsclora_cli.paths import read_named


@dataclass(frozen=True)
class SetScores:
    """Scores of a model on one benchmark set."""

    name: str
    """Name of the set."""
    images: int
    """Number of pictures."""
    model: Mapping[str, float]
    """Mean of every metric; PSNR in dB."""
    bicubic: Mapping[str, float]
    """The same of bicubic interpolation."""


@dataclass(frozen=True)
class ModelScores:
    """Scores of a model in a report of `dsclora eval`."""

    metrics: tuple[str, ...]
    conditions: str
    """Protocol, border and, for compressed inputs, the JPEG quality, in words."""
    sets: tuple[SetScores, ...]


def read_scores(path: Path, sha256s: Collection[str]) -> ModelScores:
    """Return the scores of the weights with one of the sha256s. Raises UsageError for a report of other weights."""
    hint = "make it with `dsclora eval --weights FILE --dataset Set5 --json > scores.json`"
    try:
        # The last line: a redirected stdout may hold an older report above.
        report = json.loads(read_named(path).decode("utf-8-sig").splitlines()[-1])
        named = {row["weights_sha256"]: str(row["name"]) for row in report["rows"]}
        name = next((named[sha256] for sha256 in sha256s if sha256 in named), None)
        if name is None:
            raise UsageError(f"{path} holds no scores of these weights", hint)
        metrics = tuple(map(str, report["metrics"]))
        sets = tuple(_read_set(each, name) for each in report["sets"])
        return ModelScores(metrics, _conditions(report), sets)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", next_step(error, hint)) from error
    # ArithmeticError: an infinite number in place of a count.
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError, ArithmeticError) as error:
        raise UsageError(f"{path} is no report of `dsclora eval --json`", hint) from error


def _conditions(report: Mapping[str, Any]) -> str:
    protocol, jpeg = report["protocol"], report.get("jpeg")
    degraded = f", inputs saved as JPEG of quality {int(jpeg)}" if jpeg else ""
    return f"protocol {protocol['name']}, border {int(protocol['border'])}{degraded}"


def _read_set(found: Mapping[str, Any], name: str) -> SetScores:
    means = {row["name"]: {key: float(value) for key, value in row["mean"].items()} for row in found["rows"]}
    return SetScores(str(found["name"]), int(found["images"]), means[name], means.get(BASELINE, {}))
