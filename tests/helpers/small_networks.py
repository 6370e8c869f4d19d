"""Small networks of every kind, for tests of what runs them."""

from __future__ import annotations

import torch

from dsclora_cli.models.edsr import Edsr, EdsrConfig
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import Rcan, RcanConfig
from dsclora_cli.models.span import Span, SpanConfig

NETWORKS = {
    "span": lambda: Span(SpanConfig()),
    "span without norm": lambda: Span(SpanConfig(channels=8, blocks=1, scale=2, norm=False)),
    "merged span": lambda: Span(SpanConfig(channels=8, blocks=2, scale=3, expanded=True)).merged(),
    "edsr": lambda: Edsr(EdsrConfig(channels=8, blocks=3, scale=4)),
    "edsr with res_scale": lambda: Edsr(EdsrConfig(channels=8, blocks=3, scale=3, res_scale=0.1)),
    "rcan": lambda: Rcan(RcanConfig(channels=16, blocks=2, scale=2, groups=2, attention=4)),
}


def made(name: str) -> Network:
    """One of them, the same every time."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()
