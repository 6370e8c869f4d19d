"""Training data: pictures in the cache, random patches of them, and the pictures held out.

A batch follows from the seed and the step's number alone, and each worker computes only its share of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.degrade import REACH, degrade
from dsclora_cli.recipe import DegradeOptions, Recipe
from dsclora_cli.tasks.pairing import Pair, pair_folders
from dsclora_cli.tasks.setcache import fetch_set, set_name
from dsclora_cli.tasks.traincache import TrainCache

Rgb = NDArray[np.uint8]
TeacherImages = Callable[[Rgb], NDArray[np.float32]]
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
class Picture:
    """A picture as the cache has it: hash, names of its arrays, and the height and width of its LR."""

    name: str
    key: str
    hr: str
    lr: str
    size: tuple[int, int]
    teacher: str | None = None


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

    def batch(self, step: int, share: slice) -> Batch:
        """The samples `share` of the batch of a step."""
        options, seed = self.recipe.data, self.recipe.run.seed
        rng = np.random.default_rng([seed, _STREAM_OF_PATCHES, step])
        area = np.array([height * width for height, width in (picture.size for picture in self.pictures)], float)
        chosen = rng.choice(len(self.pictures), options.batch, p=area / area.sum())
        places = rng.random((options.batch, 2))
        turns, flips = rng.integers(4, size=options.batch), rng.integers(2, size=options.batch)
        samples = []
        for index in range(*share.indices(options.batch)):
            picture = self.pictures[chosen[index]]
            top, left = (int(places[index][axis] * (picture.size[axis] - options.patch + 1)) for axis in (0, 1))
            damage = np.random.default_rng([seed, _STREAM_OF_DAMAGE, step, index])
            patches = self._patches(picture, top, left, damage)
            samples.append([_turned(patch, int(turns[index]), bool(flips[index])) for patch in patches])
        lr, hr, *teacher = (torch.from_numpy(np.stack(patches)) for patches in zip(*samples, strict=True))
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
            above, before = max(0, top - REACH), max(0, left - REACH)
            around = np.array(lr[above : top + size + REACH, before : left + size + REACH])
            damaged = degrade(around, self.recipe.degrade, rng)
            patches = [damaged[top - above :][:size, left - before :][:, :size]]
        else:
            patches = [lr[top : top + size, left : left + size]]
        window = slice(top * scale, (top + size) * scale), slice(left * scale, (left + size) * scale)
        return patches + [self.cache.open(name)[window] for name in (picture.hr, picture.teacher) if name]


@dataclass(frozen=True)
class HeldOut:
    """Pictures that nothing is trained on."""

    chosen: tuple[Picture, ...]
    scale: int
    degradation: DegradeOptions
    seed: int
    cache: TrainCache

    def pictures(self) -> Iterator[tuple[str, Rgb, Rgb]]:
        """Name, LR `(h, w, 3)` and HR `(sh, sw, 3)`, uint8; LR degraded where training is, always alike."""
        for index, picture in enumerate(self.chosen):
            lr = np.array(self.cache.open(picture.lr))
            if self.degradation.degrade:
                rng = np.random.default_rng([self.seed, _STREAM_OF_HELD_OUT, index])
                lr = degrade(lr, self.degradation, rng)
            height, width = picture.size
            yield picture.name, lr, np.array(self.cache.open(picture.hr)[: height * self.scale, : width * self.scale])


def open_data(recipe: Recipe, offline: bool = False) -> tuple[TrainSet, HeldOut]:
    """The pictures to train on and those held out, decoded into the cache.

    Pictures that cannot be used are left out, with a sentence about each. Raises UsageError for folders that are
    missing, do not pair, or leave nothing to train on or to hold out.
    """
    options = recipe.data
    if not options.data:
        raise UsageError("there are no pictures to train on", "name a folder with --data")
    if options.lr and len(options.data) > 1:
        raise UsageError("--lr pairs with one folder of --data", "give one folder of HR, or leave --lr out")
    cache = TrainCache()
    pictures: dict[str, Picture] = {}
    left_out: list[str] = []
    for source in options.data:
        for pair in pair_folders(_folder(source, offline), options.lr, recipe.network.scale):
            _take(pair, recipe, cache, (pictures, left_out))
    ordered = [pictures[key] for key in sorted(pictures)]
    if options.val is None:
        held_out, training = _split(ordered, recipe)
    else:
        held: dict[str, Picture] = {}
        for pair in pair_folders(options.val, None, recipe.network.scale):
            _take(pair, recipe, cache, (held, left_out))
        held_out, training = list(held.values()), [picture for picture in ordered if picture.key not in held]
    cache.close()
    if not training or not held_out:
        why = left_out[0] if left_out else "there are too few of them"
        raise UsageError(f"of {len(ordered)} usable pictures none is left to train on or to hold out: {why}",
                         "add pictures to --data")  # fmt: skip
    fixed = HeldOut(tuple(held_out), recipe.network.scale, recipe.degrade, recipe.run.seed, cache)
    return TrainSet(tuple(training), recipe, cache, tuple(left_out)), fixed


def _folder(source: str, offline: bool) -> Path:
    path = Path(source)
    return path if path.is_dir() or len(path.parts) > 1 else fetch_set(set_name(source), offline)


def _take(pair: Pair, recipe: Recipe, cache: TrainCache, into: tuple[dict[str, Picture], list[str]]) -> None:
    """Put a picture into the cache and among the others, or say why it is left out."""
    pictures, left_out = into
    scale, patch = recipe.network.scale, recipe.data.patch
    try:
        key = cache.picture(pair.hr)
        lr = f"{cache.picture(pair.lr)}.hr.npy" if pair.lr else cache.lr(key, scale)
    except ImageError as error:
        left_out.append(f"left out: {error.message}")
        return
    height, width = cache.open(lr).shape[:2]
    wanted = tuple(side // scale for side in cache.open(f"{key}.hr.npy").shape[:2])
    if (height, width) != wanted:
        left_out.append(f"left out: {pair.lr} has {width} x {height} pixels, not {wanted[1]} x {wanted[0]}")
    elif min(height, width) < patch:
        left_out.append(f"left out: {pair.hr} holds no patch of {patch * scale} pixels")
    else:
        pictures[key] = Picture(pair.name, key, f"{key}.hr.npy", lr, (height, width))


def _split(pictures: Sequence[Picture], recipe: Recipe) -> tuple[list[Picture], list[Picture]]:
    count = max(1, round(recipe.data.val_share * len(pictures)))
    order = np.random.default_rng([recipe.run.seed, _STREAM_OF_HELD_OUT]).permutation(len(pictures))
    held = set(order[:count].tolist())
    return [pictures[i] for i in sorted(held)], [p for i, p in enumerate(pictures) if i not in held]


def _turned(patch: NDArray[Any], turns: int, flip: bool) -> NDArray[Any]:
    return np.rot90(patch[:, ::-1] if flip else patch, turns)


def _unit(patches: Tensor, one: float) -> Tensor:
    """`(N, h, w, 3)` integers to `(N, 3, h, w)` float32, `one` becoming 1."""
    return patches.permute(0, 3, 1, 2).float() / one
