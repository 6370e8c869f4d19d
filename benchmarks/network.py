"""Measure the milliseconds of the x4 network alone on a picture: our engines, other engines and plain PyTorch.

    python benchmarks/network.py [--weights FILE] [--sizes 256 512] [--rounds 7] [--threads 1 2] [--cpus avx2 portable]
        [--only NAME ...] [--compiled] [--json FILE]

The engines take turns, all in float32 on the same number of threads. Shown are the least and the median wall time, and
the median CPU time of the process, which other programs on the machine disturb less. Ratios are those of medians; with
one thread also those of CPU times. The native engine is measured with the fastest instruction set of the CPU, and with
those of `--cpus`. The roofline is the time of the convolutions' multiply-adds at the rate of a large matrix product.
OpenVINO, ONNX Runtime (with onnx) and ncnn (with pnnx) are measured where installed; `--compiled` adds torch.compile,
which needs a C++ compiler and half a minute.
"""

from __future__ import annotations

import argparse
import copy
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from results import parser_of, save_results

from dsclora_cli.config import ModelOptions
from dsclora_cli.inference.native.engine import NativeEngine
from dsclora_cli.inference.native.library import CPU_VARIABLE, why_unavailable
from dsclora_cli.inference.native.weights import span_weights
from dsclora_cli.inference.openvino import OpenvinoEngine, convert_network, is_installed
from dsclora_cli.models.complexity import complexity
from dsclora_cli.models.network import Network
from dsclora_cli.weights.checkpoint import tensors_of
from dsclora_cli.weights.resolve import find_weights, open_network

SIDE = 2048  # rows and columns of the matrices of the roofline


def candidates(
    network: Network, picture: torch.Tensor, compiled: bool, cpus: Sequence[str]
) -> dict[str, Callable[[], object]]:
    """Return functions that run the network on a picture `(1, 3, H, W)`, by name; ratios refer to `plain`."""
    last = picture.contiguous(memory_format=torch.channels_last)
    laid = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tile = rows(picture)
    found: dict[str, Callable[[], object]] = {
        "plain": lambda: network(picture),
        "channels_last": lambda: laid(last),  # what the engine `torch` runs
    }
    if not why_unavailable():
        for cpu in ("", *cpus):
            found[f"dsclora native{cpu and ' ' + cpu}"] = native(network, tile, cpu)
    if is_installed():
        engine = OpenvinoEngine(convert_network(network, network.config.descriptor), torch.get_num_threads())
        found["dsclora openvino"] = lambda: engine(tile)
    if find_spec("onnxruntime") and find_spec("onnx"):
        found["onnxruntime"] = onnxruntime(network, picture)
    if find_spec("ncnn") and find_spec("pnnx"):
        found["ncnn"] = ncnn(network, picture)
    if compiled:
        module = torch.compile(copy.deepcopy(laid))
        found["torch.compile"] = lambda: module(last)
    return found


def native(network: Network, tile: np.ndarray, cpu: str) -> Callable[[], object]:
    """Return a function that runs the native engine on a tile `(H, W, 3)`; an empty `cpu` means the fastest."""
    os.environ[CPU_VARIABLE] = cpu
    weights = span_weights({name: tensor.numpy() for name, tensor in tensors_of(network).items()})
    engine = NativeEngine(weights, torch.get_num_threads())
    return lambda: engine(tile)


def rows(picture: torch.Tensor) -> np.ndarray:
    """Return a picture `(1, 3, H, W)` as the tile `(H, W, 3)` that engines take."""
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy())


def onnxruntime(network: Network, picture: torch.Tensor) -> Callable[[], object]:
    """Return a function that runs ONNX Runtime on PyTorch's number of threads."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (picture,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), settings, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: picture.numpy()}
    return lambda: session.run(None, given)


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing inside the context, not even from child processes."""
    streams = {stream.fileno(): stream for stream in (sys.stdout, sys.stderr)}
    kept = {number: os.dup(number) for number in streams}
    with Path(os.devnull).open("w") as nowhere:
        for number, stream in streams.items():
            stream.flush()
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        for number, stream in streams.items():
            stream.flush()
            os.dup2(kept[number], number)
            os.close(kept[number])


def ncnn(network: Network, picture: torch.Tensor) -> Callable[[], object]:
    """Return a function that runs ncnn in float32 on PyTorch's number of threads."""
    import ncnn
    import pnnx

    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder, silence():
        pnnx.export(network, f"{folder}/network.pt", (picture,), fp16=False)
        net.load_param(f"{folder}/network.ncnn.param")
        net.load_model(f"{folder}/network.ncnn.bin")
    given = ncnn.Mat(picture[0].numpy()).clone()

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input("in0", given)
        return extractor.extract("out0")

    expected = network(picture)[0].numpy()
    assert np.abs(np.asarray(run()[1]) - expected).max() < 1e-3
    return run


@dataclass
class Times:
    """Milliseconds of the runs of an engine."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], object], factor: float = 1.0) -> None:
        """Run the function, and add the times multiplied by a factor."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.cpu.append(1000 * factor * (time.process_time() - cpu))
        self.wall.append(1000 * factor * (time.perf_counter() - wall))

    def summary(self) -> dict[str, float]:
        """Return the numbers of a row."""
        wall, cpu = sorted(self.wall), statistics.median(self.cpu)
        return {"least": wall[0], "median": statistics.median(wall), "cpu": cpu, "least_cpu": min(self.cpu)}


def measured(network: Network, size: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the numbers of every engine by name; the last name is the roofline."""
    picture = torch.from_numpy(np.random.default_rng(0).random((1, 3, size, size), np.float32))
    matrix = torch.rand(SIDE, SIDE)
    share = complexity(network, size).multiply_adds / SIDE**3
    work = candidates(network, picture, args.compiled, args.cpus)
    work = {name: run for name, run in work.items() if not args.only or name in args.only}
    taken = {name: Times() for name in (*work, "roofline")}
    for run in work.values():  # the first run makes plans and touches new memory
        run()
    for _ in range(args.rounds):
        for name, run in work.items():
            taken[name].add(run)
        taken["roofline"].add(lambda: matrix @ matrix, share)
    return {name: times.summary() for name, times in taken.items()}


def show(size: int, threads: int, rows: dict[str, dict[str, float]]) -> None:
    """Print a row for every engine."""
    for name, row in rows.items():
        ratios = [
            f"{other} / this {rows[other]['median'] / row['median']:.2f} (CPU {rows[other]['cpu'] / row['cpu']:.2f})"
            for other in ("plain", "dsclora openvino", "roofline")
            if other in rows and other != name
        ]
        numbers = f"least {row['least']:7.1f}  median {row['median']:7.1f}  CPU {row['cpu']:7.1f} ms"
        print(f"{size}x{size}, {threads} threads  {name:23} {numbers}   {', '.join(ratios)}")


def main() -> None:
    """Measure all sizes and numbers of threads, and print the results."""
    parser = parser_of(__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--cpus", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    options = ModelOptions(weights=args.weights) if args.weights else ModelOptions("dsclora-x4")
    network = open_network(find_weights(options, 4)).eval()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for threads in args.threads:
        torch.set_num_threads(threads)
        for size in args.sizes:
            with torch.inference_mode():
                rows = measured(network, size, args)
            show(size, threads, rows)
            results[f"{size}x{size}, {threads} threads"] = rows
    save_results(args, results)


if __name__ == "__main__":
    main()
