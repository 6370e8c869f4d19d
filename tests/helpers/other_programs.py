"""Libraries of other programs that read exported networks; every test of an absent library is skipped with a reason."""

from __future__ import annotations

import enum
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Picture = NDArray[np.float32]
"""`(H, W, 3)`, RGB in [0, 1]."""


def run_onnx(path: Path, picture: Picture) -> Picture:
    """Return the result of onnxruntime."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(["output"], {"input": picture.transpose(2, 0, 1)[None]})
    return result[0].transpose(1, 2, 0)


def run_openvino(path: Path, picture: Picture) -> Picture:
    """Return the result of OpenVINO."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    from dsclora_cli.inference.openvino import import_openvino

    import_openvino()
    from openvino import Core

    model = Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return model({"input": picture.transpose(2, 0, 1)[None]})["output"][0].transpose(1, 2, 0)


def run_ncnn(path: Path, picture: Picture) -> Picture:
    """Return the result of ncnn."""
    ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed")
    blobs = json.loads(path.with_suffix(".json").read_text("utf-8"))
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
    with ncnn.Net() as net:
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.num_threads = 1
        net.load_param(str(path))
        net.load_model(str(path.with_suffix(".bin")))
        with net.create_extractor() as extractor:
            # ncnn does not keep the array alive: hence the variable, and the copy.
            extractor.input(blobs["input_blob"], ncnn.Mat(planes).clone())
            code, result = extractor.extract(blobs["output_blob"])
            assert code == 0
            return np.array(result).transpose(1, 2, 0)


def run_spandrel(path: Path, picture: Picture) -> Picture:
    """Return the result of spandrel."""
    import torch

    model = import_spandrel().ModelLoader().load_from_file(path)
    result: Any = model(torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()))
    return result[0].permute(1, 2, 0).numpy()


def import_spandrel() -> Any:
    """Return the library spandrel.

    Its two architectures of faces and of masks import three functions of torchvision, which fails where torchvision
    was built for another torch. Nothing that these tests use calls these functions: stand-ins do.
    """
    try:
        import torchvision.transforms.functional  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        functional: Any = types.ModuleType("torchvision.transforms.functional")
        functional.InterpolationMode = enum.Enum("InterpolationMode", ["BILINEAR", "NEAREST"])
        functional.normalize = functional.rotate = None
        for name in ("torchvision", "torchvision.transforms"):
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules["torchvision.transforms.functional"] = functional
    return pytest.importorskip("spandrel", reason="spandrel is not installed")


def prepare(format: str) -> None:
    """Make sure that the program for a format of `dsclora export` can be imported; skip the test if it is absent."""
    if format == "spandrel":
        import_spandrel()
    elif format == "openvino":
        from dsclora_cli.inference.openvino import import_openvino

        import_openvino()  # without the part that reports the import
    else:
        name = {"onnx": "onnxruntime"}.get(format, format)
        pytest.importorskip(name, reason=f"{name} is not installed")
