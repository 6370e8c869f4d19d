"""Weights as other training programs save them: wrappers, prefixes, counters and scores; strict all the same."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import refused, small
from safetensors.torch import save_file

from dsclora_cli.cli.app import main
from dsclora_cli.errors import WeightsError
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.state_dict import read_tensors
from dsclora_cli.weights.wrappers import unwrap

State = dict[str, Any]


def before(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


WRAPPINGS: dict[str, Callable[[State], object]] = {
    **{
        key: lambda s, key=key: {key: s, "epoch": 3, "optimizer_state_dict": {"state": {}, "param_groups": []}}
        for key in ("params-ema", "model_state_dict", "model", "net", "network", "generator", "weights", "ema", "net_g")
    },
    **{
        prefix: lambda s, prefix=prefix: before(prefix, s)
        for prefix in (
            "module.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "net_g.",
            "model.",
            "generator.",
        )
    },
    "averaged first": lambda s: {"model": other(s), "ema": s},
    "averaged, but empty": lambda s: {"params": s, "params_ema": {}, "ema": {"decay": 0.999}},
    "averaged copies": lambda s: {"state_dict": {**before("net_g.", other(s)), **before("net_g_ema.", s)}},
    "beside a discriminator": lambda s: {"state_dict": {**before("net_g.", s), **before("net_d.", s)}},
    "averaged inside": lambda s: {"ema": {"decay": 0.999, "shadow": s}, "model": other(s)},
    "averaged wrapper": lambda s: before("ema_model.module.", s),
    "counter": lambda s: {"params": {**s, "n_averaged": torch.tensor(100)}},
    "counter and prefix": lambda s: {"n_averaged": torch.tensor(100), **before("module.", s)},
    "batch counter": lambda s: {**s, "norm.num_batches_tracked": torch.tensor(7), "initted": torch.tensor([True])},
    "score": lambda s: {"params": s, "best_psnr": np.float64(31.5), "step": np.int64(7)},
    "score inside": lambda s: {**s, "best_psnr": np.float32(31.5), "name": "x"},
    "namespace": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=1e-4, out=Path("runs"))},
    "list": lambda s: [s],
    "arrays": lambda s: {name: np.asfortranarray(tensor.numpy()) for name, tensor in s.items()},
    "history": lambda s: {"params": s, "history": np.arange(9), "names": np.array(["a", "b"])},
}


@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_weights_give_the_same_network(name: str, zipped: bool, tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save(WRAPPINGS[name](state), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_network(tmp_path / "net.pth").state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_prefixes_in_safetensors_are_removed(tmp_path: Path) -> None:
    save_file(before("params_ema.", small().state_dict()), tmp_path / "net.safetensors")
    assert load_network(tmp_path / "net.safetensors").config == small().config


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {"model": {**s, "extra": torch.zeros(2)}}, "unexpected extra"),
        (lambda s: {**before("net_g.", s), "extra": torch.zeros(2)}, "unsupported model file"),
        (lambda s: {"generator": dict(list(s.items())[1:])}, "lacks"),
        (lambda s: {**s, "optimizer": {"lr": 1}}, "'optimizer', which is not a tensor"),
        (lambda s: {**s, "loss": torch.tensor(0.1)}, "unexpected loss"),
    ],
)
def test_loading_stays_strict(spoil: Callable[[State], object], message: str, tmp_path: Path) -> None:
    torch.save(spoil(small().state_dict()), tmp_path / "net.pth")
    assert message in refused(tmp_path / "net.pth")


def test_a_wrapper_that_contains_itself_ends(tmp_path: Path) -> None:
    knot: State = {"epoch": 1}
    knot |= {"params": knot, "model": [knot], "ema": {"model": knot}}
    torch.save(knot, tmp_path / "net.pth")
    assert "no tensors" in refused(tmp_path / "net.pth")
    knot["state_dict"] = {"conv.weight": torch.zeros(2)}
    assert unwrap(knot, Path("net.pth")).keys() == {"conv.weight"}


@pytest.mark.parametrize("zipped", [True, False])
def test_sizes_that_cost_no_bytes_are_refused(zipped: bool, tmp_path: Path) -> None:
    state = small().state_dict() | {"huge": torch.zeros(1).expand(1 << 20, 1 << 10)}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert "claims tensors of 429" in refused(tmp_path / "net.pth")


@given(place=st.floats(0, 1), flips=st.binary(min_size=1, max_size=6))
def test_damaged_arrays_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, place: float, flips: bytes
) -> None:
    buffer = io.BytesIO()
    arrays = {"params": {"conv.weight": np.ones((2, 3), np.float32)}, "best": np.float64(1)}
    torch.save(arrays, buffer, _use_new_zipfile_serialization=False)
    data = bytearray(buffer.getvalue())
    at = int(place * (len(data) - 7))
    data[at : at + len(flips)] = flips
    path = tmp_path_factory.mktemp("damaged") / "net.pth"
    path.write_bytes(data)
    with suppress(WeightsError):
        read_tensors(path)


class Call:
    """A pickle that calls a function."""

    def __init__(self, function: Callable[..., object], *values: object) -> None:
        self.call = (function, values)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


GADGETS = {
    "system": Call(os.system, "true"),
    "eval": Call(eval, "1"),
    "getattr": Call(getattr, "a", "upper"),
    "load": Call(torch.load, "x"),
    "numpy": Call(np.load, "x"),
    "thread": Call(threading.Thread),
}


@pytest.mark.parametrize("name", GADGETS)
@pytest.mark.parametrize("form", ["zip", "old", "bare"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_file_that_would_run_code_is_called_so(name: str, form: str, protocol: int, tmp_path: Path) -> None:
    content, path = {"params": small().state_dict(), "x": GADGETS[name]}, tmp_path / "net.pth"
    if form == "bare":
        path.write_bytes(pickle.dumps(GADGETS[name], protocol))
    else:
        torch.save(content, path, pickle_protocol=max(2, protocol), _use_new_zipfile_serialization=form == "zip")
    assert "is refused: loading it would run code (" in refused(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_weights_in_every_protocol_are_read(protocol: int, zipped: bool, tmp_path: Path) -> None:
    path, tensors = tmp_path / "net.pth", small().state_dict()
    beside = {
        "args": argparse.Namespace(lr=1e-3, name="a" * 300),
        "place": PurePosixPath("runs/1"),
        "best": np.float64(31.5),
        "step": 2**40,
        "neg": -5,
        "raw": b"ab\xff",
        "list": [1, (2, 3, 4, 5), None, True],
        "curve": np.arange(4, dtype=np.float32),
    }
    content = {"params": tensors, **beside}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    read = read_tensors(path).tensors
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_arrays_in_every_protocol_are_read(tmp_path: Path) -> None:
    plain, turned = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.eye(3, 2, dtype=np.float16))
    arrays = {"a": plain, "b": turned}
    for protocol in range(2, 6):
        torch.save(arrays, tmp_path / "net.pth", pickle_protocol=protocol)
        read = read_tensors(tmp_path / "net.pth").tensors
        assert {name: value.tolist() for name, value in read.items()} == {k: v.tolist() for k, v in arrays.items()}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_pickle_of_protocol_4_is_called_damaged(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(small().state_dict(), path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:300])
    assert "is truncated, damaged or not a file of weights" in refused(path)


def test_the_name_of_an_object_brings_no_opcodes(tmp_path: Path) -> None:
    name = b"encode\ncos\nsystem\n"
    texts = b"".join(b"\x8c" + bytes((len(text),)) + text for text in (b"_codecs", name))
    (tmp_path / "net.pth").write_bytes(b"\x80\4" + texts + b"\x93.")
    assert "is refused: loading it would run code (" in refused(tmp_path / "net.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("option", ["--weights", "--adapter"])
def test_a_pipe_or_a_device_is_no_file_of_weights(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "net.pth")
    assert "not a regular file" in refused(tmp_path / "net.pth")
    assert "not a regular file" in refused(Path("/dev/zero"))
    assert main(["upscale", "a.png", option, str(tmp_path / "net.pth")]) == 3
    assert "not a regular file" in capsys.readouterr().err
