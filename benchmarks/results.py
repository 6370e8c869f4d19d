"""What the scripts here have in common: a command line that can keep its numbers as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def parser_of(page: str | None) -> argparse.ArgumentParser:
    """A parser with `--json`, whose help is the script's own docstring."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    return parser


def keep(args: argparse.Namespace, results: object) -> None:
    """Write them where that is asked for."""
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
