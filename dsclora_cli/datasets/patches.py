"""Training data: pictures in the cache, random patches of them, and the pictures held out.

A batch follows from the seed and the step's number alone, and each worker computes only its share of it.

From folders and sets to pictures of the cache that can be trained on, and a sentence about each that cannot.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsclora_cli.datasets.benchmarks import Pair, pair_folders
from dsclora_cli.datasets.cache import TrainCache, content
from dsclora_cli.datasets.degradation import degrade, surroundings
from dsclora_cli.datasets.download import SOURCES, fetch_set, set_name
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.recipe import DegradeOptions, Recipe

TeacherImages = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""LR `(h, w, 3)` uint8 to a teacher's SR `(sh, sw, 3)` float, about in [0, 1]."""

_FIXED_POINT = 16384.0  # what 1.0 is in a stored teacher's output, int16: room from -2 to 2
_STREAM_OF_PATCHES, _STREAM_OF_DAMAGE, _STREAM_OF_HELD_OUT = 0, 1, 2


@dataclass(frozen=True)
class Batch:
    """LR `(N, 3, p, p)`, and HR and the teacher's output `(N, 3, s*p, s*p)`, float32 in [0, 1] or about."""

    lr: Tensor
    hr: Tensor
    teacher: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device, LR in channels_last."""
        lr = self.lr.to(device, memory_format=torch.channels_last, non_blocking=True)
        teacher = None if self.teacher is None else self.teacher.to(device, non_blocking=True)
        return Batch(lr, self.hr.to(device, non_blocking=True), teacher)


@dataclass(frozen=True)
class TrainSet:
    """Pictures to draw patches from. `left_out` tells of those that cannot be used, `digest` what the others hold."""

    pictures: tuple[Picture, ...]
    recipe: Recipe
    cache: TrainCache
    left_out: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A hash over the contents of the pictures, whatever their names and order."""
        return hashlib.sha256("\n".join(sorted(picture.key for picture in self.pictures)).encode()).hexdigest()

    @cached_property
    def _chances(self) -> NDArray[np.float64]:
        """Of a picture or one before it to be drawn for a sample: each is as likely as it is large."""
        areas = np.cumsum([height * width for height, width in (picture.size for picture in self.pictures)])
        chances: NDArray[np.float64] = areas / areas[-1]
        return chances

    def batch(self, step: int, share: slice) -> Batch:
        """The samples `share` of the batch of a step."""
        options, seed = self.recipe.data, self.recipe.run.seed
        rng = np.random.default_rng([seed, _STREAM_OF_PATCHES, step])
        chosen = np.searchsorted(self._chances, rng.random(options.batch), side="right")
        places = rng.random((options.batch, 2))
        turns, flips = rng.integers(4, size=options.batch), rng.integers(2, size=options.batch)
        samples = []
        for index in range(*share.indices(options.batch)):
            picture = self.pictures[chosen[index]]
            top, left = (int(places[index][axis] * (picture.size[axis] - options.patch + 1)) for axis in (0, 1))
            damage = np.random.default_rng([seed, _STREAM_OF_DAMAGE, step, index])
            patches = self._patches(picture, top, left, damage)
            samples.append([_turned(patch, int(turns[index]), bool(flips[index])) for patch in patches])
        lr, hr, *teacher = (torch.stack(patches) for patches in zip(*samples, strict=True))
        return Batch(_unit(lr, 255), _unit(hr, 255), _unit(teacher[0], _FIXED_POINT) if teacher else None)

    def with_teacher(self, images: TeacherImages, name: str) -> TrainSet:
        """The same with a teacher's outputs for whole pictures, computed once and kept; `name` tells teachers apart."""
        key = hashlib.sha256(name.encode()).hexdigest()[:16]

        def with_output(picture: Picture) -> Picture:
            def make() -> NDArray[np.int16]:
                output = np.rint(images(np.array(self.cache.open(picture.lr))) * _FIXED_POINT)
                stored: NDArray[np.int16] = np.clip(output, -32768, 32767).astype(np.int16)
                return stored

            return replace(picture, teacher=self.cache.made(f"{picture.lr.removesuffix('.npy')}-{key}.npy", make))

        return replace(self, pictures=tuple(with_output(picture) for picture in self.pictures))

    def _patches(self, picture: Picture, top: int, left: int, rng: np.random.Generator) -> list[NDArray[Any]]:
        """LR, HR and the teacher's patch, LR degraded where that is asked for."""
        scale, size = self.recipe.network.scale, self.recipe.data.patch
        lr = self.cache.open(picture.lr)
        if self.recipe.degrade.degrade:
            rows, columns = surroundings(top, size), surroundings(left, size)
            lr = degrade(np.array(lr[rows, columns]), self.recipe.degrade, rng)
            top_in, left_in = top - rows.start, left - columns.start
        else:
            top_in, left_in = top, left
        window = slice(top * scale, (top + size) * scale), slice(left * scale, (left + size) * scale)
        wide = [self.cache.open(name)[window] for name in (picture.hr, picture.teacher) if name]
        return [np.array(patch) for patch in (lr[top_in : top_in + size, left_in : left_in + size], *wide)]


