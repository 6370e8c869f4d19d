"""Training data: random patches of the pictures in the cache, and the pictures held out.

`open_data` decodes the pictures of folders and sets into the cache, and splits them. A batch follows from the seed and
the step's number alone, so every process of a distributed run computes only its share of the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsclora_cli.datasets.benchmarks import Pair, pair_as_present, pair_folders
from dsclora_cli.datasets.cache import StoredFile, TrainCache, content_hash
from dsclora_cli.datasets.degradation import context_of, degrade
from dsclora_cli.datasets.download import SOURCES, fetch_set, set_name
from dsclora_cli.datasets.pages import CONVERSIONS
from dsclora_cli.errors import DscloraError, ImageError, UsageError, list_some
from dsclora_cli.host import usable_cpus
from dsclora_cli.imaging.metrics import luma
from dsclora_cli.imaging.resize import downscale, matlab_bicubic
from dsclora_cli.paths import is_folder
from dsclora_cli.recipe import DegradeOptions, Recipe

OnPicture = Callable[[int, int], None]
"""Callback `(done, total)` after each picture of a folder or set, called in the thread that opens the data."""

TeacherImages = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Turn LR `(h, w, 3)`, uint8, into the teacher's output `(s*h, s*w, 3)`, about in [0, 1]."""

MAX_THREADS = 8  # each thread holds a decoded picture, and a part of the picture in float64
FIXED_POINT = 16384.0  # a teacher's output is stored as int16, where 1.0 is 16384: room from -2 to 2
_FLAT = 60.0
"""PSNR-Y of bicubic, in dB, above which a picture is flat."""
_BAND = 64
"""LR rows of the bands in which `_is_flat` looks at a picture."""
# Random generators take the stream as part of their seed, so that patches, damage and split never share numbers.
_STREAM_OF_PATCHES, _STREAM_OF_DAMAGE, _STREAM_OF_HELD_OUT = 0, 1, 2


@dataclass(frozen=True)
class Picture:
    """A training picture in the cache."""

    name: str
    """Name of the file, without suffix; pages after the first have their number behind the name."""
    file: Path
    """The file that the picture was decoded from."""
    page: int
    """Index of the page in the file; 0 for the first page."""
    key: str
    """Hash of the HR file's content; pages after the first have their number behind the hash."""
    hr: str
    """Name of the HR array in the cache."""
    lr: str
    """Name of the LR array in the cache."""
    size: tuple[int, int]
    """Height and width of LR in pixels."""
    teacher: str | None = None
    """Name of the array of a teacher's output in the cache."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Return the names of all arrays; names in the cache follow from the content."""
        return tuple(name for name in (self.hr, self.lr, self.teacher) if name)


@dataclass(frozen=True)
class Batch:
    """Patches of edge `p` in LR pixels for a step, float32."""

    lr: Tensor
    """LR `(N, 3, p, p)` in [0, 1]."""
    hr: Tensor
    """HR `(N, 3, s*p, s*p)` in [0, 1]."""
    teacher: Tensor | None = None
    """The teacher's output `(N, 3, s*p, s*p)`, about in [0, 1]; None unless the set holds a teacher's outputs."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device, LR in channels_last."""
        lr = self.lr.to(device, memory_format=torch.channels_last, non_blocking=True)
        teacher = None if self.teacher is None else self.teacher.to(device, non_blocking=True)
        return Batch(lr, self.hr.to(device, non_blocking=True), teacher)


