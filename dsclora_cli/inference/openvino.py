"""The OpenVINO engine, for CPUs in float32: without torch, once a network is converted.

`convert_network` needs torch, `save_converted` and `load_converted` keep the converted network in a file, and
`OpenvinoEngine` runs the network.
"""

from __future__ import annotations

import errno
import importlib
import json
import sys
import warnings
import zipfile
import zlib
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.inference.engine import Descriptor, UnitPixels, require_finite
from dsclora_cli.paths import atomic_write, open_regular
from dsclora_cli.temporary import temporary_folder

if TYPE_CHECKING:
    from torch import nn

_LAYOUT = 2
"""Version of the converted files: raise by one when `convert_network` or `save_converted` changes what they make."""

_KEPT = 2**19
"""Pixels of all shapes with a plan of their own, together: two tiles of 512 x 512, or more of smaller ones."""

_PLANS = 8
"""Number of plans, and of the latest shapes without a plan that are remembered. A tiled picture has at most nine."""

_LARGE = 2**17
"""Pixels of a tile from which a plan pays even for a single run."""

_BROKEN = (
    OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions that a missing or damaged file leads to."""

_NO_MEMORY = ("alloc", "Resource temporarily unavailable")
_TELEMETRY = "openvino_telemetry"
_EXAMPLE = 32  # pixels a side of the picture that a network is traced with


def is_installed() -> bool:
    """Return whether the optional package is installed, without importing the package."""
    return find_spec("openvino") is not None


def import_openvino() -> None:
    """Import OpenVINO without the part of OpenVINO that reports to a host of the internet.

    Every import of the package elsewhere in dsclora must come after a call of this function.
    """
    if "openvino" in sys.modules:
        return
    # While being imported, OpenVINO starts a process that reports the import to an analytics host and writes an
    # identifier into the home folder. Without the telemetry package OpenVINO uses a stand-in of its own, for as long as
    # the process lives. None in sys.modules makes a package look absent.
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _TELEMETRY}
    for name in hidden:
        del sys.modules[name]
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        # A program that uses the Python API may need the package for other work.
        sys.modules.update(hidden)


@dataclass(frozen=True)
class Converted:
    """A network in OpenVINO's own form."""

    graph: bytes
    """The operations as XML."""

    numbers: bytes
    """The weights, as `graph` refers to them."""

    descriptor: Descriptor
    """The network that was converted."""


def converted_name(weights_sha256: str) -> str:
    """Return the file name of a converted network; other weights, OpenVINO versions and layouts have other names."""
    return f"{weights_sha256.replace('/', '+')}{_name_end()}"


def is_outdated(name: str) -> bool:
    """Return whether a file in the folder of converted networks is of another OpenVINO or layout than this one's."""
    return "-openvino-" in name and not (is_installed() and name.endswith(_name_end()))


def _name_end() -> str:
    from importlib.metadata import version  # not needed by runs without OpenVINO

    return f"-openvino-{version('openvino')}-{_LAYOUT}.zip"


def convert_network(network: nn.Module, descriptor: Descriptor) -> Converted:
    """Convert a network that maps `(1, 3, H, W)` to `(1, 3, scale*H, scale*W)`, for any H and W.

    The converted network has channels last at both ends: `(1, H, W, 3)` to `(1, scale*H, scale*W, 3)`.
    """
    model = trace_network(network)
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    ends = PrePostProcessor(model)
    for end in (ends.input(), ends.output()):
        end.tensor().set_layout(Layout("NHWC"))
        end.model().set_layout(Layout("NCHW"))
    return Converted(*model_bytes(ends.build()), descriptor)


def trace_network(network: nn.Module) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Return a network as an OpenVINO model: `(1, 3, H, W)` to `(1, 3, scale*H, scale*W)`, for any H and W."""
    import torch

    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # OpenVINO's own `convert_model` does the same, and reports its use over the internet.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that its tracer is deprecated
        decoder = TorchScriptPythonDecoder(network.eval(), example_input=(torch.zeros(1, 3, _EXAMPLE, _EXAMPLE),))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape([1, 3, -1, -1])
    return model


def model_bytes(model: Any) -> tuple[bytes, bytes]:  # noqa: ANN401
    """Return the operations as XML, and the weights in float32, of an OpenVINO model."""
    from openvino import save_model

    with temporary_folder() as folder:
        path = folder / "network.xml"
        try:
            # The default would halve the file by rounding the weights to float16.
            save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:  # of a C++ stream, without the reason
            raise OSError(errno.ENOSPC, "a network cannot be written") from error
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def save_converted(converted: Converted, path: Path) -> None:
    """Write a file that `load_converted` reads. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A ZIP archive holds a checksum of every member, which reading verifies.
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("descriptor.json", json.dumps(asdict(converted.descriptor)))
        archive.writestr("graph.xml", converted.graph)
        archive.writestr("numbers.bin", converted.numbers)


def load_converted(path: Path) -> Converted | None:
    """Read a converted network; return None if the file is missing or any byte fails the checksum."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            descriptor = Descriptor(**json.loads(archive.read("descriptor.json")))
            return Converted(archive.read("graph.xml"), archive.read("numbers.bin"), descriptor)
    except _BROKEN:
        return None


class OpenvinoEngine:
    """Runs a converted network on the CPU, with a plan (memory and kernels) for every shape of tile that repeats.

    The first shape gets a plan, so does a large shape, and so does any other shape that comes again among the latest
    few. Making a plan takes a tenth of a second, and even the smallest plan takes 5 MB and two threads; a plan saves a
    quarter of the time of a tile. The latest few plans are kept.
    """

    name, device, dtype, fp16_fallbacks = "openvino", "cpu", "float32", 0

    def __init__(self, converted: Converted, threads: int | None = None) -> None:
        import_openvino()
        from openvino import Core

        self.descriptor = converted.descriptor
        self._core, self._converted = Core(), converted
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # encoders run on the same cores at the same time
            "CPU_RUNTIME_CACHE_CAPACITY": 0,  # keeps 0.9 MB for every shape, of 5000 layers, and saves 3 % of the time
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        self._planned: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._met: deque[tuple[int, int]] = deque(maxlen=_PLANS)
        self._any_shape: Any = None

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Upscale a tile; see `Engine`."""
        height, width = tile.shape[:2]
        try:
            request = self._request((height, width))
            # Shared: the tile is read in place, and the result is the memory of the request until the next run.
            results = list(request.infer([tile[None]], share_inputs=True, share_outputs=True).values())
        except (RuntimeError, MemoryError) as error:
            # OpenVINO raises RuntimeError for everything, and only the text speaks of memory or of stacks of threads.
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
                raise
            self._planned.clear()
            message = f"a tile of {width}x{height} does not fit the memory of {self.device}"
            raise OutOfMemory(message, "close other programs to free memory") from error
        # Without memory OpenVINO may also return nothing.
        result: UnitPixels = results[0] if results else np.empty((1, 0, 0, 3), np.float32)
        return require_finite(result[0])

    def _request(self, shape: tuple[int, int]) -> Any:  # noqa: ANN401 - OpenVINO has no types
        """Return the plan for tiles of a shape (rows, columns), or the plan for any shape."""
        if shape in self._planned:
            self._planned.move_to_end(shape)
            return self._planned[shape]
        height, width = shape
        if self._planned and shape not in self._met and height * width < _LARGE:
            self._met.append(shape)
            self._any_shape = self._any_shape or self._compiled((-1, -1))
            return self._any_shape
        pixels = height * width + sum(rows * columns for rows, columns in self._planned)
        while self._planned and (pixels > _KEPT or len(self._planned) >= _PLANS):
            (rows, columns), _ = self._planned.popitem(last=False)
            pixels -= rows * columns
        self._planned[shape] = self._compiled(shape)
        return self._planned[shape]

    def _compiled(self, shape: tuple[int, int]) -> Any:  # noqa: ANN401
        from openvino import Tensor

        numbers = Tensor(np.frombuffer(self._converted.numbers, np.uint8))
        model = self._core.read_model(self._converted.graph, numbers)
        model.reshape([1, *shape, 3])  # -1 leaves a side open, which is 30 % slower than a fixed shape
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()
