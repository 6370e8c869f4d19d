"""Arrange the weights of a SPAN in merged form for the native engine: read, check, fold and keep, without torch."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.inference.engine import NO_NORM, PIXEL_RANGE, RGB_MEAN, Descriptor, span_descriptor
from dsclora_cli.paths import atomic_write, open_regular

Tensors = Mapping[str, NDArray[Any]]
"""Tensors by name, with the names of `dsclora_cli.models.span` in merged form."""

_LAYOUT = 1
"""Version of the kept files: raise by one when other tensors are kept."""

_NAME_END = f"-native-{_LAYOUT}.npz"

_BROKEN = (
    OSError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError, RuntimeError, struct.error,
    tokenize.TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions that a missing or damaged file leads to. RuntimeError: an archive with a password, or packed otherwise."""


@dataclass(frozen=True)
class SpanWeights:
    """A SPAN in the form that the library takes."""

    channels: int
    blocks: int

    descriptor: Descriptor
    """The network, for callers of the engine."""

    mean: NDArray[np.float32]
    """Mean color `(3,)` that the network subtracts from pixels in [0, 1]."""

    pixel_range: float
    """Factor of the difference."""

    values: NDArray[np.float64]
    """All weights in a row, in the order that `dsclora_native_open` documents."""


def span_weights(tensors: Tensors) -> SpanWeights:
    """Check the weights of a merged SPAN, and arrange the weights for the library.

    Args:
        tensors: Floating-point tensors of exactly the names and shapes of a merged SPAN, and perhaps `NO_NORM`.

    Raises:
        ValueError: A tensor is missing, unexpected, of a wrong shape, or not finite in float32.
    """
    exact = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    no_norm = exact.pop(NO_NORM, None) is not None
    channels, blocks, scale = _sizes(exact)
    expected = dict(_shapes(channels, blocks, scale))
    if wrong := sorted(expected.keys() ^ exact.keys()):
        raise ValueError(f"missing or unexpected: {', '.join(wrong[:3])}")
    for name, shape in expected.items():
        if exact[name].shape != shape:
            raise ValueError(f"{name} has shape {exact[name].shape}, not {shape}")
        with np.errstate(over="ignore"):  # values beyond float32 become infinity
            if not np.isfinite(exact[name].astype(np.float32)).all():
                raise ValueError(f"{name} holds NaN or infinity")
    values = np.concatenate([tensor.ravel() for tensor in _folded(exact, channels)])
    mean = np.array((0.0, 0.0, 0.0) if no_norm else RGB_MEAN, np.float32)
    descriptor = span_descriptor(channels, blocks, scale)
    return SpanWeights(channels, blocks, descriptor, mean, 1.0 if no_norm else PIXEL_RANGE, values)


def read_span_weights(path: Path) -> SpanWeights | None:
    """Read a safetensors file that holds exactly a merged SPAN; return None for any other file.

    A file for which the function returns None may still hold a network: another format, the training form, or other
    metadata. `dsclora_cli.weights.checkpoint` reads all of these, and raises the errors.
    """
    from safetensors import SafetensorError, safe_open  # absent on a borrowed machine that has little more than torch

    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
            weights = span_weights({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    except (*_BROKEN, SafetensorError):
        return None
    sizes = {"channels": weights.channels, "blocks": weights.blocks, "scale": weights.descriptor.scale}
    stated = {key: metadata.get(key, str(size)) for key, size in sizes.items()}
    return weights if stated == {key: str(size) for key, size in sizes.items()} else None


def kept_name(weights_sha256: str) -> str:
    """Return the file name of kept tensors; other weights and other layouts have other names."""
    return f"{weights_sha256.replace('/', '+')}{_NAME_END}"


def is_of_older_layout(name: str) -> bool:
    """Return whether a file in the folder of converted networks is a file of kept tensors that nothing reads."""
    return "-native-" in name and not name.endswith(_NAME_END)


def keep_tensors(tensors: Tensors, path: Path) -> None:
    """Write the tensors of a merged SPAN to a file that `load_kept` reads. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # An NPZ file is a ZIP archive, with a checksum of every member, which reading verifies.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        save: Any = np.savez  # typed for tensors that are called `allow_pickle`
        save(file, **tensors)


def load_kept(path: Path) -> SpanWeights | None:
    """Read a file of `keep_tensors`; return None if the file is missing or any byte fails the checksum."""
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            return span_weights(dict(archive))
    except _BROKEN:
        return None


def _sizes(tensors: Tensors) -> tuple[int, int, int]:
    """Return channels, blocks and scale. Raises ValueError for tensors that are no SPAN."""
    try:
        channels, outputs = tensors["conv_cat.bias"].shape[0], tensors["upsampler.0.bias"].shape[0]
    except (KeyError, IndexError) as error:
        raise ValueError("not a SPAN") from error
    blocks = len({name.partition(".")[0] for name in tensors if name.startswith("block_")})
    return channels, blocks, math.isqrt(outputs // 3)


def _shapes(channels: int, blocks: int, scale: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every tensor of a merged SPAN."""
    outputs = 3 * scale**2
    names = [f"block_{block}.c{conv}_r" for block in range(1, blocks + 1) for conv in (1, 2, 3)]
    for name in ("conv_1", *names, "conv_2"):
        yield f"{name}.eval_conv.weight", (channels, 3 if name == "conv_1" else channels, 3, 3)
        yield f"{name}.eval_conv.bias", (channels,)
    yield from (("conv_cat.weight", (channels, 4 * channels, 1, 1)), ("conv_cat.bias", (channels,)))
    yield from (("upsampler.0.weight", (outputs, channels, 3, 3)), ("upsampler.0.bias", (outputs,)))


def _folded(tensors: Tensors, channels: int) -> Iterator[NDArray[Any]]:
    """Yield the tensors in the order of the library, with conv_2 folded into conv_cat."""
    *before, conv_2, conv_2_bias, cat, cat_bias, upsampler, upsampler_bias = (
        tensors[name] for name, _ in _shapes(channels, (len(tensors) - 8) // 6, 1)
    )
    yield from before
    # conv_cat reads conv_1, conv_2, the first block and the last activation. A 1x1 after a 3x3 is one 3x3.
    parts = cat[:, :, 0, 0].reshape(channels, 4, channels)
    yield np.einsum("om,mikl->oikl", parts[:, 1], conv_2)
    yield parts[:, [0, 2, 3]]
    yield cat_bias + parts[:, 1] @ conv_2_bias
    yield from (upsampler, upsampler_bias)
