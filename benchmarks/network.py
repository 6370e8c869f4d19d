"""Measure the milliseconds of the x4 network alone on a picture: our engines, other engines and plain PyTorch.

    python benchmarks/network.py [--weights FILE] [--sizes 256 512] [--rounds 7] [--threads N] [--compiled] [--json F]

The engines take turns; results are medians over the rounds, all in float32 on the same number of threads. The roofline
is the time of the convolutions' multiply-adds at the rate of a large matrix product. OpenVINO, ONNX Runtime (with onnx)
and ncnn (with pnnx) are measured where installed; `--compiled` adds torch.compile, which needs a C++ compiler and half
a minute.
"""

from __future__ import annotations

import copy
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from results import parser_of, save_results

from dsclora_cli.config import ModelOptions
from dsclora_cli.inference.fusion import fuse
from dsclora_cli.inference.openvino import OpenvinoEngine, convert_network, is_installed
from dsclora_cli.models.complexity import complexity
from dsclora_cli.models.network import Network
from dsclora_cli.weights.resolve import find_weights, open_network

SIDE = 2048  # rows and columns of the matrices of the roofline


def candidates(network: Network, picture: torch.Tensor, compiled: bool) -> dict[str, Callable[[], object]]:
    """Return functions that run the network on a picture `(1, 3, H, W)`, by name; ratios refer to `plain`."""
    last = picture.contiguous(memory_format=torch.channels_last)
    laid = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = fuse(network)
    found: dict[str, Callable[[], object]] = {
        "plain": lambda: network(picture),
        "channels_last": lambda: laid(last),
        "dsclora torch": lambda: fused(last),
    }
    if is_installed():
        engine = OpenvinoEngine(convert_network(network, network.config.descriptor), torch.get_num_threads())
        tile = rows(picture)
        found["dsclora openvino"] = lambda: engine(tile)
    if find_spec("onnxruntime") and find_spec("onnx"):
        found["onnxruntime"] = onnxruntime(network, picture)
    if find_spec("ncnn") and find_spec("pnnx"):
        found["ncnn"] = ncnn(network, picture)
    if compiled:
        module = torch.compile(copy.deepcopy(laid))
        found["torch.compile"] = lambda: module(last)
    return found


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


def milliseconds(work: Callable[[], object]) -> float:
    """Return the milliseconds of a call."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def measured(network: Network, size: int, rounds: int, compiled: bool) -> dict[str, float]:
    """Return medians in milliseconds by name; the last name is the roofline."""
    picture = torch.rand(1, 3, size, size)
    matrix = torch.rand(SIDE, SIDE)
    work = candidates(network, picture, compiled)
    taken: dict[str, list[float]] = {name: [] for name in (*work, "roofline")}
    share = complexity(network, size).multiply_adds / SIDE**3
    for warm in range(rounds + 1):
        for name, run in work.items():
            spent = milliseconds(run)
            taken[name] += [spent] if warm else []
        taken["roofline"].append(share * milliseconds(lambda: matrix @ matrix))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Measure all sizes and print the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = ModelOptions(weights=args.weights) if args.weights else ModelOptions("dsclora-x4")
    network = open_network(find_weights(options, 4)).eval()
    with torch.inference_mode():
        results = {size: measured(network, size, args.rounds, args.compiled) for size in args.sizes}
    for size, times in results.items():
        for name, spent in times.items():
            ratios = f"plain / this {times['plain'] / spent:.2f}, roofline / this {times['roofline'] / spent:.0%}"
            print(f"{size}x{size} {name:16} {spent:8.1f} ms   {ratios}")
    save_results(args, results)


if __name__ == "__main__":
    main()
