"""Shared by the scripts in this folder: a command line with `--json`, and a file of results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def parser_of(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--json`; the docstring of the script is the help."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this JSON file")
    return parser


def save_results(args: argparse.Namespace, results: object) -> None:
    """Write the results to the file of `--json`, if one is given."""
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
