"""Scores of models on benchmark sets, as papers and challenges state them; see docs/eval.md."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

from dsclora_cli import __version__
from dsclora_cli.config import EvalOptions
from dsclora_cli.datasets.benchmarks import BenchmarkSet, open_folder, open_set
from dsclora_cli.datasets.degradation import jpeg
from dsclora_cli.datasets.fingerprint import digest, identify
from dsclora_cli.errors import UsageError
from dsclora_cli.evaluation.candidates import Candidate, open_candidates
from dsclora_cli.evaluation.cost import Cost, Work, measure, spread
from dsclora_cli.evaluation.protocol import Image, Protocol, Scorer, open_metrics, protocol_of
from dsclora_cli.evaluation.report import BASELINE, EvalReport, RowInfo, SetReport, Worst
from dsclora_cli.evaluation.saved_images import Gallery
from dsclora_cli.evaluation.score_cache import code_digest, load_scores, save_scores
from dsclora_cli.evaluation.statistics import Table, standings, worst_images
from dsclora_cli.imaging.contact_sheet import Panel, Strip
from dsclora_cli.upscaling.manifest import ResultKey

__all__ = ["EvalObserver", "EvalReport", "evaluate"]


class EvalObserver:
    """Hears how an evaluation goes; override what is of interest."""

    def on_unpack(self, name: str, done: int, total: int) -> None:
        """So many of the bytes of a set, fetched for the first time, are unpacked."""

    def on_sets(self, images: int) -> None:
        """All sets are there, with so many images together."""

    def on_image(self, benchmark: str, image: str) -> None:
        """All rows are about to be scored on an image."""

    def on_cost(self) -> None:
        """All images are scored; the cost of the models is about to be measured."""

    def on_note(self, note: str) -> None:
        """A sentence about the run."""


def evaluate(options: EvalOptions, observer: EvalObserver | None = None) -> EvalReport:
    """Score the baseline and every model on every set.

    Scores of finished images are kept, so the same call after an interruption goes on. Raises UsageError and
    WeightsError for what cannot be done at all, and ImageError for an image that cannot be read or scored.
    """
    return _Evaluation(options, observer or EvalObserver()).report()


class _Evaluation:
    """Everything that one evaluation has opened. What is wrong with models is found before sets are fetched."""

    def __init__(self, options: EvalOptions, observer: EvalObserver) -> None:
        self._options = options
        self._observer = observer
        _check(options)
        self._protocol: Protocol = protocol_of(options.protocol, options.scale)
        self._candidates = open_candidates(options)
        self._scorer = Scorer(self._protocol, open_metrics(options.metrics, options.engine.device))
        self._gallery = Gallery(options.save) if options.save else None
        self._sets = _open_sets(options, observer)

    def report(self) -> EvalReport:
        for candidate in self._candidates:
            for note in candidate.info.notes:
                self._observer.on_note(note)
        self._observer.on_sets(sum(len(benchmark.pairs) for benchmark in self._sets))
        sets = tuple(self._set(benchmark) for benchmark in self._sets)
        return EvalReport(
            scale=self._options.scale,
            jpeg=self._options.jpeg,
            protocol=self._protocol,
            metrics=self._scorer.metrics,
            rows=self._rows(),
            sets=sets,
            versions=_versions(),
        )

    def _set(self, benchmark: BenchmarkSet) -> SetReport:
        identity = identify(benchmark)
        if identity.warning:
            self._observer.on_note(f"{benchmark.name}: {identity.warning}")
        scores: Table = {candidate.info.name: {} for candidate in self._candidates}
        for pair in benchmark.pairs:
            self._observer.on_image(benchmark.name, pair.name)
            lr, hr = benchmark.load(pair)
            if self._options.jpeg is not None:
                lr = jpeg(lr, self._options.jpeg)
            image = _ScoredImage(benchmark.name, pair.name, lr, hr, digest(lr), digest(hr))
            for candidate in self._candidates:
                scores[candidate.info.name][pair.name] = self._score(candidate, image)
        worst = worst_images(scores, self._protocol.metrics[0], self._options.worst)
        if self._gallery:
            self._save_sheets(self._gallery, benchmark, worst, scores)
        stated = self._options.jpeg is None  # scores of the catalogue are of clean LR
        entries = {each.info.name: each.entry if stated else None for each in self._candidates}
        rows, comparisons = standings(benchmark.name, scores, self._protocol, entries)
        return SetReport(
            name=benchmark.name,
            images=len(benchmark.pairs),
            fingerprint=identity.fingerprint,
            verdict=identity.verdict,
            warning=identity.warning,
            rows=rows,
            comparisons=comparisons,
            worst=worst,
        )

    def _score(self, candidate: Candidate, image: _ScoredImage) -> Mapping[str, float]:
        """Kept scores, where the image that was asked for is there too; else the network's work."""
        made = {**candidate.identity, "scale": self._options.scale, "code": code_digest()}
        scored = {"border": self._protocol.border, "metrics": list(self._scorer.metrics)}
        key = {**made, **scored, "lr": image.lr_digest, "hr": image.hr_digest}
        recipe = ResultKey(image.lr_digest, str(made["weights"]), made)
        place = (image.benchmark, candidate.info.name, image.name)
        saved = self._gallery.slot(place, recipe) if self._gallery else None
        kept = None if self._options.fresh else load_scores(key)
        if kept is not None and (saved is None or saved.is_filled):
            return kept
        result = candidate.upscale(image.lr)
        if saved:
            saved.fill(result)
        scores = self._scorer(result, image.hr, image.name)
        try:
            save_scores(key, scores)
        except OSError as error:
            self._observer.on_note(f"scores are not kept, so an interrupted run would start again: {error}")
        return scores

    def _save_sheets(self, gallery: Gallery, benchmark: BenchmarkSet, worst: Sequence[Worst], scores: Table) -> None:
        pairs = {pair.name: pair for pair in benchmark.pairs}
        metric = self._protocol.metrics[0]

        def panel(row: str, image: str) -> Panel:
            return Panel(f"{row} {scores[row][image][metric]:.2f} dB", gallery.read(benchmark.name, row, image))

        def strip(each: Worst) -> Strip:
            _, hr = benchmark.load(pairs[each.image])
            return Strip((panel(BASELINE, each.image), panel(each.row, each.image)), Panel(f"HR {each.image}", hr))

        for row in dict.fromkeys(each.row for each in worst):
            gallery.save_sheet(benchmark.name, row, [strip(each) for each in worst if each.row == row])

    def _rows(self) -> tuple[RowInfo, ...]:
        """What is behind each row; an ensemble costs eight times its model and is not measured."""
        works = {
            candidate.info.name: Work(candidate.weights, candidate.info.device, candidate.upscale)
            for candidate in self._candidates
            if candidate.weights and candidate.info.device and not candidate.info.ensemble
        }
        costs: dict[str, Cost] = {}
        if self._options.cost:
            self._observer.on_cost()
            pairs = [(benchmark, pair) for benchmark in self._sets for pair in benchmark.pairs]
            images = [pairs[index][0].load(pairs[index][1])[0] for index in spread(len(pairs))]
            costs = dict(zip(works, measure(list(works.values()), images), strict=True))
        return tuple(replace(each.info, cost=costs.get(each.info.name)) for each in self._candidates)


