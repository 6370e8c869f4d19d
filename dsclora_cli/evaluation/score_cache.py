"""Scores of single images, kept so that an interrupted evaluation goes on: one small JSON file each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch

from dsclora_cli import __version__
from dsclora_cli.paths import atomic_write, state_dir

Key = Mapping[str, object]
"""All that decides the scores, as JSON values."""


def load_scores(key: Key) -> dict[str, float] | None:
    """The scores under this key, None where there are none or the file is damaged."""
    try:
        record = json.loads(_place(key).read_text(encoding="utf-8"))
        return record["scores"] if record["key"] == key else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def save_scores(key: Key, scores: Mapping[str, float]) -> None:
    """Keep scores; the file appears at once or not at all. Raises OSError."""
    place = _place(key)
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as temporary:
        temporary.write_text(json.dumps({"key": key, "scores": scores}), encoding="utf-8")


@cache
def code_digest() -> str:
    """sha256 over this package's source, its version and torch's: scores made by other code are never taken up."""
    package = Path(__file__).parent.parent
    total = hashlib.sha256(f"{__version__} {torch.__version__} {np.__version__}".encode())
    for path in sorted(package.rglob("*.py")):
        total.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _place(key: Key) -> Path:
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return state_dir() / "eval" / f"{name}.json"
