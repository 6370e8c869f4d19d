"""From folders and sets to pictures of the cache that can be trained on, and a sentence about each that cannot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.recipe import Recipe
from dsclora_cli.tasks.pairing import Pair, pair_folders
from dsclora_cli.tasks.setcache import SOURCES, fetch_set, set_name
from dsclora_cli.tasks.traincache import TrainCache, content

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
