"""Small networks of every architecture."""

from __future__ import annotations

import torch

from dsclora_cli.models.compact import Compact, CompactConfig
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig

NETWORKS = {
    "span": lambda: SPAN(SpanConfig()),
    "span without norm": lambda: SPAN(SpanConfig(channels=8, blocks=1, scale=2, norm=False)),
    "merged span": lambda: SPAN(SpanConfig(channels=8, blocks=2, scale=3, expanded=True)).merged(),
    "restoring span": lambda: SPAN(SpanConfig(channels=8, blocks=1, scale=1)),
    "compact": lambda: Compact(CompactConfig(channels=8, blocks=3, scale=2)),
    "restoring compact": lambda: Compact(CompactConfig(channels=8, blocks=2, scale=1, activation="leakyrelu")),
    "edsr": lambda: EDSR(EdsrConfig(channels=8, blocks=3, scale=4)),
    "edsr with res_scale": lambda: EDSR(EdsrConfig(channels=8, blocks=3, scale=3, res_scale=0.1)),
    "rcan": lambda: RCAN(RcanConfig(channels=16, blocks=2, scale=2, groups=2, attention=4)),
}


def made(name: str) -> Network:
    """Return one of the networks in eval mode; equal calls give equal weights."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()