@dataclass(frozen=True)
class _ScoredImage:
    """An image of a set, with what identifies its pixels."""

    benchmark: str
    name: str
    lr: Image
    hr: Image
    lr_digest: str
    hr_digest: str


def _check(options: EvalOptions) -> None:
    """What can be seen to be wrong before anything is loaded."""
    if not options.datasets and options.hr is None:
        raise UsageError("there is nothing to evaluate on", "name a set, --dataset Set5, or a folder, --hr DIR")
    if options.datasets and options.hr is not None:
        raise UsageError("both --dataset and --hr are given", "evaluate on one of them at a time")
    if options.lr is not None and options.hr is None:
        raise UsageError("--lr is given without --hr", "name the folder of the originals with --hr DIR")
    if options.data_dir is not None and not options.datasets:
        raise UsageError("--data-dir is given without --dataset", "name its sets, --dataset Set5")
    if options.jpeg is not None and not 1 <= options.jpeg <= 100:
        raise UsageError(f"--jpeg {options.jpeg} is no JPEG quality", "it goes from 1 to 100")


def _open_sets(options: EvalOptions, observer: EvalObserver) -> tuple[BenchmarkSet, ...]:
    if options.hr is not None:
        return (open_folder(options.hr, options.lr, options.scale),)
    opened = (
        open_set(name, options.scale, options.data_dir, options.offline, partial(observer.on_unpack, name))
        for name in options.datasets
    )
    return tuple({benchmark.name: benchmark for benchmark in opened}.values())


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "pillow")
    return {"dsclora": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
