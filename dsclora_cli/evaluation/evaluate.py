"""Score models on benchmark sets, as papers and challenges do; see docs/eval.md.

`evaluate` opens candidates (candidates.py) and sets, scores every image (protocol.py), and summarizes (statistics.py).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

from dsclora_cli import __version__
from dsclora_cli.config import EvalOptions
from dsclora_cli.datasets.benchmarks import BenchmarkSet, Pair, open_folder, open_set
from dsclora_cli.datasets.degradation import jpeg
from dsclora_cli.datasets.fingerprint import identify, picture_digest
from dsclora_cli.errors import DscloraError, ErrorCode, UsageError, next_step, system_info
from dsclora_cli.evaluation.candidates import Candidate, open_candidates
from dsclora_cli.evaluation.cost import Cost, TimedModel, measure, timed_indices
from dsclora_cli.evaluation.protocol import Image, Protocol, Scorer, open_metrics, protocol_of
from dsclora_cli.evaluation.report import HR, EvalCallbacks, EvalReport, SetReport, Worst
from dsclora_cli.evaluation.saved_images import SavedImages
from dsclora_cli.evaluation.score_cache import (
    PixelKey,
    ScoreKey,
    hr_key,
    load_scores,
    pixel_key,
    save_scores,
    score_folder,
)
from dsclora_cli.evaluation.statistics import ScoreTable, mean_scores, summarize, worst_images
from dsclora_cli.imaging.contact_sheet import Panel, Strip
from dsclora_cli.names import BASELINE


def evaluate(options: EvalOptions, callbacks: EvalCallbacks | None = None) -> EvalReport:
    """Score the bicubic baseline and every model on every set.

    Scores of finished images are kept on disk, so that the same call resumes an interrupted evaluation.

    Args:
        options: sets, models, protocol and reports.
        callbacks: receive progress and notes, in the thread of the caller.

    Raises:
        UsageError: options contradict each other, or a set, model, metric or device is not available.
        WeightsError: weights are missing or damaged.
        ImageError: an image cannot be read or scored, or a set cannot be fetched.
    """
    callbacks = callbacks or EvalCallbacks()
    _check_options(options)
    # Models and metrics are opened before any set is fetched: a wrong name must not cost a long download first.
    protocol = protocol_of(options.protocol, options.scale)
    candidates = open_candidates(options)
    scorer = Scorer(protocol, open_metrics(options.metrics, options.engine.device, protocol.border))
    for candidate in candidates:
        for note in candidate.info.notes:
            callbacks.note_once(note)
    sets = _open_sets(options, callbacks)
    # Before the first image is scored: a picture that cannot be scored must not end hours of work.
    for benchmark in sets:
        for pair, size in zip(benchmark.pairs, benchmark.sizes, strict=True):
            protocol.check_size(pair.hr, size, benchmark.scale)
    callbacks.on_sets(sum(len(benchmark.pairs) for benchmark in sets))
    saved_images = SavedImages(options.save) if options.save else None
    scoring = _Scoring(options, protocol, candidates, scorer, saved_images, callbacks)
    set_reports = tuple(scoring.score_set(benchmark) for benchmark in sets)
    costs: Mapping[str, Cost] = {}
    if options.cost:
        callbacks.on_cost()
        costs = _measure_costs(candidates, sets)
    packages = ("torch", "numpy", "pillow")
    return EvalReport(
        scale=options.scale,
        jpeg=options.jpeg,
        protocol=protocol,
        metrics=scorer.metrics,
        rows=tuple(replace(candidate.info, cost=costs.get(candidate.info.name)) for candidate in candidates),
        sets=set_reports,
        versions={
            "dsclora": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    )


def _check_options(options: EvalOptions) -> None:
    """Raise UsageError for options that contradict each other, before anything is loaded."""
    has_sets, has_folder = bool(options.datasets), options.hr is not None
    if not has_sets and not has_folder:
        raise UsageError("there is nothing to evaluate on", "name a set, --dataset Set5, or a folder, --hr DIR")
    if has_sets and has_folder:
        raise UsageError("both --dataset and --hr are given", "evaluate on one of them at a time")
    if options.lr is not None and not has_folder:
        raise UsageError("--lr is given without --hr", "name the folder of the originals with --hr DIR")
    if options.data_dir is not None and not has_sets:
        raise UsageError("--data-dir is given without --dataset", "name the sets, --dataset Set5")


def _open_sets(options: EvalOptions, callbacks: EvalCallbacks) -> tuple[BenchmarkSet, ...]:
    """Open the sets in the order of the request; a set that is named twice is opened once."""
    if options.hr is not None:
        return (open_folder(options.hr, options.lr, options.scale, options.max_pixels),)
    opened = (
        open_set(
            name,
            options.scale,
            options.data_dir,
            options.offline,
            partial(callbacks.on_unpack, name),
            options.max_pixels,
        )
        for name in options.datasets
    )
    # A dict keeps the order and drops repeated names, also in another case: `set5` and `Set5` open the same set.
    return tuple({benchmark.name: benchmark for benchmark in opened}.values())


@dataclass(frozen=True)
class _LoadedImage:
    """An image of a set in memory."""

    benchmark: str
    name: str
    lr: Image
    hr: Image
    lr_digest: str
    hr_digest: str


@dataclass(frozen=True)
class _Scoring:
    """Everything that scoring a set needs."""

    options: EvalOptions
    protocol: Protocol
    candidates: tuple[Candidate, ...]
    scorer: Scorer
    saved_images: SavedImages | None
    callbacks: EvalCallbacks

    def score_set(self, benchmark: BenchmarkSet) -> SetReport:
        """Score every candidate on every image of a set."""
        identity = identify(benchmark)
        if identity.warning:
            self.callbacks.note_once(f"{benchmark.name}: {identity.warning}")
        scores: ScoreTable = {candidate.info.name: {} for candidate in self.candidates}
        hr_scores: dict[str, Mapping[str, float]] = {}
        # All candidates are scored on an image before the next image is read: only one image is in memory, and after an
        # interruption whole images are finished.
        for pair in benchmark.pairs:
            self.callbacks.on_image(benchmark.name, pair.name)
            with _name_errors(pair):
                image = self._load(benchmark, pair)
                for candidate in self.candidates:
                    scores[candidate.info.name][pair.name] = self._score(candidate, image)
                if self.scorer.no_reference:
                    hr_scores[pair.name] = self._score_hr(image)
        worst = worst_images(scores, self.protocol.metrics[0], self.options.worst)
        if self.saved_images:
            self._save_sheets(self.saved_images, benchmark, worst, scores)
        # The catalog states scores of clean LR only.
        entries = {each.info.name: each.entry if self.options.jpeg is None else None for each in self.candidates}
        rows, comparisons = summarize(benchmark.name, scores, self.protocol, entries)
        return SetReport(
            name=benchmark.name,
            images=len(benchmark.pairs),
            fingerprint=identity.fingerprint,
            verdict=identity.verdict,
            warning=identity.warning,
            rows=rows,
            comparisons=comparisons,
            worst=worst,
            hr=mean_scores(HR, hr_scores) if hr_scores else None,
        )

    def _load(self, benchmark: BenchmarkSet, pair: Pair) -> _LoadedImage:
        lr, hr = benchmark.load(pair)
        if self.options.jpeg is not None:
            lr = jpeg(lr, self.options.jpeg)
        return _LoadedImage(benchmark.name, pair.name, lr, hr, picture_digest(lr), picture_digest(hr))

    def _score(self, candidate: Candidate, image: _LoadedImage) -> Mapping[str, float]:
        """Return kept scores. Where scores or a requested file are missing, upscale, save and score the image."""
        pixels = pixel_key(candidate.info, image.lr_digest, self.options.scale)
        key = self._score_key(pixels, image, self.scorer.metrics)
        name = image.benchmark, candidate.info.name, image.name
        saved = self.saved_images
        kept = None if self.options.fresh else load_scores(key)
        if kept is not None and (saved is None or saved.has(name, pixels)):
            return kept
        result = candidate.upscale(image.lr)
        if saved:
            saved.save(name, pixels, result)
        scores = self.scorer(result, image.hr)
        self._keep(key, scores)
        return scores

    def _score_hr(self, image: _LoadedImage) -> Mapping[str, float]:
        """Return the scores of an HR image by the metrics without a reference, kept or computed."""
        pixels = hr_key(image.hr_digest, self.options.scale)
        key = self._score_key(pixels, image, self.scorer.no_reference)
        kept = None if self.options.fresh else load_scores(key)
        if kept is None:
            kept = self.scorer.score_hr(image.hr)
            self._keep(key, kept)
        return kept

    def _score_key(self, pixels: PixelKey, image: _LoadedImage, metrics: tuple[str, ...]) -> ScoreKey:
        return ScoreKey(pixels, image.hr_digest, self.protocol.border, metrics, self.scorer.pyiqa_version)

    def _keep(self, key: ScoreKey, scores: Mapping[str, float]) -> None:
        try:
            save_scores(key, scores)
        except OSError as error:
            # A full disk must not end hours of work: the report needs no kept scores.
            lost = f"scores are not kept in {score_folder()} ({error.strerror}), so an interrupted run starts again"
            step = next_step(error, "set DSCLORA_STATE_DIR to a folder that can be written")
            self.callbacks.note_once(f"{lost}; {step}")

    def _save_sheets(
        self, saved_images: SavedImages, benchmark: BenchmarkSet, worst: Sequence[Worst], scores: ScoreTable
    ) -> None:
        """Write a contact sheet for every row with worst images: baseline, row and HR of an image side by side."""
        pairs = {pair.name: pair for pair in benchmark.pairs}
        metric = self.protocol.metrics[0]

        def panel(row: str, image: str) -> Panel:
            label = f"{row} {scores[row][image][metric]:.2f} dB"
            return Panel(label, saved_images.read((benchmark.name, row, image)))

        sheets: dict[str, list[Strip]] = {}
        for each in worst:
            # HR is read again and results are read from their files: a set in memory may take gigabytes.
            _, hr = benchmark.load(pairs[each.image])
            panels = panel(BASELINE, each.image), panel(each.row, each.image)
            sheets.setdefault(each.row, []).append(Strip(panels, Panel(f"HR {each.image}", hr)))
        for row, strips in sheets.items():
            saved_images.save_sheet(benchmark.name, row, strips)


@contextmanager
def _name_errors(pair: Pair) -> Iterator[None]:
    """Let every error inside name the picture.

    No error is passed over: a mean over fewer pictures would be another number than the papers have.
    """
    try:
        yield
    except DscloraError as error:
        if any(str(path) in error.message for path in (pair.hr, pair.lr) if path):
            raise
        raise error.reworded(f"{pair.hr}: {error.message}") from error
    except Exception as error:
        if info := system_info(error, ErrorCode.FAILED):
            raise DscloraError(f"at {pair.hr}: {info.message}", info.hint) from error
        raise RuntimeError(f"{type(error).__name__} at {pair.hr}: {error}") from error


def _measure_costs(candidates: Sequence[Candidate], sets: Sequence[BenchmarkSet]) -> Mapping[str, Cost]:
    """Return the cost of every model by the name of the row. An ensemble costs 8 times the time of the model."""
    models = {
        candidate.info.name: TimedModel(candidate.weights, candidate.info.device, candidate.upscale)
        for candidate in candidates
        if candidate.weights and candidate.info.device and not candidate.info.ensemble
    }
    # Clean LR also with --jpeg: the content of an image does not change time or memory.
    pairs = [(benchmark, pair) for benchmark in sets for pair in benchmark.pairs]
    images = [pairs[index][0].load(pairs[index][1])[0] for index in timed_indices(len(pairs))]
    return dict(zip(models, measure(list(models.values()), images), strict=True))
