"""A small network, and what refusing a file must look like."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsclora_cli.errors import WeightsError
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.checkpoint import load_network


def small(seed: int = 0, **changes: object) -> SPAN:
    torch.manual_seed(seed)
    return SPAN(SpanConfig(**{"channels": 4, "blocks": 2, "scale": 2, **changes}))  # type: ignore[arg-type]


def refused(path: Path) -> str:
    """The one line with which the file is refused, next step included."""
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    assert caught.value.hint
    return text
