"""Measure and check a GPU in one command of six minutes, on a machine with PyTorch, NumPy and Pillow alone.

    python benchmarks/gpu.py [--minutes 6] [--photo FILE] [--out FOLDER] [--sections NAME ...] [--device cuda]
    python benchmarks/gpu.py --device cpu --small --minutes 1 --sections machine results logic network files

Nothing is fetched, and nothing but the folder of `--out` is written. Every section prints as it goes and has a share of
the time; `gpu.json` in `--out` is written after each section, so that a run that is cut off has left its results.
`compiled` comes last, in a process that is ended when the time is over. `--small` makes pictures small enough for a
CPU, where the script proves only itself.

PNG is measured where the package zlib-ng is installed. To carry it (one megabyte) to a machine without internet:
`pip install --no-deps --target carry zlib-ng`, with `--python-version` and `--only-binary=:all:` for another Python,
and there `PYTHONPATH=carry` before the command.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where dsclora is not installed

import numpy as np
import torch
from gpu_bare import Pixels, is_installed, make_do, readable, texture
from PIL import Image
from torch import Tensor, nn

from dsclora_cli.config import BatchOptions, EngineOptions, ModelOptions, SaveOptions, UpscaleOptions
from dsclora_cli.inference.device import full_float32
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.inference.torch_gpu import (
    BatchRunner,
    TorchGpuEngine,
    _BatchKind,
    _gpu_function,
    _Graph,
    _placed,
    runner_for,
)
from dsclora_cli.models.network import Network
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.weights.catalog import EMBEDDED
from dsclora_cli.weights.checkpoint import load_network

MODEL = "dsclora-x4"
PADDED = 8  # channels a multiple of this; see `channel_multiple`
BYTE = np.dtype(np.uint8)
SIZES, SMALL = ((256, 256), (510, 339)), ((32, 24),)  # width, height


@dataclass
class Bench:
    """Everything that the sections share."""

    args: argparse.Namespace
    device: torch.device
    folder: Path
    weights: Path
    network: Network
    """Merged, float32, on the CPU."""
    ends: float
    """`perf_counter` at which the time of the run is over."""
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        """Return whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def half(self) -> torch.dtype:
        """Return the dtype of the fast path on the device."""
        return torch.float16 if self.is_cuda else torch.float32

    def left(self) -> float:
        """Return the seconds that are left for the whole run."""
        return self.ends - time.perf_counter()

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, run: Callable[[], object], seconds: float = 1.0) -> float:
        """Return the median time of a call in milliseconds, over calls of some seconds in groups."""
        for _ in range(3 if self.is_cuda else 1):
            run()
        self.wait()
        group = 10 if self.is_cuda else 1  # the host runs ahead of the device within a group
        taken, ends = [], time.perf_counter() + min(seconds, max(0.2, self.left() / 20))
        while not taken or time.perf_counter() < ends:
            started = time.perf_counter()
            for _ in range(group):
                run()
            self.wait()
            taken.append(1000 * (time.perf_counter() - started) / group)
        return statistics.median(taken)


def show(name: str, value: object) -> None:
    """Print a result at once: after a cut-off run the output is there."""
    print(f"  {name:58} {value}", flush=True)


def machine(bench: Bench) -> dict[str, Any]:
    """Name the card, and measure the two ceilings: memory bandwidth and matrix products; and the copies."""
    found: dict[str, Any] = {"torch": torch.__version__, "device": str(bench.device)}
    if bench.is_cuda:
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {"card": properties.name, "gib": round(properties.total_memory / 2**30, 1), "cuda": torch.version.cuda}
        found["cudnn"] = torch.backends.cudnn.version()
    size, side = (2**29, 8192) if bench.is_cuda else (2**23, 512)
    one, other = (torch.empty(size, dtype=torch.uint8, device=bench.device) for _ in range(2))
    matrix = torch.randn(side, side, device=bench.device, dtype=bench.half)
    found["gb_per_s"] = 2 * size / 1e6 / bench.milliseconds(lambda: other.copy_(one))
    found["tflop_per_s"] = 2 * side**3 / 1e9 / bench.milliseconds(lambda: matrix @ matrix)
    if bench.is_cuda:
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        up = bench.milliseconds(lambda: one.copy_(host, non_blocking=True))
        down = bench.milliseconds(lambda: host.copy_(one, non_blocking=True))
        found |= {"to_device_gb_per_s": size / 1e6 / up, "to_host_gb_per_s": size / 1e6 / down}
    for name, value in found.items():
        show(name, f"{value:.3g}" if isinstance(value, float) else value)
    return found


