"""Shards: several machines share the pictures of a run without talking to each other.

Every picture belongs to one of N shards by a hash of its place in the tree of folders. The shard therefore depends
neither on the order nor on the machine, nor on the place where the tree is mounted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.upscaling.types import FoundInputs, InputFile

_ARRAYS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE", None),
    ("JOB_COMPLETION_INDEX", None, None),  # Kubernetes does not state the number of pods
)
"""Variables of job arrays: index, number of jobs, and first index where it is not 0."""


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return the number of a shard, from 1, and the number of shards.

    Args:
        text: `I/N`, or `auto` for the job array that this process belongs to, or `auto/N` for an array without N.
        environment: Environment of the process.

    Raises:
        UsageError: The text is something else, or there is no job array.
    """
    match = re.fullmatch(r"(\d{1,9}|auto)(?:/(\d{1,9}))?", text)
    if not match or (match[1] != "auto" and not match[2]):
        raise UsageError(f"--shard {text} is not I/N, auto or auto/N", "for example --shard 3/10")
    index, count = match[1], int(match[2]) if match[2] else None
    if index != "auto":
        number = int(index)
    else:
        number, found = _from_array(environment)
        count = found if count is None else count
    if count is None:
        raise UsageError("the job array does not state the number of its jobs", "give the number: --shard auto/N")
    if count == 0:
        raise UsageError(f"--shard {text}: there are no 0 shards", "for example --shard 1/4")
    if not 1 <= number <= count:
        raise UsageError(f"--shard {number}/{count} is not a shard from 1 to {count}", f"for example --shard 1/{count}")
    return number, count


def _from_array(environment: Mapping[str, str]) -> tuple[int, int | None]:
    """Return the number of the job, from 1, and the number of jobs, None where it is not stated."""
    for index, size, first in _ARRAYS:
        if index in environment:
            names = [name for name in (index, size, first) if name and name in environment]
            try:
                values = {name: int(environment[name]) for name in names}
            except ValueError as error:
                raise UsageError(f"{' or '.join(names)} is no number", "give the shard: --shard I/N") from error
            start = values.get(first, 0) if first else 0
            return values[index] - start + 1, values.get(size) if size else None
    known = ", ".join(index for index, _, _ in _ARRAYS)
    raise UsageError("--shard auto finds no job array", f"start it in one that sets {known}, or give --shard I/N")


def keep_shard(found: FoundInputs, batch: BatchOptions) -> FoundInputs:
    """Return the inputs and the left-out files of the shard; the inputs of other shards become `others`.

    Names of results are those of the whole run: pictures that compete for a name are in one shard, in the same order.
    `many` is that of the whole run too, so `-o` is a file for every shard, or a folder for every shard.

    Raises:
        UsageError: The name template has no {stem}, so pictures of several shards could compete for a name.
    """
    if batch.shard is None:
        return found
    if "{stem}" not in batch.name:
        raise UsageError(f"--shard with --name {batch.name} could give two results one name", "use {stem} in the name")
    number, count = batch.shard
    mine = [shard_of(_key(file), count) == number for file in found.inputs]
    others = tuple(file for file, is_mine in zip(found.inputs, mine, strict=True) if not is_mine)
    return replace(
        found,
        inputs=tuple(file for file, is_mine in zip(found.inputs, mine, strict=True) if is_mine),
        others=others,
        notes=(*found.notes, f"{len(others)} of {len(mine)} pictures belong to other shards than {number}/{count}"),
        left_out=tuple(each for each in found.left_out if shard_of(each.name, count) == number),
    )


def shard_of(key: str, count: int) -> int:
    """Return the shard of a key, from 1 to `count`; keys spread evenly."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def _key(file: InputFile) -> str:
    """Return the place of a picture in the tree of folders, without the suffix.

    Pictures with one stem in one folder may compete for a name, so they share the key.
    """
    folder = (file.folder or Path()).as_posix()
    return f"{folder}/{file.stem}".casefold()
