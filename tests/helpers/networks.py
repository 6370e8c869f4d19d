"""A small network, and the checks that every refused file shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsclora_cli.errors import WeightsError
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.checkpoint import load_network


def small(seed: int = 0, **changes: object) -> SPAN:
    """Return a small SPAN with random weights; `changes` are fields of `SpanConfig`."""
    torch.manual_seed(seed)
    return SPAN(SpanConfig(**{"channels": 4, "blocks": 2, "scale": 2, **changes}))  # type: ignore[arg-type]


def refused(path: Path) -> str:
    """Load a file that must be refused; return the message with its hint, always a single line with the file name."""
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    assert caught.value.hint
    return text
