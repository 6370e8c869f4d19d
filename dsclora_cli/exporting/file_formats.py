"""Convert a network to the bytes of each format of `dsclora export`: a function for every format.

Every converted network takes pictures of any height and width, and computes in float32.
"""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.inference import openvino
from dsclora_cli.models.network import Network
from dsclora_cli.models.span import SPAN
from dsclora_cli.temporary import temporary_folder
from dsclora_cli.weights.checkpoint import pack_network
from dsclora_cli.weights.state_dict import pack_tensors

_OPSET = 17
"""Version of the ONNX operators: new enough for these networks, and old enough for most readers."""

_EXAMPLE, _OTHER_EXAMPLE = (32, 48), (37, 51)
"""Heights and widths of the pictures that networks are traced with; they differ, so that no size is taken as fixed."""

_SPANDREL_BLOCKS = 6
"""Blocks of every SPAN in the library spandrel: the number is fixed there."""

_NCNN_NAMES = {"in0": "data", "out0": "output"}
"""Names that pnnx gives the ends of a network, and the names that programs with ncnn look for."""


@dataclass(frozen=True)
class ExportFormat:
    """A format of `dsclora export`."""

    suffixes: tuple[str, ...]
    """Suffixes of the files, the one that the user names first."""

    convert: Callable[[Network, Mapping[str, str]], tuple[bytes, ...]]
    """Return the contents of the files, in the order of the suffixes, for a network in merged form and metadata.

    Raises UsageError for a network that the format cannot hold.
    """

    package: str | None = None
    """Package that the conversion needs, if it is an optional one."""

    extra: str = "export"
    """Extra of dsclora that installs the package."""

    def check_package(self) -> None:
        """Raise UsageError if the package is not installed."""
        if self.package and find_spec(self.package) is None:
            raise UsageError(f"the package {self.package} is not installed", f'pip install "dsclora[{self.extra}]"')


def _to_safetensors(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return a file of this program's own format."""
    return (pack_network(network, metadata),)


def _to_spandrel(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return a safetensors file that the library spandrel recognizes, with exactly the same weights."""
    if isinstance(network, SPAN):
        if network.config.blocks != _SPANDREL_BLOCKS:
            problem = (
                f"spandrel knows SPAN with {_SPANDREL_BLOCKS} blocks only, and this one has {network.config.blocks}"
            )
            raise UsageError(problem, "choose the format safetensors, onnx, openvino or ncnn")
        return (pack_network(network.expand(), metadata, _merged_copies(network)),)
    if network.config.descriptor.arch not in _SAME_NAMES:
        problem = f"spandrel knows no {network.config.descriptor.arch}"
        raise UsageError(problem, "choose the format safetensors, onnx, openvino or ncnn")
    return (pack_tensors(network.state_dict(), metadata),)


_SAME_NAMES = ("compact", "rcan")
"""Architectures with the same tensors here and in spandrel."""


def _merged_copies(network: SPAN) -> dict[str, Tensor]:
    """Return the merged convolutions: spandrel wants them in the file, though it computes them from the others."""
    return {name: tensor for name, tensor in network.state_dict().items() if ".eval_conv." in name}


def _to_onnx(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return an ONNX file; the names at the ends are `input` and `output`."""
    import onnx

    sides = {2: "height", 3: "width"}
    with temporary_folder() as folder, _quiet_tracing():
        path = folder / "network.onnx"
        # By tracing. The newer exporter needs several more packages and three times the time; it writes the same nodes.
        torch.onnx.export(
            _Callable(network),
            (torch.zeros(1, 3, *_EXAMPLE),),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": sides, "output": {axis: f"large_{side}" for axis, side in sides.items()}},
        )
        model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return (model.SerializeToString(deterministic=True),)


def _to_openvino(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return OpenVINO's XML and weights, channels first; the names at the ends are `input` and `output`."""
    model = openvino.trace_network(network)
    model.input().get_tensor().set_names({"input"})
    model.output().get_tensor().set_names({"output"})
    for key, value in metadata.items():
        model.set_rt_info(value, ["dsclora", key])
    return openvino.model_bytes(model)


def _to_ncnn(network: Network, metadata: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return ncnn's param file, weights in float32, and metadata as JSON: ncnn's files have no place for metadata."""
    import pnnx

    with temporary_folder() as folder, _quiet_tracing(), torch.no_grad():
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Callable(network), torch.zeros(1, 3, *_EXAMPLE), check_trace=False
        )
        file = BytesIO()
        torch.jit.save(traced, file)
        Path(folder, "network.pt").write_bytes(file.getvalue())  # saving into a full disk would end the process
        shapes = [f"[1,3,{height},{width}]f32" for height, width in (_EXAMPLE, _OTHER_EXAMPLE)]
        command = [pnnx.EXEC_PATH, "network.pt", f"inputshape={shapes[0]}", f"inputshape2={shapes[1]}", "fp16=0"]
        ran = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, errors="replace")  # noqa: S603
        try:
            graph = Path(folder, "network.ncnn.param").read_text("utf-8")
            numbers = Path(folder, "network.ncnn.bin").read_bytes()
        except OSError as error:
            last = (ran.stdout + ran.stderr).strip().splitlines()[-1:] or ["no message"]
            raise DscloraError(f"pnnx cannot convert this network: {last[0]}", "choose the format onnx") from error
    graph = re.sub(r"\b(in0|out0)\b", lambda name: _NCNN_NAMES[name[0]], graph)
    ends = {"input_blob": _NCNN_NAMES["in0"], "output_blob": _NCNN_NAMES["out0"]}
    described = json.dumps({**metadata, **ends}, indent=2, ensure_ascii=False) + "\n"
    return graph.encode(), numbers, described.encode()


class _Callable(nn.Module):
    """A network with a single argument: the tracers would take the callback of `Network.forward` for a second input."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `(1, 3, H, W)` to `(1, 3, scale*H, scale*W)`."""
        y: Tensor = self.network(x)
        return y


def _quiet_tracing() -> warnings.catch_warnings[None]:
    """Return a context without warnings: torch warns that tracing is deprecated."""
    return warnings.catch_warnings(action="ignore")


# The first format with a suffix is the one that the suffix stands for.
FORMATS: dict[str, ExportFormat] = {
    "safetensors": ExportFormat((".safetensors",), _to_safetensors),
    "onnx": ExportFormat((".onnx",), _to_onnx, "onnx"),
    "openvino": ExportFormat((".xml", ".bin"), _to_openvino, "openvino", "cpu"),
    "spandrel": ExportFormat((".safetensors",), _to_spandrel),
    "ncnn": ExportFormat((".param", ".bin", ".json"), _to_ncnn, "pnnx"),
}
"""All formats by name."""