def gpu_engine(bench: Bench, dtype: torch.dtype) -> TorchGpuEngine:
    """Return the engine as `dsclora upscale` opens it on the device: padded in float16."""
    network = bench.network.padded(PADDED) if dtype is torch.float16 else bench.network
    return TorchGpuEngine(network, network.config.descriptor, bench.device, dtype)


def results(bench: Bench) -> dict[str, Any]:
    """Compare the engine of the device with the engine of the CPU, in 8-bit levels."""
    rng, (height, width) = np.random.default_rng(1), (24, 32) if bench.args.small else (123, 160)
    pictures = {
        f"picture {width}x{height}": texture(height, width),
        f"gray {width}x{height}": texture(height, width)[:, :, :1].copy(),
        # Far from every photograph: the network amplifies rounding, so float16 differs most here.
        f"noise {width}x{height}": rng.integers(0, 256, (height, width, 3), np.uint8),
        "black 32x32": np.zeros((32, 32, 3), np.uint8),
        "white 32x32": np.full((32, 32, 3), 255, np.uint8),
        "1x1": np.full((1, 1, 3), 99, np.uint8),
        "3x5": texture(5, 3),
    }
    exact = TorchCpuEngine(bench.network, bench.network.config.descriptor, torch.float32)
    expected = {name: upscale_array(pixels, exact, TileOptions(64)).astype(int) for name, pixels in pictures.items()}
    found: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float16):
        engine = gpu_engine(bench, dtype)
        for name, pixels in pictures.items():
            difference = np.abs(upscale_array(pixels, engine, TileOptions(64)) - expected[name])
            largest, share = int(difference.max()), float((difference > 0).mean())
            found[f"{engine.dtype}, {name}"] = {"levels": largest, "share": share}
            show(f"{engine.dtype}, {name}", f"at most {largest} levels, {share:.3%} of the values differ")
        found[f"{engine.dtype} fallbacks"] = engine.fp16_fallbacks
        show(f"{engine.dtype}, tiles computed again in float32", engine.fp16_fallbacks)
    return found


def logic(bench: Bench) -> dict[str, Any]:
    """Check graphs, pinned copies and several streams: the largest difference in levels; 0 where all is well."""
    tiles = [texture(*((48, 50) if bench.args.small else (72, 96)), seed) for seed in range(8)]
    kind = _BatchKind(tiles[0].shape, BYTE, 0, 255, clamped=True)
    network = _placed(bench.network.padded(PADDED), bench.device, bench.half)
    function = _gpu_function(network, kind)
    with torch.inference_mode(), full_float32():
        plain = [BatchRunner(bench.device).run(function, [tile], BYTE)()[0][0] for tile in tiles]
        runner = runner_for(bench.device)
        one = [runner.run(function, [tile], BYTE, "key")()[0][0] for tile in tiles]
        late = [runner.run(function, [tile], BYTE, "key") for tile in tiles]
        reversed_order = [late[index]()[0][0] for index in reversed(range(len(tiles)))][::-1]
        # More shapes than graphs are kept, each often enough to be captured, and back to the first shape.
        for edge in (24, 32, 40, 48):
            for _ in range(3):
                runner.run(function, [tile[:edge, :edge].copy() for tile in tiles[:2]], BYTE, "key")()
        again = [runner.run(function, [tile], BYTE, "key")()[0][0] for tile in tiles]
        batches = runner.run(function, tiles, BYTE, "key")()[0]
    found = {
        "pinned copies, graphs from the second tile on": largest(one, plain),
        "results read in the opposite order": largest(reversed_order, plain),
        "graphs dropped and captured again": largest(again, plain),
        "one batch of eight": largest(list(batches), plain),
        "two threads with an engine and a stream each": largest(*in_threads(bench, tiles)),
    }
    for name, value in found.items():
        show(name, f"{value} levels")
    kept = len(getattr(runner, "_graphs", ()))
    show("graphs kept now", kept if bench.is_cuda else "copies, graphs and streams not exercised: no CUDA device")
    return found


