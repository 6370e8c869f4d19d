"""An engine for CPUs that needs no torch once a network is converted: OpenVINO, in float32."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.inference.engine import Descriptor, UnitPixels, require_finite
from dsclora_cli.paths import atomic_write

if TYPE_CHECKING:
    from torch import nn

_LAYOUT = 1
"""Raised whenever `convert_network` or `save_converted` makes something else of the same network."""

_KEPT = 2**19
"""Pixels of the shapes with memory and kernels of their own: two of 512 square, or more of smaller ones."""

_LARGE = 2**17
"""Pixels of a tile from which on kernels of its own are worth their making even once."""

_BROKEN = (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile)
_EXAMPLE = 32  # pixels a side of the picture that a network is traced with


def is_installed() -> bool:
    """Whether the optional package is here; it is not imported."""
    return find_spec("openvino") is not None


@dataclass(frozen=True)
class Converted:
    """A network in OpenVINO's own form: its graph as XML, and the numbers in it."""

    graph: bytes
    numbers: bytes
    descriptor: Descriptor


def converted_name(weights_sha256: str) -> str:
    """What a converted network is called: other weights, another OpenVINO and another layout have other names."""
    return f"{weights_sha256.replace('/', '+')}-openvino-{version('openvino')}-{_LAYOUT}.zip"


def convert_network(network: nn.Module, descriptor: Descriptor) -> Converted:
    """The network, `(1, 3, H, W)` to `(1, 3, scale*H, scale*W)`, for any H and W, with channels last at both ends.

    OpenVINO's own `convert_model` does the same, and reports its use over the network.
    """
    import torch
    from openvino import Layout, save_model
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its tracer's age
        decoder = TorchScriptPythonDecoder(network.eval(), example_input=(torch.zeros(1, 3, _EXAMPLE, _EXAMPLE),))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape([1, 3, -1, -1])
    ends = PrePostProcessor(model)
    for end in (ends.input(), ends.output()):
        end.tensor().set_layout(Layout("NHWC"))
        end.model().set_layout(Layout("NCHW"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        save_model(ends.build(), path, compress_to_fp16=False)
        return Converted(path.read_bytes(), path.with_suffix(".bin").read_bytes(), descriptor)


def save_converted(converted: Converted, path: Path) -> None:
    """Write a file that `load_converted` reads. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("descriptor.json", json.dumps(asdict(converted.descriptor)))
        archive.writestr("graph.xml", converted.graph)
        archive.writestr("numbers.bin", converted.numbers)


def load_converted(path: Path) -> Converted | None:
    """Read a converted network; return None if the file is missing or any byte fails the checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            descriptor = Descriptor(**json.loads(archive.read("descriptor.json")))
            return Converted(archive.read("graph.xml"), archive.read("numbers.bin"), descriptor)
    except _BROKEN:
        return None


class OpenvinoEngine:
    """Runs a converted network on the CPU, with memory and kernels planned for the shapes of tiles that come again.

    The first shape, a large one, and each other from its second tile on, gets a plan, which takes a tenth of a second
    and saves a quarter of the time of each tile; the latest few are kept.
    """

    name, device, dtype, fp16_fallbacks = "openvino", "cpu", "float32", 0

    def __init__(self, converted: Converted, threads: int | None = None) -> None:
        from openvino import Core

        self.descriptor = converted.descriptor
        self._core, self._converted = Core(), converted
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # encoders run beside it
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        self._planned: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._met: set[tuple[int, int]] = set()
        self._any_shape: Any = None

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """See `Engine`."""
        height, width = tile.shape[:2]
        try:
            request = self._request((height, width))
            answer: UnitPixels = request.infer([tile[None]], share_inputs=True, share_outputs=True)[0]
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "alloc" not in str(error):
                raise
            self._planned.clear()
            raise OutOfMemory(f"a tile of {width}x{height} does not fit the memory of {self.device}") from error
        return require_finite(answer[0])

    def _request(self, shape: tuple[int, int]) -> Any:  # noqa: ANN401 - OpenVINO has no types
        if shape in self._planned:
            self._planned.move_to_end(shape)
            return self._planned[shape]
        height, width = shape
        if self._planned and shape not in self._met and height * width < _LARGE:
            self._met.add(shape)
            self._any_shape = self._any_shape or self._compiled((-1, -1))
            return self._any_shape
        while self._planned and sum(rows * columns for rows, columns in (*self._planned, shape)) > _KEPT:
            self._planned.popitem(last=False)
        self._planned[shape] = self._compiled(shape)
        return self._planned[shape]

    def _compiled(self, shape: tuple[int, int]) -> Any:  # noqa: ANN401
        from openvino import Tensor

        numbers = Tensor(np.frombuffer(self._converted.numbers, np.uint8))
        model = self._core.read_model(self._converted.graph, numbers)
        model.reshape([1, *shape, 3])
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()
