"""Mix two networks, or two adapters of one base, with the same past: (1 - SHARE) x FIRST + SHARE x SECOND.

    python examples/research/mix_weights.py FIRST SECOND SHARE OUT

The mixture of two networks with the same past is often better than both. Between networks of different origins it is
useless. Of adapters the factors A and B are mixed, so the mixture has the same ranks.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from dsclora_cli.models.network import interpolate
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import is_adapter, load_adapters, pack_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.state_dict import read_tensors


def main(first: Path, second: Path, share: float, out: Path) -> None:
    """Write the mixture."""
    origin = json.dumps({"first": sha256_of(first), "second": sha256_of(second), "share": share})
    if is_adapter(read_tensors(first)):
        out.write_bytes(mix_adapters(first, second, share, origin))
    else:
        save_network(interpolate(load_network(first), load_network(second), share), out, origin)


def mix_adapters(first: Path, second: Path, share: float, origin: str) -> bytes:
    """Return the file of a mixture of two adapters. Raises SystemExit where bases or ranks differ."""
    own, other = load_adapters(first), load_adapters(second)
    shapes = [{name: tensor.shape for name, tensor in each.tensors.items()} for each in (own, other)]
    if own.base_sha256 != other.base_sha256 or shapes[0] != shapes[1]:
        raise SystemExit(f"{first} and {second} have other bases or ranks")
    mixed = {name: (1 - share) * tensor + share * other.tensors[name] for name, tensor in own.tensors.items()}
    return pack_adapters(replace(own, tensors=mixed), origin)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    main(options.first, options.second, options.share, options.out)