def largest(results: list[Pixels], expected: list[Pixels]) -> int:
    """Return the largest difference between two lists of pictures, in levels."""
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(results, expected, strict=True))


def in_threads(bench: Bench, tiles: list[Pixels]) -> tuple[list[Pixels], list[Pixels]]:
    """Return the results of two threads that work at once, and the results of one engine after another."""
    halves, done = (tiles[:4], tiles[4:]), [list[Pixels](), list[Pixels]()]

    def work(index: int) -> None:
        engine = gpu_engine(bench, bench.half)
        # Not two captures on a device at once: dsclora never does this, for every device has a single network thread.
        engine._runner._captures = False  # type: ignore[attr-defined]
        stream = torch.cuda.stream(torch.cuda.Stream(bench.device)) if bench.is_cuda else nullcontext()
        with stream:
            done[index] = [upscale_array(tile, engine, TileOptions(32)) for tile in halves[index]]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = gpu_engine(bench, bench.half)
    return [*done[0], *done[1]], [upscale_array(tile, engine, TileOptions(32)) for tile in tiles]


def least_work(network: nn.Module, height: int, width: int, value_bytes: int) -> tuple[float, float]:
    """Return the bytes and the floating-point operations of all convolutions, each map read once and written once."""
    moved, operations = 0.0, 0.0

    def count(layer: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal moved, operations
        moved += (inputs[0].numel() + output.numel()) * value_bytes
        operations += 2 * output.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    share = height * width / 32**2
    return moved * share, operations * share


def network(bench: Bench) -> dict[str, Any]:
    """Measure the network alone, per picture, in several ways, and the bounds of the card."""
    found = {}
    for width, height in SMALL if bench.args.small else SIZES:
        print(f" {width}x{height}", flush=True)
        with torch.inference_mode(), full_float32():
            times = network_times(bench, height, width)
        if "machine" in bench.results:
            moved, operations = least_work(bench.network, height, width, bench.half.itemsize)
            times["bound: memory"] = moved / 1e6 / bench.results["machine"]["gb_per_s"]
            times["bound: matrix products"] = operations / 1e9 / bench.results["machine"]["tflop_per_s"]
        plain = times["eager float32"]
        for name, spent in times.items():
            show(name, f"{spent:9.3f} ms   eager float32 / this {plain / spent:.2f}")
        found[f"{width}x{height}"] = times
    return found


def network_times(bench: Bench, height: int, width: int) -> dict[str, float]:
    """Return milliseconds per picture by the name of the way."""
    picture = torch.from_numpy(texture(height, width)).to(bench.device).permute(2, 0, 1)[None].float() / 255
    half, padded = bench.half, bench.network.padded(PADDED)
    fast_name = str(half).removeprefix("torch.")
    ways: dict[str, Callable[[], object]] = {}
    for name, module, dtype, memory_format in (
        ("eager float32", bench.network, torch.float32, torch.contiguous_format),
        (f"eager {fast_name}", bench.network, half, torch.contiguous_format),
        (f"{fast_name}, channels_last", bench.network, half, torch.channels_last),
        (f"{fast_name}, channels_last, 32 channels", padded, half, torch.channels_last),
    ):
        placed = _placed(module, bench.device, dtype).to(memory_format=memory_format)  # type: ignore[call-overload]
        given = picture.to(dtype).contiguous(memory_format=memory_format)
        ways[name] = lambda placed=placed, given=given: placed(given)  # type: ignore[misc]
    times = {name: bench.milliseconds(run) for name, run in ways.items()}

    fast = _placed(padded, bench.device, half)
    tile = np.ascontiguousarray(texture(height, width))
    function = _gpu_function(fast, _BatchKind(tile.shape, BYTE, 0, 255, clamped=True))
    for count in (1, 4):
        batch = torch.from_numpy(np.stack([tile] * count)).to(bench.device)
        run = replayed(function, batch) if bench.is_cuda else (lambda batch=batch: function(batch))
        times[f"ours, from bytes to bytes on the device, batch of {count}"] = bench.milliseconds(run) / count
    times["ours, from host to host, tiles in flight"] = streamed(bench, tile)
    return times


def replayed(function: Callable[[Tensor], tuple[Tensor, ...]], batch: Tensor) -> Callable[[], object]:
    """Return a function that replays a CUDA graph."""
    graph = _Graph(function, batch)

    def replay() -> None:
        graph._graph.replay()  # `graph` keeps the memory that a replay reads, so the object must stay alive

    return replay


def streamed(bench: Bench, tile: Pixels) -> float:
    """Return the milliseconds per tile of the engine with as many tiles in flight as the engine wants."""
    engine = gpu_engine(bench, bench.half)
    ahead = 8 if bench.args.small else max(2, engine.pixels_in_flight // (tile.shape[0] * tile.shape[1]))

    def run() -> None:
        pending = [engine.start(tile, 0, 255) for _ in range(ahead)]
        for read in pending:
            read()

    return bench.milliseconds(run) / ahead


def kernels(bench: Bench) -> dict[str, Any]:
    """List the kernels that take the time of our way, with their shares."""
    if not bench.is_cuda:
        show("kernels", "not measured: no CUDA device")
        return {}
    fast = _placed(bench.network.padded(PADDED), bench.device, bench.half)
    function = _gpu_function(fast, _BatchKind((256, 256, 3), BYTE, 0, 255, clamped=True))
    batch = torch.from_numpy(texture(256, 256))[None].to(bench.device)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.inference_mode(), torch.profiler.profile(activities=activities) as profile:
        for _ in range(20):
            function(batch)
        bench.wait()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)[:14]
    total = sum(event.self_device_time_total for event in profile.key_averages()) or 1
    found = {event.key[:90]: round(event.self_device_time_total / total, 4) for event in events}
    for name, share in found.items():
        show(name[:58], f"{share:.1%}")
    return found


def files(bench: Bench) -> dict[str, Any]:
    """Upscale a photograph and fifty small pictures from file to file, with the shares of the parts."""
    small, made = bench.args.small, bench.folder / "photo.jpg"
    photo = bench.args.photo or made
    if photo == made:
        Image.fromarray(texture(*((48, 64) if small else (2880, 3840)))).save(made, quality=95)
    # dsclora reads PNG with imagecodecs and writes PNG with zlib-ng.
    kind = "png" if is_installed("imagecodecs") else "jpg"
    many = [bench.folder / f"{index:02}.{kind}" for index in range(3 if small else 50)]
    for index, path in enumerate(many):
        Image.fromarray(texture(*((24, 32) if small else (256, 256)), seed=index)).save(path)
    found = {}
    for suffix in ("jpg", "png") if is_installed("zlib_ng") else ("jpg",):
        options = options_for(bench, suffix)
        upscaler = PictureUpscaler(options)
        upscale(bench, [many[0]], options, upscaler)  # opens the network
        for name, paths in (("photograph", [photo]), (f"{len(many)} small pictures", many)):
            found[f"{name}, {suffix}"] = parts = upscale(bench, paths, options, upscaler)
            show(f"{name}, {suffix}", ", ".join(f"{key} {value:.3g}" for key, value in parts.items()))
    if "png" not in "".join(found):
        show("PNG", "not measured: the package zlib-ng is not installed")
    return found


def options_for(bench: Bench, suffix: str) -> UpscaleOptions:
    """Return options that write results in a format."""
    output = bench.folder / suffix
    output.mkdir(exist_ok=True)
    return UpscaleOptions(
        model=ModelOptions(weights=bench.weights, offline=True),
        engine=EngineOptions(device=bench.args.device, engine="torch"),
        save=SaveOptions(format={"jpg": "JPEG", "png": "PNG"}[suffix]),
        batch=BatchOptions(output=str(output), overwrite=True),
    )


def upscale(bench: Bench, paths: list[Path], options: UpscaleOptions, upscaler: PictureUpscaler) -> dict[str, float]:
    """Return seconds of the whole and of the parts, which overlap; copies and kernels from the profiler; megabytes."""
    if bench.is_cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    started = time.perf_counter()
    done = list(upscale_files(map(str, paths), options, upscaler=upscaler))
    found = {"s in all": time.perf_counter() - started}
    for result in done:
        if result.status != "done":
            raise RuntimeError(f"{result.input}: {result.error or result.warnings}")
    for stage in ("decode", "network", "encode"):
        found[stage] = sum(getattr(result.seconds, stage) for result in done)
    found["host MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if bench.is_cuda:
        found["device MB"] = torch.cuda.max_memory_allocated(bench.device) / 1e6
        found["reserved MB"] = torch.cuda.max_memory_reserved(bench.device) / 1e6
        found |= device_seconds(paths, options, upscaler)
    return found


def device_seconds(paths: list[Path], options: UpscaleOptions, upscaler: PictureUpscaler) -> dict[str, float]:
    """Return the seconds that the device spends on copies and on kernels; the profiler slows the host down."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in upscale_files(map(str, paths), options, upscaler=upscaler):
            pass
    found = {"copies": 0.0, "kernels": 0.0}
    for event in profile.key_averages():
        found["copies" if event.key.startswith("Memcpy") else "kernels"] += event.self_device_time_total / 1e6
    return found


def compiled(bench: Bench) -> dict[str, Any]:
    """Measure torch.compile in a process of its own, which is ended when the time is over."""
    command = [sys.executable, __file__, "--compiled", "--device", bench.args.device, "--out", str(bench.args.out)]
    command += ["--small"] if bench.args.small else []
    limit = bench.left() - 5
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=max(1, limit), check=False)
    except subprocess.TimeoutExpired:
        show("torch.compile max-autotune", f"not measured: more than {limit:.0f} s to compile")
        return {}
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    for name, value in found.items():
        show(name, value)
    return found


def compile_here(bench: Bench) -> None:
    """Compile, measure, and print the results as JSON: the work of the process of `compiled`."""
    found: dict[str, float] = {}
    fast = _placed(bench.network.padded(PADDED), bench.device, bench.half)
    sizes = SMALL if bench.args.small else SIZES
    for width, height in sizes:
        torch._dynamo.reset()
        run = partial(
            torch.compile(fast, mode="max-autotune", dynamic=False),
            torch.rand(1, 3, height, width, device=bench.device, dtype=bench.half).contiguous(
                memory_format=torch.channels_last
            ),
        )
        started = time.perf_counter()
        with torch.inference_mode():
            run()
            bench.wait()
            found[f"{width}x{height}, s to compile"] = time.perf_counter() - started
            found[f"{width}x{height}, ms by torch.compile max-autotune"] = bench.milliseconds(run)
    print(json.dumps(found))


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    section.__name__: section for section in (machine, results, logic, network, files, kernels, compiled)
}


def opened(args: argparse.Namespace) -> Bench:
    """Return the bench for a command line, with the network loaded."""
    folder = make_do()
    weights = readable(EMBEDDED / f"{MODEL}.safetensors", folder)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device: not measured (--device cpu --small proves the script itself)")
    ends = time.perf_counter() + 60 * args.minutes
    return Bench(args, device, folder, weights, load_network(weights), ends)


def main() -> None:
    """Run the sections, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="time for the whole run")
    parser.add_argument("--photo", type=Path, help="a photograph; default: 11 megapixels made by code")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for gpu.json")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small pictures, for a run on a CPU")
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    bench = opened(args)
    if args.compiled:
        compile_here(bench)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in args.sections:
        print(f"{name} ({bench.left():.0f} s left)", flush=True)
        try:
            bench.results[name] = SECTIONS[name](bench) if bench.left() > 0 else "not measured: no time left"
        except Exception as error:  # noqa: BLE001 - the other sections still tell something
            traceback.print_exc()
            bench.results[name], failed = f"failed: {type(error).__name__}: {error}", True
        (args.out / "gpu.json").write_text(json.dumps(bench.results, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
