"""Weights of the native engine: refused before C++ sees them, read without torch, and kept undamaged."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from networks import small
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dsclora_cli.inference.native.weights import keep_tensors, kept_name, load_kept, read_span_weights, span_weights
from dsclora_cli.weights.checkpoint import save_network, tensors_of

Arrays = dict[str, NDArray[np.float32]]


def arrays(**changes: object) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors_of(small(**changes)).items()}


def test_sizes_and_normalization_are_read_from_the_tensors() -> None:
    weights = span_weights(arrays(channels=6, blocks=3, scale=3))
    assert (weights.channels, weights.blocks) == (6, 3)
    assert weights.descriptor == small(channels=6, blocks=3, scale=3).config.descriptor
    assert weights.pixel_range == 255 and weights.mean.tolist() == pytest.approx([0.4488, 0.4371, 0.4040])
    plain = span_weights(arrays(norm=False))
    assert plain.pixel_range == 1 and not plain.mean.any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda each: each.pop("block_2.c3_r.eval_conv.bias"),
            r"missing or unexpected: block_2\.c3_r\.eval_conv\.bias",
        ),
        (lambda each: each.pop("conv_cat.bias"), "not a SPAN"),
        (lambda each: each.update({"conv_3.bias": np.zeros(4)}), r"missing or unexpected: conv_3\.bias"),
        (lambda each: each.update({"block_5.c1_r.eval_conv.bias": np.zeros(4)}), "missing or unexpected"),
        (
            lambda each: each.update({"conv_cat.weight": np.zeros((4, 16, 3, 3))}),
            r"conv_cat.weight has shape \(4, 16, 3",
        ),
        (lambda each: each.update({"conv_cat.bias": np.zeros(5)}), "has shape"),
        (lambda each: each.update({"upsampler.0.bias": np.zeros(13)}), "has shape"),
        (lambda each: each.update({"conv_cat.bias": np.full(4, np.nan)}), "conv_cat.bias holds NaN or infinity"),
        (lambda each: each.update({"conv_cat.bias": np.full(4, 1e300)}), "conv_cat.bias holds NaN or infinity"),
    ],
)
def test_wrong_tensors_are_refused(damage: object, message: str) -> None:
    tensors = arrays()
    damage(tensors)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        span_weights(tensors)


def test_a_merged_safetensors_file_is_read_without_conversion(tmp_path: Path) -> None:
    path = tmp_path / "span.safetensors"
    for changes in ({}, {"norm": False}, {"channels": 3, "blocks": 1, "scale": 4}):
        save_network(small(**changes), path, "none")
        found = read_span_weights(path)
        assert found is not None
        expected = span_weights(arrays(**changes))
        np.testing.assert_array_equal(found.values, expected.values)
        assert (found.descriptor, found.pixel_range) == (expected.descriptor, expected.pixel_range)


def test_any_other_file_is_left_to_the_full_reader(tmp_path: Path) -> None:
    path = tmp_path / "span.safetensors"
    assert read_span_weights(path) is None
    path.write_bytes(b"something else")
    assert read_span_weights(path) is None
    save_network(small(expanded=True), path, "none")
    assert read_span_weights(path) is None
    save_file(arrays(), path, {"blocks": "7"})
    assert read_span_weights(path) is None
    save_file(arrays(), path, {"blocks": "2"})
    assert read_span_weights(path) is not None


@pytest.mark.parametrize(
    "damage", ["none", "absent", "cut", "flipped", "no archive", "packed otherwise", "early end", "other tensors"]
)
def test_only_an_undamaged_file_is_loaded_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "engines" / kept_name("aa/bb")
    assert path.name.startswith("aa+bb-native-")
    tensors = arrays(norm=False)
    if damage == "other tensors":
        del tensors["conv_cat.bias"]
    keep_tensors(tensors, path)
    data = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "no archive":
        path.write_bytes(b"something else")
    elif damage == "early end":  # numpy reads the header of an array with the tokenizer of Python
        header = b"{'descr': '<f8', 'shape': (4,".ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    elif damage == "packed otherwise":  # the number of the method in the directory of the archive
        at = data.rindex(b"PK\x01\x02")
        data[at + 10] = 99
        path.write_bytes(data)
    found = load_kept(path)
    assert (found is not None) is (damage == "none")
    if found is not None:
        np.testing.assert_array_equal(found.values, span_weights(tensors).values)