@dataclass(frozen=True)
class TrainSet:
    """Pictures to draw patches from."""

    pictures: tuple[Picture, ...]
    recipe: Recipe
    cache: TrainCache
    notes: tuple[str, ...] = ()
    """A sentence about each picture that cannot be used, and about the pictures that were converted."""

    @property
    def digest(self) -> str:
        """Return a hash over the contents of HR, and of LR that is not made from HR, independent of names and order."""
        real = self.recipe.data.lr is not None
        keys = (f"{picture.key} {picture.lr}" if real else picture.key for picture in self.pictures)
        return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()

    @property
    def arrays(self) -> list[tuple[str, ...]]:
        """Return the names of all arrays, which follow from the content of the files."""
        return [picture.arrays for picture in self.pictures]

    @cached_property
    def _cumulative_areas(self) -> NDArray[np.float64]:
        """Return the cumulative areas of the pictures as shares of the whole area, `(number of pictures,)`."""
        areas = np.cumsum([height * width for height, width in (picture.size for picture in self.pictures)])
        shares: NDArray[np.float64] = areas / areas[-1]
        return shares

    def batch(self, step: int, share: slice) -> Batch:
        """Return the samples `share` of the batch of a step. Threads may call `batch` at the same time."""
        options, seed = self.recipe.data, self.recipe.run.seed
        # Draw for the whole batch, so that a sample is the same in whichever process computes the sample.
        rng = np.random.default_rng([seed, _STREAM_OF_PATCHES, step])
        # A picture is drawn as often as its area demands: every pixel has the same chance.
        chosen = np.searchsorted(self._cumulative_areas, rng.random(options.batch), side="right")
        places = rng.random((options.batch, 2))
        turns, flips = rng.integers(4, size=options.batch), rng.integers(2, size=options.batch)
        samples = []
        for index in range(*share.indices(options.batch)):
            picture = self.pictures[chosen[index]]
            top, left = (int(places[index][axis] * (picture.size[axis] - options.patch + 1)) for axis in (0, 1))
            damage = np.random.default_rng([seed, _STREAM_OF_DAMAGE, step, index])
            # PyTorch copies turned pixels, three bytes each, twice as fast as NumPy.
            patches = [torch.from_numpy(patch) for patch in self._patches(picture, top, left, damage)]
            if flips[index]:
                patches = [patch.flip(1) for patch in patches]  # left to right
            samples.append([torch.rot90(patch, int(turns[index])) for patch in patches])
        lr, hr, *teacher = (torch.stack(patches) for patches in zip(*samples, strict=True))
        return Batch(_to_float(lr, 255), _to_float(hr, 255), _to_float(teacher[0], FIXED_POINT) if teacher else None)

    def _patches(self, picture: Picture, top: int, left: int, rng: np.random.Generator) -> list[NDArray[Any]]:
        """Return the patch of LR, of HR and, where the set holds one, of the teacher's output.

        Args:
            picture: Where to cut.
            top: First row of the patch in LR pixels.
            left: First column of the patch in LR pixels.
            rng: For the degradation of LR.

        Returns:
            LR `(p, p, 3)`, uint8; HR `(s*p, s*p, 3)`, uint8; the teacher's output `(s*p, s*p, 3)`, int16.
        """
        scale, size = self.recipe.network.scale, self.recipe.data.patch
        lr = self.cache.open(picture.lr)
        window = slice(top * scale, (top + size) * scale), slice(left * scale, (left + size) * scale)
        if self.recipe.degrade.degrade:
            # Degrade the patch with its context, so that the patch looks as if the whole picture had been degraded.
            rows, columns = context_of(top, size), context_of(left, size)
            lr = degrade(np.array(lr[rows, columns]), self.recipe.degrade, rng)
            top, left = top - rows.start, left - columns.start
        wide = [self.cache.open(name)[window] for name in (picture.hr, picture.teacher) if name]
        return [np.array(patch) for patch in (lr[top : top + size, left : left + size], *wide)]

    def with_teacher(self, images: TeacherImages, name: str, on_picture: OnPicture | None = None) -> TrainSet:
        """Return the set with a teacher's outputs for whole pictures, computed once and kept in the cache.

        Args:
            images: Computes the teacher's output for a picture.
            name: Tells teachers apart: other teachers, or other settings of a teacher, need another name.
            on_picture: Receives progress, which may take hours for a large teacher.
        """
        key = hashlib.sha256(name.encode()).hexdigest()[:16]

        def with_output(picture: Picture) -> Picture:
            def make() -> NDArray[np.int16]:
                output = np.rint(images(np.array(self.cache.open(picture.lr))) * FIXED_POINT)
                stored: NDArray[np.int16] = np.clip(output, -32768, 32767).astype(np.int16)
                return stored

            return replace(picture, teacher=self.cache.add(f"{picture.lr.removesuffix('.npy')}-{key}.npy", make))

        pictures = []
        for picture in self.pictures:
            pictures.append(with_output(picture))
            if on_picture:
                on_picture(len(pictures), len(self.pictures))
        return replace(self, pictures=tuple(pictures))


