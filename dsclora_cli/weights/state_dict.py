"""Tensors out of a file of weights, whatever wrote it, running none of its code: content decides. And into one."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import atomic_write

MOST_BYTES = 1 << 30
_WRAPPERS = ("params_ema", "params", "state_dict")
_PREFIX = "module."
_HINT = "expected weights as .safetensors, .pth or .pt"
_BROKEN = (
    pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, OSError, struct.error, zipfile.BadZipFile, SafetensorError,
)  # fmt: skip
"""What the readers raise on damaged bytes: there is no one class, for the format is a program."""


@dataclass(frozen=True)
class TensorFile:
    """Tensors by name on the CPU, as stored, without wrappers; `metadata` is empty but for safetensors."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_tensors(path: Path) -> TensorFile:
    """The tensors of a safetensors, zip or legacy pickle checkpoint. Raises WeightsError in one line."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", "check the path") from error
    if size > MOST_BYTES:
        raise WeightsError(f"{path} is larger than 1 GiB", _HINT)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):
        return TensorFile(_unwrap(_read_pickle(path), path), {})
    raise WeightsError(f"{path} is not a file of weights", _HINT)


def require_finite(tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor. Raises WeightsError unless it holds floating-point values that are finite in float32."""
    if tensor.is_meta or not tensor.is_floating_point():
        raise WeightsError(f"{path}: {name} does not hold floating-point values", _HINT)
    if not bool(torch.isfinite(tensor.float()).all()):
        raise WeightsError(f"{path}: {name} holds NaN or infinity", "the weights are damaged; get the file again")
    return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; equal contents give equal bytes.

    Raises WeightsError where it cannot be written.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(_sorted_header(save(stored, dict(metadata))))
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror}", "choose another place for the weights") from error


def _sorted_header(file: bytes) -> bytes:
    """The same safetensors file with its header in one order: the library writes metadata in a random one."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return TensorFile(_unwrap(tensors, path), dict(file.metadata() or {}))
    except _BROKEN as error:
        raise _broken(path) from error


def _read_pickle(path: Path) -> object:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                    raise WeightsError(f"{path} unpacks to more than 1 GiB", _HINT)
        with path.open("rb") as file:  # opened here: given a path, torch goes by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        refused = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if refused:
            raise WeightsError(
                f"{path} is refused: loading it would run code ({refused[1]})",
                "a file of weights holds tensors only; get a .safetensors file from a source you trust",
            ) from error
        raise _broken(path) from error


def _broken(path: Path) -> WeightsError:
    return WeightsError(f"{path} is truncated, damaged or not a file of weights", "get the file again")


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside the wrappers that training programs put around it."""
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path} holds no table of tensors", _HINT)
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise WeightsError(f"{path} holds {str(name)[:80]!r}, which is not a tensor", _HINT)
    prefix = _PREFIX if all(name.startswith(_PREFIX) for name in loaded) else ""
    return {name.removeprefix(prefix): value for name, value in loaded.items()}
