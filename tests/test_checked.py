"""Values of option classes: wrong types and numbers out of range are refused, with names in the words of the API."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from dsclora_cli import Upscaler, config, upscale_files
from dsclora_cli.checked import Checked, limits, words
from dsclora_cli.cli.evaluate import ProtocolName
from dsclora_cli.cli.frames import Matrix
from dsclora_cli.cli.options import Dtype, EngineName
from dsclora_cli.cli.upscale import KeptMetadata
from dsclora_cli.config import (
    BatchOptions,
    ClusterOptions,
    CompareOptions,
    EngineOptions,
    EvalOptions,
    ModelOptions,
    SaveOptions,
    SizeOptions,
    UpscaleOptions,
    VideoOptions,
)
from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import RemotePlace

CLASSES = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, Checked)][1:]
EVERY_FIELD = [(kind, each.name) for kind in CLASSES for each in fields(kind)]


def test_every_class_of_options_is_checked() -> None:
    assert {kind.__name__ for kind in CLASSES} == {name for name in vars(config) if name.endswith("Options")}


@pytest.mark.parametrize(("kind", "name"), EVERY_FIELD, ids=lambda value: getattr(value, "__name__", value))
def test_a_value_of_another_type_is_refused_with_the_name_of_the_option(kind: type[Checked], name: str) -> None:
    for wrong in (object(), b"bytes", {}, lambda: None):
        with pytest.raises(UsageError, match=rf"^{kind.__name__}\.{name} is .* \(give .+\)$"):
            kind(**{name: wrong})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SaveOptions(quality=101), "SaveOptions.quality is 101 (give a whole number from 1 to 100)"),
        (lambda: SaveOptions(quality="90"), "SaveOptions.quality is '90' (give a whole number from 1 to 100)"),
        (lambda: EngineOptions(tile=-1), "EngineOptions.tile is -1 (give a whole number of at least 0 or None)"),
        (lambda: EngineOptions(threads=True), "EngineOptions.threads is True"),
        (lambda: ModelOptions(sharp=math.nan), "ModelOptions.sharp is nan (give a number from 0 to 1 or None)"),
        (lambda: SizeOptions(width=-3), "SizeOptions.width is -3"),
        (lambda: EvalOptions(jpeg=0), "EvalOptions.jpeg is 0"),
        (lambda: EvalOptions(protocol="mean"), "EvalOptions.protocol is 'mean' (give paper or ntire)"),
        (lambda: SaveOptions(metadata="some"), "SaveOptions.metadata is 'some' (give all or none)"),
        (lambda: EngineOptions(engine="onnx"), "is 'onnx' (give auto, native, torch or openvino)"),
        (lambda: SizeOptions(width=100.5), "SizeOptions.width is 100.5"),
        (lambda: SizeOptions(fit=(50, 0)), "a tuple of 2 values, each a whole number of at least 1 or None"),
        (lambda: SizeOptions(fit=(50,)), "SizeOptions.fit is (50,)"),
        (lambda: EvalOptions(datasets="Set5"), "EvalOptions.datasets is 'Set5' (give a tuple of values, each a text)"),
        (lambda: BatchOptions(shard=(3, 2)), "BatchOptions.shard is (3, 2) (give (I, N)"),
        (lambda: BatchOptions(shard=(1, 0)), "BatchOptions.shard is (1, 0) (give (I, N)"),
        (lambda: UpscaleOptions(model="dscf-x4"), "UpscaleOptions.model is 'dscf-x4' (give ModelOptions(...))"),
        (lambda: replace(SaveOptions(), compression=10), "SaveOptions.compression is 10"),
        (lambda: Upscaler(4), "ModelOptions.model is 4"),
        (lambda: Upscaler(scale="4"), "SizeOptions.scale is '4'"),
        (lambda: Upscaler(scale=17), "scale 17 is not above 1 and at most 16"),
        (lambda: Upscaler(options={}), "options is {} (give UpscaleOptions(...), or leave options out)"),
        (lambda: upscale_files([], None), "options is None (give UpscaleOptions(...), or leave options out)"),
    ],
)
def test_errors_name_option_value_and_what_is_allowed(make: object, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        make()
    assert says in str(refused.value)


def test_values_that_mean_the_same_are_converted() -> None:
    assert BatchOptions(output=Path("large")).output == "large"
    assert BatchOptions(output=RemotePlace("s3://bucket/large")).output == "s3://bucket/large"
    assert ModelOptions(weights="a.safetensors").weights == Path("a.safetensors")
    assert ModelOptions(weights="s3://bucket/a.pth").weights == RemotePlace("s3://bucket/a.pth")
    assert ModelOptions(adapter="a.safetensors").adapter == Path("a.safetensors")
    assert SizeOptions(fit=[50, 60]).fit == (50, 60)
    assert CompareOptions(sharp=[0, 0.5]).sharp == (0, 0.5)
    thread = EngineOptions(threads=np.int64(2)).threads
    assert (thread, type(thread)) == (2, int)
    assert SizeOptions(scale=3).scale == 3 and SizeOptions(scale=np.float32(2.5)).scale == 2.5


def test_checked_options_survive_pickling() -> None:
    options = UpscaleOptions(ModelOptions(weights="a.pth"), batch=BatchOptions(shard=[1, 2]))
    assert pickle.loads(pickle.dumps(options)) == options


def test_the_command_line_offers_the_words_and_ranges_of_the_api() -> None:
    assert [*EngineName] == [*words(EngineOptions, "engine")] and [*Dtype] == [*words(EngineOptions, "dtype")]
    assert [*KeptMetadata] == [*words(SaveOptions, "metadata")]
    assert [*ProtocolName] == [*words(EvalOptions, "protocol")]
    assert [*Matrix] == ["auto", *words(VideoOptions, "matrix")]
    assert limits(SaveOptions, "quality") == {"min": 1, "max": 100} and limits(ClusterOptions, "gpus") == {"min": 0}