@dataclass(frozen=True)
class HeldOut:
    """Pictures for scores; no step trains on the pictures."""

    pictures: tuple[Picture, ...]
    scale: int
    degradation: DegradeOptions
    seed: int
    cache: TrainCache
    flat: frozenset[str] = frozenset()
    """Keys of the pictures without anything to restore, which have no score."""

    @property
    def arrays(self) -> list[tuple[str, ...]]:
        """Return the names of all arrays, which follow from the content of the files."""
        return [picture.arrays for picture in self.pictures]

    def load(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield name, LR `(h, w, 3)` and HR `(s*h, s*w, 3)` of each picture to score, uint8.

        LR is degraded if the training patches are, and in the same way at each call.
        """
        for index, picture in enumerate(self.pictures):
            if picture.key in self.flat:
                continue
            lr = np.array(self.cache.open(picture.lr))
            if self.degradation.degrade:
                rng = np.random.default_rng([self.seed, _STREAM_OF_HELD_OUT, index])
                lr = degrade(lr, self.degradation, rng)
            height, width = picture.size
            yield picture.name, lr, np.array(self.cache.open(picture.hr)[: height * self.scale, : width * self.scale])


def open_data(recipe: Recipe, offline: bool = False, on_picture: OnPicture | None = None) -> tuple[TrainSet, HeldOut]:
    """Decode the pictures of a recipe into the cache, and split them into a training set and held-out pictures.

    Pictures that cannot be used are left out, with a sentence about each. Flat pictures are held out, but not scored.

    Args:
        recipe: Names folders and sets, and how to split them.
        offline: Do not access the internet.
        on_picture: Receives progress.

    Raises:
        UsageError: Folders are missing or do not pair, or no picture is left to train on or to score.
        ImageError: A set cannot be downloaded.
        DscloraError: The cache cannot be written.
    """
    options = recipe.data
    if not options.data:
        raise UsageError("there are no pictures to train on", "name a folder with --data")
    if options.lr and len(options.data) > 1:
        raise UsageError("--lr needs a single folder in --data", "give one folder of HR, or leave --lr out")
    cache = TrainCache(options.max_pixels)
    folders, scale = {source: _folder(source, offline) for source in options.data}, recipe.network.scale
    pairs = {source: pair_folders(hr, options.lr, scale, options.val) for source, hr in folders.items()}
    pictures, notes = _gather(pairs, recipe, cache, on_picture)
    if options.val is None:
        drawn = _draw_held_out(pictures, recipe, cache)
        held_out = [picture for picture in pictures if picture.key in drawn]
        missing = "only one picture is usable, and at least two are needed: one to train on, one to hold out"
    else:
        held_out, more_notes = _gather_held_out(chain(*pairs.values()), recipe, cache, on_picture)
        notes += more_notes
        missing = f"{options.val} holds every picture of --data"
    # HR are told apart by content: a copy of a held-out picture is no training picture, whatever its name or LR.
    held_keys = {picture.key for picture in held_out}
    training = [picture for picture in pictures if picture.key not in held_keys]
    if not training or not held_out:
        raise UsageError(missing, "add pictures to --data")
    flat, more_notes = _find_flat(held_out, recipe.network.scale, cache)
    notes += more_notes
    held_out_set = HeldOut(tuple(held_out), recipe.network.scale, recipe.degrade, recipe.run.seed, cache, flat)
    return TrainSet(tuple(training), recipe, cache, tuple(notes)), held_out_set


def _draw_held_out(pictures: Sequence[Picture], recipe: Recipe, cache: TrainCache) -> set[str]:
    """Return the keys of a share of the pictures, which the seed chooses: neither none nor all of two or more.

    Where all of these are flat, the next picture of the seed's order that is not flat is held out too.
    """
    by_key = {picture.key: picture for picture in pictures}  # several LR of one HR are held out together
    keys = list(by_key)
    count = min(max(1, round(recipe.data.val_share * len(keys))), len(keys) - 1)
    order = [keys[at] for at in np.random.default_rng([recipe.run.seed, _STREAM_OF_HELD_OUT]).permutation(len(keys))]

    def has_detail(key: str) -> bool:
        return not _is_flat(cache.open(by_key[key].hr), recipe.network.scale)

    drawn, others = order[:count], order[count:]
    if not any(map(has_detail, drawn)) and len(others) > 1:
        drawn += islice(filter(has_detail, others), 1)
    return set(drawn)


def _gather_held_out(
    trained: Iterable[Pair], recipe: Recipe, cache: TrainCache, on_picture: OnPicture | None
) -> tuple[list[Picture], list[str]]:
    """Decode the pictures of `val`, as `_gather` does, with their LR of `lr` where there are any.

    Args:
        trained: The pairs of `data`. An LR of theirs is the LR of a held-out picture only if the HR are copies.
        recipe: Names the folders.
        cache: Where to decode into.
        on_picture: Receives progress.

    Raises:
        UsageError: As `_gather`, and where a held-out picture would equal its own LR.
    """
    folder, lr, scale = recipe.data.val, recipe.data.lr, recipe.network.scale
    assert folder is not None
    owners = {pair.lr: pair.hr for pair in trained if pair.lr}
    pairs = [
        replace(pair, lr=None) if pair.lr in owners and not _are_copies(pair.hr, owners[pair.lr], cache) else pair
        for pair in pair_as_present(folder, lr, scale)
    ]
    pictures, notes = _gather({str(folder): pairs}, recipe, cache, on_picture)
    alone = {pair.hr for pair in pairs if pair.lr is None}
    names = sorted({str(picture.file) for picture in pictures if picture.file in alone})
    if lr is not None and names:
        step = "put theirs there, under names that no picture of --data has"
        if scale == 1 and not recipe.degrade.degrade:
            raise UsageError(f"{lr} has no LR of {list_some(names)}, and at scale 1 LR cannot be made", step)
        notes.append(f"{list_some(names)}: scored on bicubic LR, because {lr} has no LR of their own; {step}")
    return pictures, notes


def _are_copies(path: Path, other: Path, cache: TrainCache) -> bool:
    """Return whether two files have the same content; False for files that cannot be read, which are left out later."""
    try:
        return cache.hash_of(path) == cache.hash_of(other)
    except ImageError:
        return False


def _gather(
    sources: Mapping[str, Sequence[Pair]], recipe: Recipe, cache: TrainCache, on_picture: OnPicture | None
) -> tuple[list[Picture], list[str]]:
    """Decode pictures, and their LR, into the cache; without an LR file, make LR by MATLAB's bicubic.

    Args:
        sources: The pictures of each folder or set, by the name that the recipe gives.
        recipe: Gives scale and patch size.
        cache: Where to decode into.
        on_picture: Receives progress.

    Returns:
        The pictures, sorted by content, one for each pair of contents of HR and LR, and the notes of `TrainSet`.

    Raises:
        UsageError: No picture can be used.
        DscloraError: The cache cannot be written.
    """
    usable: dict[tuple[str, str], Picture] = {}
    reasons: list[str] = []
    converted: dict[str, list[str]] = {}
    pool = ThreadPoolExecutor(min(MAX_THREADS, usable_cpus()))
    try:
        for pairs in sources.values():
            found = pool.map(lambda pair: _prepare(pair, recipe, cache), pairs)
            for done, (pair, prepared) in enumerate(zip(pairs, found, strict=True), start=1):
                usable |= {(picture.key, picture.lr): picture for picture in prepared.pictures}
                reasons += prepared.reasons
                for conversion in prepared.conversions:
                    converted.setdefault(conversion, []).append(str(pair.hr))
                if on_picture:
                    on_picture(done, len(pairs))
    finally:
        # After Ctrl-C, do not decode the pictures that wait.
        pool.shutdown(cancel_futures=True)
    if not usable:
        raise UsageError(
            f"no picture of {', '.join(sources)} can be used: {list_some(reasons, 1)}", "give other pictures"
        )
    # Sorted by content, the split and the patches are the same whatever the files are called.
    notes = [f"left out: {reason}" for reason in reasons]
    notes += [f"{list_some(names)}: {CONVERSIONS[conversion]}" for conversion, names in sorted(converted.items())]
    return [usable[key] for key in sorted(usable)], notes


def _find_flat(held_out: Sequence[Picture], scale: int, cache: TrainCache) -> tuple[frozenset[str], list[str]]:
    """Return the keys of the held-out pictures that are flat, and a sentence with their names, if there are any.

    Raises UsageError where all held-out pictures are flat.
    """
    flat = [picture for picture in held_out if _is_flat(cache.open(picture.hr), scale)]
    names = list_some(
        [f"{picture.file} page {picture.page + 1}" if picture.page else str(picture.file) for picture in flat]
    )
    if len(flat) == len(held_out):
        hint = "hold out more pictures with --val-share, or pictures of your choice with --val"
        raise UsageError(f"{names}: held out, but nearly flat, and no other picture is left to score", hint)
    notes = [f"{names}: held out, but not scored: a nearly flat picture would decide alone which weights are kept"]
    return frozenset(picture.key for picture in flat), notes if flat else []


def _is_flat(hr: NDArray[np.uint8], scale: int) -> bool:
    """Return whether a picture `(H, W, 3)` has nothing to restore: bicubic alone reaches a PSNR-Y above 60 dB.

    At 60 dB the mean squared error is 0.065, the error that rounding a gray picture to 8 bits makes in the luma. Scores
    of networks on such a picture only tell how exactly the networks repeat a smooth area: from 50 dB to infinity, while
    scores on other pictures differ by tenths. Photographs are far below, because of noise and grain: the smoothest of
    150 has 51 dB at x2.
    """
    factor = max(scale, 2)  # at scale 1 LR has every detail, so the detail that half the size loses counts
    height, width = (side // factor * factor for side in hr.shape[:2])
    left = height * width * 255**2 / 10 ** (_FLAT / 10)
    # By bands, because few rows tell that a picture has details, and to save memory.
    for top in range(0, height, _BAND * factor):
        band = np.array(hr[top : min(top + _BAND * factor, height), :width])
        restored = matlab_bicubic(downscale(band, factor), *band.shape[:2])
        left -= float(np.sum((luma(restored) - luma(band)) ** 2))
        if left <= 0:
            return False
    return True


def _folder(source: str, offline: bool) -> Path:
    """Return a folder of pictures: the source itself, or the folder of a set, downloaded where missing."""
    path = Path(source)
    if is_folder(path) or len(path.parts) > 1:
        return path
    try:
        name = set_name(source)
    except UsageError as error:
        hint = f"give a folder of pictures, or a set: {', '.join(SOURCES)}"
        raise UsageError(f'no folder and no set is called "{source}"', hint) from error
    try:
        return fetch_set(name, offline)
    except ImageError as error:
        # The hint names the option of `eval`.
        raise error.reworded(hint=error.hint.replace("--data-dir", "--data")) from error


@dataclass(frozen=True)
class _Prepared:
    """What became of a pair of files."""

    pictures: tuple[Picture, ...] = ()
    reasons: tuple[str, ...] = ()
    """A sentence about the file, or about each page, that cannot be used."""
    conversions: tuple[str, ...] = ()
    """Keys of `CONVERSIONS`."""


def _prepare(pair: Pair, recipe: Recipe, cache: TrainCache) -> _Prepared:
    """Decode the pages of a picture and their LR into the cache. Raises DscloraError where the cache fails."""
    try:
        hr = cache.add_file(pair.hr)
        lr = cache.add_file(pair.lr) if pair.lr else None
        if lr and len(lr.pages) != len(hr.pages):
            return _Prepared(reasons=(f"{pair.lr} has {len(lr.pages)} pages, not {len(hr.pages)} as {pair.hr}",))
        pages = [_prepare_page(pair, index, hr, lr, recipe, cache) for index in range(len(hr.pages))]
    except ImageError as error:
        # Of the hints, only the one about an option of the command helps with pictures that are left out.
        allows = "; --max-pixels allows more" if "--max-pixels" in error.hint else ""
        return _Prepared(reasons=(error.message + allows,))
    except DscloraError:
        raise
    except MemoryError:
        return _Prepared(reasons=(f"{pair.hr}: not enough memory for this picture",))
    # Whatever a single picture meets on its way in is a failure of the picture, and not the end of the run.
    except Exception as error:  # noqa: BLE001
        return _Prepared(reasons=(f"{pair.hr}: {type(error).__name__}: {error}; this is a bug in dsclora",))
    usable = tuple(page for page in pages if isinstance(page, Picture))
    conversions = dict.fromkeys((*hr.conversions, *(lr.conversions if lr else ()))) if usable else {}
    return _Prepared(usable, tuple(page for page in pages if isinstance(page, str)), tuple(conversions))


def _prepare_page(
    pair: Pair, index: int, hr: StoredFile, lr: StoredFile | None, recipe: Recipe, cache: TrainCache
) -> Picture | str:
    """Return a page with its LR in the cache, or a sentence that says why the page cannot be used."""
    scale, patch = recipe.network.scale, recipe.data.patch
    page = f" page {index + 1}" if len(hr.pages) > 1 else ""
    large = hr.pages[index]
    height, width = (side // scale for side in cache.open(large).shape[:2])
    if min(height, width) < patch:
        return f"{pair.hr}{page} is smaller than a patch of {patch * scale} pixels"
    small = lr.pages[index] if lr else cache.add_lr(large, scale)
    found = cache.open(small).shape[:2]
    if found != (height, width):
        return f"{pair.lr}{page} has {found[1]} x {found[0]} pixels, not {width} x {height}"
    name = pair.name + page if index else pair.name
    return Picture(name, pair.hr, index, content_hash(large), large, small, (height, width))


def _to_float(patches: Tensor, one: float) -> Tensor:
    """Return integers `(N, h, w, 3)` as float32 `(N, 3, h, w)`, where the value `one` becomes 1."""
    return patches.permute(0, 3, 1, 2).float().div_(one)
