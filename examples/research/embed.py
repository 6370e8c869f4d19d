"""Put the result of a training run into the package: weights, log, golden file and scores in the catalog.

    python examples/research/embed.py NAME RUN... --data-dir DIR [--last]

NAME is an entry of weights.toml without a repository; the script replaces size, sha256 and reference scores. RUN is a
folder of `dsclora train` or `distill`. Of several RUNs, each started with the weights of the RUN before, and the last
RUN gives the weights: the best by PSNR, or with `--last` the last, for sharp models, which PSNR does not prefer. DIR
holds Set5, Set14 and BSD100 as `dsclora eval --data-dir` expects them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.catalog import EMBEDDED, WeightEntry, load_catalog
from dsclora_cli.weights.resolve import find_weights, open_network

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "weights.toml"
DECIMALS = {"loss": 6, "terms": 6, "psnr_y": 4, "psnr_y_jpeg": 4, "niqe": 4, "niqe_jpeg": 4, "rate": 6, "seconds": 0}
"""Decimals of each number of a log that the package keeps; NIQE and the scores on JPEGs are those of sharp models."""


def put_file(run: Path, entry: WeightEntry, last: bool = False) -> None:
    """Copy the weights of a run, and write size and sha256 into the catalog."""
    best = "best.safetensors" if entry.base is None else "adapter.safetensors"
    kept = run / ("last.safetensors" if last else best)
    target = EMBEDDED / entry.file
    shutil.copyfile(kept, target)
    rewrite(entry.name, r"^size = \d+$", f"size = {target.stat().st_size}")
    rewrite(entry.name, r'^sha256 = "\w+"$', f'sha256 = "{sha256_of(target)}"')


def put_log(runs: list[Path], entry: WeightEntry) -> None:
    """Write a line for each score of the runs; `part` numbers the runs from 1."""
    lines = []
    for part, run in enumerate(runs, start=1):
        for text in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
            score = json.loads(text)
            numbers = {
                key: rounded(score[key], places) for key, places in DECIMALS.items() if score.get(key) is not None
            }
            lines.append({"part": part, "step": score["step"], **numbers})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (ROOT / "docs" / "training" / f"{entry.name}.jsonl").write_text(text, encoding="utf-8")


def rounded(value: float | dict[str, float], places: int) -> float | dict[str, float]:
    """Round a number, or every number of a mapping."""
    if isinstance(value, dict):
        return {key: round(number, places) for key, number in value.items()}
    return round(value, places)


def put_golden(entry: WeightEntry) -> None:
    """Write the network's output for a piece of the example photograph: `lr` uint8, `sr` float32 before clamping."""
    photo = Image.open(ROOT / "examples" / "photo.png").convert("RGB")
    lr = np.array(photo)[100:110, 130:146]
    network = open_network(find_weights(ModelOptions(entry.name), entry.scale)).eval()
    with torch.inference_mode():
        sr = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
    np.savez_compressed(ROOT / "tests" / "golden" / f"{entry.name}.npz", lr=lr, sr=sr)


def put_scores(entry: WeightEntry, data_dir: Path) -> None:
    """Write the scores of `dsclora eval` into the catalog."""
    report = evaluate(
        EvalOptions(
            datasets=("Set5", "Set14", "BSD100"),
            data_dir=data_dir,
            models=(ModelOptions(entry.name),),
            scale=entry.scale,
            engine=EngineOptions(device="cpu", dtype="float32", engine="torch"),
        )
    )
    means = {scored.name: scored.rows[-1].mean for scored in report.sets}
    for name, mean in means.items():
        print(f"{name}: {mean['psnr_y']:.4f} dB, SSIM {mean['ssim_y']:.5f}")
        stated = f"{name} = {{ psnr_y = {mean['psnr_y']:.4f}, ssim_y = {mean['ssim_y']:.5f} }}"
        rewrite(f"{entry.name}.reference", rf"^{name} = .*$", stated)


def rewrite(table: str, pattern: str, line: str) -> None:
    """Replace the only line that a pattern matches in a table of the catalog."""
    # By text, not by a TOML library: comments and order stay.
    text = CATALOG.read_text(encoding="utf-8")
    before, heading, rest = text.partition(f"[weights.{table}]\n")
    ours, bracket, after = rest.partition("\n[")
    ours, count = re.subn(pattern, line, ours, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{CATALOG}: [weights.{table}] needs one line like {line}")
    CATALOG.write_text(before + heading + ours + bracket + after, encoding="utf-8")


def main() -> None:
    """Read the command line, embed and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--last", action="store_true", help="take the last weights instead of the best by PSNR")
    args = parser.parse_args()
    # The weights first: the golden file and the scores come from the new file under the new sha256.
    put_file(args.runs[-1], load_catalog().entry(args.name), args.last)
    entry = load_catalog().entry(args.name)
    put_log(args.runs, entry)
    if entry.base is None:
        put_golden(entry)
    put_scores(entry, args.data_dir)


if __name__ == "__main__":
    main()
