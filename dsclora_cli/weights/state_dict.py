"""Read and write files of tensors, whatever program wrote them, without running code from a file.

The content of a file decides the format, not the suffix: safetensors, zipped or old-style PyTorch pickles.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from torch.serialization import safe_globals

from dsclora_cli.errors import OutputUnwritable, WeightsError, next_step
from dsclora_cli.paths import atomic_write, open_regular
from dsclora_cli.weights.finished import unreadable_weights
from dsclora_cli.weights.limits import FORMATS_HINT, MOST_WEIGHT_BYTES, MOST_WEIGHTS_TEXT
from dsclora_cli.weights.pickle_protocols import with_protocol_2
from dsclora_cli.weights.pickles import STAND_INS, find_code, find_protocol
from dsclora_cli.weights.wrappers import unwrap

_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
"""First bytes of a pickle."""

_LOADING = threading.Lock()
"""Held while torch knows the stand-ins, and keeps quiet: both are settings of the whole process."""

_BROKEN = (
    pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, OSError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Exceptions of the readers for damaged bytes. A pickle is a program, so a damaged one can raise almost any error."""


@dataclass(frozen=True)
class TensorFile:
    """The tensors and the metadata of a file."""

    tensors: Mapping[str, Tensor]
    """Tensors by name, on the CPU, in the dtype of the file, without wrappers and prefixes."""

    metadata: Mapping[str, str]
    """Metadata of a safetensors file; empty for other formats."""


def read_tensors(path: Path, keep_names: bool = False) -> TensorFile:
    """Read a safetensors file, or a zipped or old-style PyTorch file. Raises WeightsError in one line.

    `keep_names` keeps prefixes such as `model.`, which belong to the names in some architectures.
    """
    try:
        with open_regular(path) as file:
            head, size = file.read(16), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise unreadable_weights(path, error) from error
    if size > MOST_WEIGHT_BYTES:
        raise WeightsError(f"{path} is larger than {MOST_WEIGHTS_TEXT}", FORMATS_HINT)
    # safetensors: the length of the header in 8 bytes, then the header as JSON.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return _read_safetensors(path, keep_names)
    if head.startswith((b"PK\x03\x04", *_PROTOCOLS)):
        return TensorFile(_unwrap(_read_pickle(path), path, keep_names), {})
    if code := find_code(path):
        raise _refused(path, code)
    raise WeightsError(f"{path} is not a file of weights", FORMATS_HINT)


def require_finite_tensor(tensor: Tensor, name: str, path: Path) -> Tensor:
    """Return a tensor of any shape, unchanged. `name` and `path` are for the message.

    Raises WeightsError for other dtypes than floating-point, and for values that are not finite in float32.
    """
    if tensor.is_meta or not tensor.is_floating_point():
        raise WeightsError(f"{path}: {name} does not hold floating-point values", FORMATS_HINT)
    if not bool(torch.isfinite(tensor.float()).all()):
        raise WeightsError(f"{path}: {name} holds NaN or infinity", "the weights are damaged; get the file again")
    return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; equal contents give equal bytes.

    Tensors may have any shape, dtype and device. Raises OutputUnwritable.
    """
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(pack_tensors(tensors, metadata))
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror})"
        raise OutputUnwritable(message, next_step(error)) from error


def pack_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file, for tensors of any shape, dtype and device."""
    from safetensors.torch import save  # absent on a borrowed machine that has little more than torch

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _sort_header(save(stored, dict(metadata)))


def _sort_header(file: bytes) -> bytes:
    """Return a safetensors file with sorted keys in the header: the library writes metadata in random order."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header + file[end:]


def _read_safetensors(path: Path, keep_names: bool) -> TensorFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return TensorFile(_unwrap(tensors, path, keep_names), dict(file.metadata() or {}))
    except (*_BROKEN, SafetensorError) as error:
        raise _broken(path) from error


def _read_pickle(path: Path) -> object:
    try:
        # A small archive can unpack to any size, so the sizes inside are checked before.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MOST_WEIGHT_BYTES:
                    raise WeightsError(f"{path} unpacks to more than {MOST_WEIGHTS_TEXT}", FORMATS_HINT)
        with _open_pickle(path) as file:
            return _load(file)
    except _BROKEN as error:
        if code := find_code(path):
            raise _refused(path, code) from error
        raise _broken(path) from error


def _open_pickle(path: Path) -> BinaryIO:
    """Open a pickle, in protocol 2 whatever the protocol of the file is."""
    return with_protocol_2(path) if find_protocol(path) > 2 else open_regular(path)


def _load(file: BinaryIO) -> object:
    # torch warns of pickles that are old or odd, in lines that name no file.
    with _LOADING, warnings.catch_warnings(), safe_globals(STAND_INS):
        warnings.simplefilter("ignore")
        # A file: for a path, the suffix would decide.
        return torch.load(file, map_location="cpu", weights_only=True)


def _unwrap(loaded: object, path: Path, keep_names: bool) -> dict[str, Tensor]:
    try:
        tensors = unwrap(loaded, path, keep_names)
        claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    except _BROKEN as error:
        raise _broken(path) from error
    # A tensor with a stride of 0 can claim any size, and a network of this size would be built.
    if claimed > MOST_WEIGHT_BYTES:
        raise WeightsError(f"{path} claims tensors of {claimed} bytes, more than {MOST_WEIGHTS_TEXT}", FORMATS_HINT)
    return tensors


def _refused(path: Path, code: str) -> WeightsError:
    return WeightsError(
        f"{path} is refused: loading it would run code ({code})",
        "a file of weights holds tensors only; get a .safetensors file from a source you trust",
    )


def _broken(path: Path) -> WeightsError:
    return WeightsError(f"{path} is truncated, damaged or not a file of weights", "get the file again")
