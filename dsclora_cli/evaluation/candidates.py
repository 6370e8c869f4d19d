"""Candidates of an evaluation: the bicubic baseline, the models, and the self-ensembles of the models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path

import numpy as np

from dsclora_cli.config import EvalOptions, ModelOptions
from dsclora_cli.errors import OutOfMemory, UsageError
from dsclora_cli.evaluation.protocol import Image
from dsclora_cli.evaluation.report import RowInfo
from dsclora_cli.imaging.resize import matlab_bicubic
from dsclora_cli.inference.engine import Engine, Ensemble
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.names import BASELINE
from dsclora_cli.paths import is_file, sha256_of
from dsclora_cli.upscaling.engines import auto_edge, choose_device, load_engine, with_fitting_tile
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.catalog import WeightEntry
from dsclora_cli.weights.remote import local_weights
from dsclora_cli.weights.resolve import AUTO, FoundWeights, find_weights, native_scales


@dataclass(frozen=True)
class Candidate:
    """A row of the report, ready to upscale."""

    info: RowInfo

    upscale: Callable[[Image], Image]
    """Upscale `(h, w, 3)` uint8 LR; return `(scale*h, scale*w, 3)` uint8."""

    weights: Path | None = None
    """File of the network, None for the baseline."""

    entry: WeightEntry | None = None
    """Catalog entry of the weights. None for an ensemble: the catalog states no scores of ensembles."""


def open_candidates(options: EvalOptions) -> tuple[Candidate, ...]:
    """Return the baseline, followed by each model and, where requested, the ensemble of the model; all are loaded.

    Raises:
        UsageError: a model has another scale, weights are given twice, or a device or dtype is not available.
        WeightsError: weights are missing or damaged.
    """
    scale, tile = options.scale, options.engine.tile
    bicubic = Candidate(RowInfo(BASELINE), lambda lr: matlab_bicubic(lr, lr.shape[0] * scale, lr.shape[1] * scale))
    candidates = [bicubic]
    every = [(model, _find(model, options)) for model in options.models or (ModelOptions(),)]
    times = Counter(found.name for _, found in every)
    for model, found in every:
        same = next((each.info.name for each in candidates if each.info.weights_sha256 == found.sha256), None)
        if same:
            raise UsageError(f"{_model_name(model)} and {same} are the same weights", "give them once")
        # Files of one name in different folders are rows with paths.
        path = _model_name(model) + (f"-sharp{found.strength:g}" if found.sharp else "")
        names = (found.name, path) if times[found.name] == 1 else (path,)
        name = _free_name(candidates, *names)
        # Loaded without the ensemble, which wraps the same engine below: weights are in memory once.
        engine = load_engine(found, choose_device(options.engine), replace(options.engine, ensemble=False))
        info = RowInfo(
            name=name,
            weights_sha256=found.sha256,
            device=engine.device,
            dtype=engine.dtype,
            tile=tile,
            engine=engine.name,
            notes=(found.note,) if found.note else (),
        )
        candidates.append(Candidate(info, partial(_upscale, engine=engine, tile=tile), found.path, found.entry))
        if options.engine.ensemble:
            info = replace(info, name=_free_name(candidates, f"{name} + ensemble"), ensemble=True)
            candidates.append(Candidate(info, partial(_upscale, engine=Ensemble(engine), tile=tile), found.path))
    return tuple(candidates)


def _find(model: ModelOptions, options: EvalOptions) -> FoundWeights:
    """Find the weights of a model for the scale of the evaluation."""
    model = replace(model, offline=model.offline or options.offline)
    if model.adapter is not None and model.weights is None and model.model == AUTO:
        # Prefer a base among the weights that are compared; else the adapter's base comes from the catalog.
        base_sha256 = load_adapters(model.adapter).base_sha256
        given = (local_weights(other.weights, model.offline) for other in options.models if other.weights is not None)
        files = (file for file in given if is_file(file))
        model = replace(model, weights=next((file for file in files if sha256_of(file) == base_sha256), None))
    native = native_scales(model)
    if options.scale not in native and _model_name(model) != AUTO:
        message = f"{_model_name(model)} upscales by {native[0]}, not by {options.scale}"
        raise UsageError(message, f"use -s {native[0]}, or other weights")
    return find_weights(model, options.scale)


def _free_name(candidates: Iterable[Candidate], *names: str) -> str:
    """Return the first name that no other row has, or else the last name with a number: scores are kept by name."""
    taken = {each.info.name for each in candidates}
    numbered = (f"{names[-1]} ({number})" for number in count(2))
    return next(name for name in chain(names, numbered) if name not in taken)


def _model_name(model: ModelOptions) -> str:
    """Return a model as the user named the model."""
    return str(model.adapter or model.weights or model.model)


def _upscale(lr: Image, engine: Engine, tile: int | None) -> Image:
    """Upscale `(h, w, 3)` uint8 LR. Without `tile` free memory decides, and a tile that does not fit is halved."""
    run = TileOptions(auto_edge(engine) if tile is None else tile, may_halve=tile is None)
    try:
        result = upscale_array(lr, engine, run)
    except OutOfMemory as error:
        if run.may_halve:
            raise
        raise with_fitting_tile(error, engine) from error
    # The dtype is uint8 already; `astype` states the type for the type checker without a copy.
    return result.astype(np.uint8, copy=False)
