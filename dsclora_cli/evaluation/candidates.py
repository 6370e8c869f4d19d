"""What is compared: the bicubic baseline, each model, and each model's self-ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.errors import OutOfMemory, UsageError
from dsclora_cli.evaluation.protocol import Image
from dsclora_cli.evaluation.report import BASELINE, RowInfo
from dsclora_cli.imaging.resize import matlab_bicubic
from dsclora_cli.inference.engine import Engine, Ensemble
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.paths import sha256_of
from dsclora_cli.upscaling.engines import auto_edge, choose_device, load_engine, with_fitting_tile
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.catalog import WeightEntry
from dsclora_cli.weights.resolve import AUTO, FoundWeights, find_weights, native_scales


@dataclass(frozen=True)
class Candidate:
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


def open_candidates(options: EvalOptions) -> tuple[Candidate, ...]:
    """The baseline, then each model, followed by its ensemble where that is asked for; all loaded.

    Raises UsageError for a scale that a model does not have, for weights given twice, and for a device or dtype that
    is not there, and WeightsError.
    """
    candidates = [_bicubic(options.scale)]
    for model in options.models or (ModelOptions(),):
        found = _find(_with_base(model, options), options.scale)
        twin = next((each for each in candidates if each.info.weights_sha256 == found.sha256), None)
        if twin:
            raise UsageError(f"{_asked(model)} and {twin.info.name} are the same weights", "give them once")
        taken = {candidate.info.name for candidate in candidates}
        name = found.name if found.name not in taken else str(found.path)
        candidates.extend(_open(name, found, options.engine))
    return tuple(candidates)


def _bicubic(scale: int) -> Candidate:
    def upscale(lr: Image) -> Image:
        return matlab_bicubic(lr, lr.shape[0] * scale, lr.shape[1] * scale)

    return Candidate(RowInfo(BASELINE), upscale)


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


def _open(name: str, found: FoundWeights, options: EngineOptions) -> Iterator[Candidate]:
    """Yield the row of a model and, where the options ask for the ensemble, the row of its ensemble."""
    engine = load_engine(found, choose_device(options), replace(options, ensemble=False))
    info = RowInfo(
        name=name,
        weights_sha256=found.sha256,
        device=engine.device,
        dtype=engine.dtype,
        tile=options.tile,
        engine=engine.name,
        notes=(found.note,) if found.note else (),
    )
    yield Candidate(info, partial(_upscale, engine=engine, tile=options.tile), found.path, found.entry)
    if options.ensemble:
        ensemble = partial(_upscale, engine=Ensemble(engine), tile=options.tile)
        yield Candidate(replace(info, name=f"{name} + ensemble", ensemble=True), ensemble, found.path)


def _upscale(lr: Image, engine: Engine, tile: int | None) -> Image:
    """Upscale `(h, w, 3)` uint8 LR; without `tile` free memory decides, and a tile that does not fit is halved."""
    run = TileOptions(auto_edge(engine) if tile is None else tile, may_halve=tile is None)
    try:
        result = upscale_array(lr, engine, run)
    except OutOfMemory as error:
        if run.may_halve:
            raise
        raise with_fitting_tile(error, engine) from error
    return result.astype(np.uint8, copy=False)