@dataclass(frozen=True)
class HeldOut:
    """Pictures that nothing is trained on."""

    chosen: tuple[Picture, ...]
    scale: int
    degradation: DegradeOptions
    seed: int
    cache: TrainCache

    def pictures(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        """Name, LR `(h, w, 3)` and HR `(sh, sw, 3)`, uint8; LR degraded where training is, always alike."""
        for index, picture in enumerate(self.chosen):
            lr = np.array(self.cache.open(picture.lr))
            if self.degradation.degrade:
                rng = np.random.default_rng([self.seed, _STREAM_OF_HELD_OUT, index])
                lr = degrade(lr, self.degradation, rng)
            height, width = picture.size
            yield picture.name, lr, np.array(self.cache.open(picture.hr)[: height * self.scale, : width * self.scale])


def open_data(recipe: Recipe, offline: bool = False, on_picture: OnPicture | None = None) -> tuple[TrainSet, HeldOut]:
    """The pictures to train on and those held out, decoded into the cache.

    Pictures that cannot be used are left out, with a sentence about each. Raises UsageError where nothing is left to
    train on or to hold out, and as `gather` does.
    """
    options = recipe.data
    if not options.data:
        raise UsageError("there are no pictures to train on", "name a folder with --data")
    if options.lr and len(options.data) > 1:
        raise UsageError("--lr pairs with one folder of --data", "give one folder of HR, or leave --lr out")
    cache = TrainCache()
    pictures, left_out = gather(options.data, options.lr, recipe, cache, offline, on_picture)
    if options.val is None:
        held_out, training = _split(list(pictures.values()), recipe)
        missing = "there is only one usable picture, which cannot be trained on and held out"
    else:
        held, more = gather([str(options.val)], None, recipe, cache, on_picture=on_picture)
        left_out += more
        held_out, training = list(held.values()), [picture for key, picture in pictures.items() if key not in held]
        missing = f"{options.val} holds every picture of --data"
    if not training or not held_out:
        raise UsageError(missing, "add pictures to --data")
    fixed = HeldOut(tuple(held_out), recipe.network.scale, recipe.degrade, recipe.run.seed, cache)
    return TrainSet(tuple(training), recipe, cache, tuple(left_out)), fixed


def _split(pictures: Sequence[Picture], recipe: Recipe) -> tuple[list[Picture], list[Picture]]:
    """Those held out, as the seed chooses, and the others; at least one each, where there are two."""
    count = min(max(1, round(recipe.data.val_share * len(pictures))), len(pictures) - 1)
    order = np.random.default_rng([recipe.run.seed, _STREAM_OF_HELD_OUT]).permutation(len(pictures))
    held = set(order[:count].tolist())
    return [pictures[i] for i in sorted(held)], [p for i, p in enumerate(pictures) if i not in held]


def _turned(patch: NDArray[Any], turns: int, flip: bool) -> Tensor:
    # PyTorch copies turned pixels, three bytes each, twice as fast as NumPy.
    pixels = torch.from_numpy(patch)
    return torch.rot90(pixels.flip(1) if flip else pixels, turns)


def _unit(patches: Tensor, one: float) -> Tensor:
    """`(N, h, w, 3)` integers to `(N, 3, h, w)` float32, `one` becoming 1."""
    return patches.permute(0, 3, 1, 2).float().div_(one)


OnPicture = Callable[[int, int], None]
"""Told how many pictures of a folder are ready, and how many there are."""

_MOST_THREADS = 8  # each holds a decoded picture, and in float64 a part of it


@dataclass(frozen=True)
class Picture:
    """A picture as the cache has it: hash, names of its arrays, and the height and width of its LR."""

    name: str
    key: str
    hr: str
    lr: str
    size: tuple[int, int]
    teacher: str | None = None


def gather(
    sources: Sequence[str],
    lr: Path | None,
    recipe: Recipe,
    cache: TrainCache,
    offline: bool = False,
    on_picture: OnPicture | None = None,
) -> tuple[dict[str, Picture], list[str]]:
    """The pictures of folders or sets by their hashes, in order of these, and a sentence about each left out.

    They and their LR, real where `lr` is a folder, are decoded into the cache. Raises UsageError for folders that are
    missing or do not pair and where no picture can be used, DscloraError where the cache cannot be written, and as
    `fetch_set` does.
    """
    usable: dict[str, Picture] = {}
    reasons: list[str] = []
    for source in sources:
        pairs = pair_folders(_folder(source, offline), lr, recipe.network.scale)
        for done, found in enumerate(_prepared(pairs, recipe, cache), start=1):
            if isinstance(found, Picture):
                usable[found.key] = found
            else:
                reasons.append(found)
            if on_picture:
                on_picture(done, len(pairs))
    if not usable:
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        raise UsageError(f"no picture of {', '.join(sources)} can be used: {reasons[0]}{more}", "give other pictures")
    return {key: usable[key] for key in sorted(usable)}, [f"left out: {reason}" for reason in reasons]


def _folder(source: str, offline: bool) -> Path:
    path = Path(source)
    if path.is_dir() or len(path.parts) > 1:
        return path
    try:
        name = set_name(source)
    except UsageError as error:
        hint = f"give a folder of pictures, or a set: {', '.join(SOURCES)}"
        raise UsageError(f'there is no folder "{source}", nor a set of that name', hint) from error
    try:
        return fetch_set(name, offline)
    except ImageError as error:
        raise ImageError(
            error.message, error.hint.replace("--data-dir", "--data")
        ) from error  # that is `eval`'s option


def _prepared(pairs: Sequence[Pair], recipe: Recipe, cache: TrainCache) -> Iterator[Picture | str]:
    """Each picture, or why it cannot be used; several are decoded at once."""
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        yield from pool.map(lambda pair: _prepare(pair, recipe, cache), pairs)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(pair: Pair, recipe: Recipe, cache: TrainCache) -> Picture | str:
    scale, patch = recipe.network.scale, recipe.data.patch
    try:
        hr = cache.picture(pair.hr)
        height, width = (side // scale for side in cache.open(hr).shape[:2])
        if min(height, width) < patch:
            return f"{pair.hr} holds no patch of {patch * scale} pixels"
        lr = cache.picture(pair.lr) if pair.lr else cache.lr(hr, scale)
    except ImageError as error:
        return error.message
    found = cache.open(lr).shape[:2]
    if found != (height, width):
        return f"{pair.lr} has {found[1]} x {found[0]} pixels, not {width} x {height}"
    return Picture(pair.name, content(hr), hr, lr, (height, width))
