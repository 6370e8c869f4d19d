"""What is compared: the bicubic baseline, each model, and each model's self-ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.evaluation.protocol import Image
from dsclora_cli.evaluation.report import BASELINE, RowInfo
from dsclora_cli.imaging.resize import matlab_bicubic
from dsclora_cli.imaging.types import Frame, Header
from dsclora_cli.paths import sha256_of
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.catalog import WeightEntry
from dsclora_cli.weights.resolve import AUTO, FoundWeights, find_weights, native_scales

_PROBE = 16


@dataclass(frozen=True)
class Contender:
    """A row of the report. `upscale` takes `(h, w, 3)` uint8 LR to `(scale*h, scale*w, 3)` uint8.

    `weights` is the file behind it, None for the baseline; `entry` its place in the catalogue, None for an ensemble,
    about which the catalogue says nothing.
    """

    info: RowInfo
    upscale: Callable[[Image], Image]
    weights: Path | None = None
    entry: WeightEntry | None = None

    @property
    def identity(self) -> Mapping[str, object]:
        """All that decides its pixels but the code and the scale."""
        info = self.info
        fields = ("device", "dtype", "engine", "ensemble", "tile")
        values = {field: getattr(info, field) for field in fields}
        return {"weights": info.weights_sha256 or BASELINE, **values}


def open_contenders(options: EvalOptions) -> tuple[Contender, ...]:
    """The baseline, then each model, followed by its ensemble where that is asked for; all loaded.

    Raises UsageError for a scale that a model does not have, for weights given twice, and for a device or dtype that
    is not there, and WeightsError.
    """
    contenders = [_bicubic(options.scale)]
    for model in options.models or (ModelOptions(),):
        found = _find(_with_base(model, options), options.scale)
        twin = next((each for each in contenders if each.info.weights_sha256 == found.sha256), None)
        if twin:
            raise UsageError(f"{_asked(model)} and {twin.info.name} are the same weights", "give them once")
        taken = {contender.info.name for contender in contenders}
        name = found.name if found.name not in taken else str(found.path)
        kinds = (False, True) if options.engine.ensemble else (False,)
        contenders.extend(_open(name, found, replace(options.engine, ensemble=kind), options.scale) for kind in kinds)
    return tuple(contenders)


def _bicubic(scale: int) -> Contender:
    def upscale(lr: Image) -> Image:
        return matlab_bicubic(lr, lr.shape[0] * scale, lr.shape[1] * scale)

    return Contender(RowInfo(BASELINE), upscale)


def _find(model: ModelOptions, scale: int) -> FoundWeights:
    native = native_scales(model)
    if scale not in native and _asked(model) != AUTO:
        raise UsageError(
            f"{_asked(model)} upscales by {native[0]}, not by {scale}", f"use -s {native[0]}, or other weights"
        )
    return find_weights(model, scale)


def _with_base(model: ModelOptions, options: EvalOptions) -> ModelOptions:
    """A model as it is asked for; an adapter meets those given weights that it is for, else the catalogue's."""
    model = replace(model, offline=model.offline or options.offline)
    if model.adapter is None or _asked(replace(model, adapter=None)) != AUTO:
        return model
    base_sha256 = load_adapters(model.adapter).base_sha256
    files = (other.weights for other in options.models if other.weights is not None and other.weights.is_file())
    return replace(model, weights=next((file for file in files if sha256_of(file) == base_sha256), None))


def _asked(model: ModelOptions) -> str:
    return str(model.adapter or model.weights or model.model)


def _open(name: str, found: FoundWeights, engine: EngineOptions, scale: int) -> Contender:
    opened = PictureUpscaler(
        UpscaleOptions(model=ModelOptions(weights=found.path), size=SizeOptions(scale=scale), engine=engine),
        lambda model, scale: found,
    )

    def upscale(lr: Image) -> Image:
        result, _ = opened.frame(Frame(lr), opened.plan(_header(*lr.shape[:2])), lambda share: None)
        assert result.pixels.dtype == np.uint8
        return result.pixels.astype(np.uint8, copy=False)

    plan = opened.plan(_header(_PROBE, _PROBE))
    info = RowInfo(
        name=f"{name} + ensemble" if engine.ensemble else name,
        weights_sha256=found.sha256,
        device=plan.info.device,
        dtype=plan.info.dtype,
        ensemble=engine.ensemble,
        tile=engine.tile,
        engine=plan.info.engine,
        notes=(found.note,) if found.note else (),
    )
    return Contender(info, upscale, found.path, None if engine.ensemble else found.entry)


def _header(height: int, width: int) -> Header:
    return Header("PNG", width, height, 3, np.dtype(np.uint8))
