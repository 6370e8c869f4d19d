"""Write docs/benchmarks.md: scores of the embedded network and of released networks.

    python benchmarks/scores.py [--data-dir DIR] [--output FILE] WEIGHTS...

All networks are compared with the first WEIGHTS; the embedded network comes last. Scores that `dsclora eval` has kept
are used again. Without --data-dir the sets come from the Hub.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dsclora_cli.cli.views.eval_tables import markdown_text
from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.evaluation.report import EvalReport
from dsclora_cli.weights.catalog import EMBEDDED

ROOT = Path(__file__).parent.parent
SETS = ("Set5", "Set14", "BSD100")
OWN = EMBEDDED / "dsclora-x4.safetensors"

PAGE = """# Benchmarks

Written by `python benchmarks/scores.py`; [Evaluation](eval.md) explains the columns. Anyone can repeat the measurement;
the sets are fetched from the Hub:

```console
$ {command}
```

On CUDA or with other versions the last digit may differ, because sums are computed in another order. Time and memory
compare the networks with each other only: they were measured on one thread of a shared machine, as medians over the
images, with the networks taking turns.

{tables}
## What was measured

| model | weights | sha256 |
| --- | --- | --- |
{weights}

Versions: {versions}.
"""

SOURCES = {
    "30bf224aee5d3fb9cbc7a3bf164a294f957f65c45f5b271052947097922040a5": "SPAN-tiny, from which the released DSCLoRA "
    "student was made: `Amazingren/NTIRE2024_ESR` on GitHub",
    "239e76bc4e4e738491c3963805c0a79f524400acf5fbde34b2cb1a855dd62cb1": "the released DSCLoRA student: "
    "`Yaozzz666/DSCF-SR` on GitHub",
    "6c80f05048313289c6526e5fc9726688d7bb3dfdd6ae3c8b1e7dd09f601e5971": "SPAN with 28 channels, baseline of the NTIRE "
    "2026 challenge: `Amazingren/NTIRE2026_ESR` on GitHub",
}


def page(report: EvalReport, files: list[Path]) -> str:
    """Return the text of the page for a report on these weights files."""
    shown = [path.relative_to(ROOT).as_posix() if path == OWN else path.name for path in files]
    options = [*(f"--dataset {name}" for name in SETS), f"-s {report.scale}", *(f"--weights {name}" for name in shown)]
    weights = [
        f"| {row.name} | {SOURCES.get(row.weights_sha256, 'this project')} | `{row.weights_sha256}` |"
        for row in report.rows
        if row.weights_sha256
    ]
    return PAGE.format(
        command=" \\\n    ".join(["dsclora eval", *options, "--cost --threads 1 --device cpu"]),
        tables=markdown_text(report),
        weights="\n".join(weights),
        versions=", ".join(f"{name} {version}" for name, version in report.versions.items()),
    )


def main() -> None:
    """Evaluate the networks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    args = parser.parse_args()
    files = [*args.weights, OWN]
    report = evaluate(
        EvalOptions(
            datasets=SETS,
            data_dir=args.data_dir,
            models=tuple(ModelOptions(weights=path) for path in files),
            engine=EngineOptions(device="cpu", dtype="float32", threads=1),
            cost=True,
        )
    )
    args.output.write_text(page(report, files), encoding="utf-8")


if __name__ == "__main__":
    main()
