"""Mix the weights of two networks of one shape, which came from the same weights: (1 - SHARE) x FIRST + SHARE x SECOND.

    python examples/research/mix_weights.py FIRST SECOND SHARE OUT

The mixture of two networks with the same past is often better than both. Between networks of different origins it is
useless.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dsclora_cli.models.network import interpolate
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.checkpoint import load_network, save_network


def main(first: Path, second: Path, share: float, out: Path) -> None:
    """Write the mixture."""
    mixed = interpolate(load_network(first), load_network(second), share)
    origin = {"first": sha256_of(first), "second": sha256_of(second), "share": share}
    save_network(mixed, out, json.dumps(origin))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    main(options.first, options.second, options.share, options.out)
