"""Write results and remember them: atomic saving, and one small JSON record for each result.

Records lie in the state folder of the user, and for results at URLs next to the results. A record tells a later run
whether a file is the result of the same input with the same weights and settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dsclora_cli.claims import ProcessClaim
from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, ImageUnwritable, next_step
from dsclora_cli.imaging.types import AnyFrame, Header
from dsclora_cli.imaging.writer import write_picture
from dsclora_cli.paths import (
    atomic_write,
    behind_links,
    check_path,
    is_file,
    is_folder,
    is_taken,
    read_small,
    sha256_of,
    state_dir,
)
from dsclora_cli.storage.objects import ObjectFacts, find_object, local_copy, temporary_file, write_object
from dsclora_cli.storage.places import Place, RemotePlace
from dsclora_cli.storage.records import read_remote_record, write_remote_record
from dsclora_cli.upscaling.types import FoundInputs, InputFile, ResultOwner, check_link, path_key

_VERSION = 1
"""Version of the records; a record of another version counts as absent."""

_MOST_RECORDS = 100
"""Records kept in memory at a time."""

ResultState = Literal["missing", "complete", "different"]
"""missing: no file; complete: the file that the key describes, unchanged; different: any other file."""


@dataclass(frozen=True)
class ResultKey:
    """Everything that decides the pixels of a result."""

    input_sha256: str
    weights_sha256: str
    settings: Mapping[str, object]
    """All settings that change the file, as JSON values; tile, threads, device and engine are not among them."""


def result_state(output: Place, key: ResultKey, record: Mapping[str, Any] | None = None) -> ResultState:
    """Return whether `output` is missing, is the complete result for `key`, or is a different file.

    `record` is the record of `output`, where the caller has read the record already.
    """
    found = _find(output)
    if found is None:
        return "missing"
    record = record or read_record(output)
    if record.get("recipe") != _as_json(key):
        return "different"
    return "complete" if _is_unchanged(found, record) else "different"


def is_recorded(path: Place) -> bool:
    """Return whether the file is a result of an earlier run, unchanged since."""
    record = read_record(path)
    found = _find(path) if record else None
    return found is not None and _is_unchanged(found, record)


class ResultClaim(ProcessClaim):
    """Claim of a process on a result: no other process upscales the same picture at the same time."""

    def __init__(self, target: Place) -> None:
        super().__init__(_record_path(target).with_suffix(".lock"))


def source_key(file: InputFile) -> str | None:
    """Return what records store to tell an input from others, without the user's paths; None for a stream."""
    return None if isinstance(file.source, bytes) else hashlib.sha256(os.fsencode(file.key)).hexdigest()


class ResultOwners:
    """The inputs that existing results belong to, by the records. One thread at a time.

    Args:
        found: the inputs of the run.
        overwrites: whether the run replaces existing results.
    """

    def __init__(self, found: FoundInputs, overwrites: bool) -> None:
        self._found, self._overwrites = found, overwrites
        self._records: dict[Place, dict[str, Any]] = {}
        """Records that were read for the picture in hand: for a place at a URL, each look costs a request."""
        self._digests: dict[tuple[str, str], set[str]] = {}
        """Checksums of the files that have one stem and one place in the tree of folders."""

    def owner(self, place: Place, file: InputFile, sha256: str | None) -> ResultOwner:
        """Return to which input a place belongs.

        Args:
            place: place for a result.
            file: input that needs a place.
            sha256: checksum of the input; None where nobody has read the input.
        """
        made = self._found.made.get(path_key(place)) if self._found.made else None
        if made is not None:
            return "own" if made == file.key else "other"
        if isinstance(place, RemotePlace) and self._overwrites and _stem_key(file) not in self._with_stem:
            return "free"  # `--overwrite` needs no record, and so no request
        record = self.read(place)
        # A result that somebody has removed still has its record, and its picture keeps the name.
        if record or (isinstance(place, Path) and is_taken(place)):
            return self._by_record(record, file, sha256)
        return "free"

    def read(self, place: Place) -> dict[str, Any]:
        """Return the record of a place as `read_record` does; a record is read once for a picture."""
        if place not in self._records:
            if len(self._records) >= _MOST_RECORDS:
                self._records.clear()
            self._records[place] = read_record(place)
        return self._records[place]

    def forget(self) -> None:
        """Forget the records: another picture is next, and another process may write records."""
        self._records.clear()

    def _by_record(self, record: Mapping[str, Any], file: InputFile, sha256: str | None) -> ResultOwner:
        source, recipe = record.get("source"), record.get("recipe")
        key = source.get("key") if isinstance(source, dict) else None
        digest = recipe.get("input_sha256") if isinstance(recipe, dict) else None
        if isinstance(key, str) and key == source_key(file):
            return "own"
        if isinstance(key, str) and key in self._source_keys:
            return "other"
        # A record of an earlier version has no key, and a tree that was moved has other keys.
        if not isinstance(digest, str):
            return "unknown"
        if digest == sha256:
            return "own"
        return "other" if digest in self._digests_like(file) else "unknown"

    @cached_property
    def _source_keys(self) -> set[str | None]:
        return {source_key(file) for file in (*self._found.inputs, *self._found.others)}

    @cached_property
    def _with_stem(self) -> dict[tuple[str, str], list[InputFile]]:
        """Inputs by stem and place in the tree of folders, where there are several."""
        groups: dict[tuple[str, str], list[InputFile]] = {}
        for file in (*self._found.inputs, *self._found.others):
            groups.setdefault(_stem_key(file), []).append(file)
        return {key: group for key, group in groups.items() if len(group) > 1}

    def _digests_like(self, file: InputFile) -> set[str]:
        """Return the checksums of the local files that may compete with an input for a name."""
        key = _stem_key(file)
        if key not in self._digests:
            self._digests[key] = digests = set()
            for each in self._with_stem.get(key, ()):
                if isinstance(each.source, Path) and is_file(each.source):
                    with suppress(OSError):
                        digests.add(sha256_of(each.source))
        return self._digests[key]


def _stem_key(file: InputFile) -> tuple[str, str]:
    return str(file.folder or "."), file.stem.casefold()


def save_result(
    target: Place | None,
    header: Header,
    frames: Iterable[AnyFrame],
    options: SaveOptions,
    key: ResultKey,
    source: Mapping[str, object] | None = None,
) -> tuple[str, ...]:
    """Write a picture as `write_picture` does, and record the result.

    The file is written under a hidden name in the same folder and renamed when the file is whole, so no reader ever
    sees half a picture. After an error no other file remains. The file that a link leads to is replaced, not the link.
    For a URL, the file is written on this machine first.

    Args:
        target: place to write; None for standard output, for which nothing is recorded.
        header: header of the result, from `fit_format`.
        frames: `(H, W, C)` pixels, or bands of rows.
        options: how to encode.
        key: everything that decides the pixels.
        source: facts about the input, as JSON values: `source_key`, and for an input at a URL what saves a later run
            the reading.

    Returns:
        Warnings for the user.

    Raises:
        ImageError: the file cannot be written, or a frame cannot be read.
    """
    if target is None:
        write_picture(sys.stdout.buffer, header, frames, options)
        sys.stdout.buffer.flush()
        return ()
    if isinstance(target, RemotePlace):
        return _save_remote(target, header, frames, options, _record(key, source))
    try:
        check_path(target)  # before the folder is made
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            is_other = is_taken(target.parent) and not is_folder(target.parent)
            reason = "something else has this name" if is_other else error.strerror
            message = f"{target.parent}: the folder cannot be made ({reason})"
            raise ImageUnwritable(message, "choose another folder") from error
        # A link stays, and leads to the new file. The place of the link may have gone since the plan was made.
        check_link(target)
        with atomic_write(behind_links(target)) as temporary:
            _write_named(temporary, target, header, frames, options)
            # Before the rename: after a cut in between, the record fits no file, and counts as absent.
            try:
                record_result(target, temporary, key, source)
            except OSError as error:
                hint = "set DSCLORA_STATE_DIR to a folder that can be written"
                return (f"not recorded, so the next run cannot skip the picture: {error.strerror or error} ({hint})",)
            return ()
    except OSError as error:
        message = f"{target}: cannot be written ({error.strerror or error})"
        raise ImageUnwritable(message, next_step(error)) from error


def _save_remote(
    target: RemotePlace, header: Header, frames: Iterable[AnyFrame], options: SaveOptions, record: dict[str, object]
) -> tuple[str, ...]:
    """Write a picture on this machine, then the record, then the object, all at once. Raises ImageError."""
    with temporary_file(target.suffix) as temporary:
        _write_named(temporary, target, header, frames, options)
        # Before the picture, as for local files. The MD5 saves a later run from reading the whole object.
        with temporary.open("rb") as written:
            md5 = hashlib.file_digest(written, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        warnings: tuple[str, ...] = ()
        try:
            write_remote_record(target, record | _facts_of(temporary, target.name) | {"md5": md5})
        except ImageUnwritable as error:
            warnings = (f"not recorded, so the next run cannot skip the picture: {error.message}",)
        write_object(target, temporary)
        return warnings


def _write_named(
    temporary: Path, target: Place, header: Header, frames: Iterable[AnyFrame], options: SaveOptions
) -> None:
    """Write a picture; errors name the target, because the user does not know the temporary file."""
    try:
        write_picture(temporary, header, frames, options)
    except ImageError as error:
        raise error.reworded(error.message.replace(str(temporary), str(target))) from error


def record_result(output: Path, written: Path, key: ResultKey, source: Mapping[str, object] | None = None) -> None:
    """Record the result in the file `written`, which is about to be renamed to `output`. Raises OSError."""
    record = _record(key, source) | _facts_of(written, str(output.resolve()))
    path = _record_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _record(key: ResultKey, source: Mapping[str, object] | None) -> dict[str, object]:
    """Return what a record says of the input and the settings."""
    return {"version": _VERSION, "recipe": _as_json(key), **({"source": source} if source else {})}


def _facts_of(written: Path, output: str) -> dict[str, object]:
    """Return what a record says of the file of the result."""
    return {"output": output, "bytes": written.stat().st_size, "sha256": sha256_of(written)}


def _record_path(output: Place) -> Path:
    """Return the place of a record, in one of 256 folders: millions of files in one folder are slow."""
    name = _record_name(output)
    return state_dir() / "results" / name[:2] / name[2:]


def _older_record_path(output: Place) -> Path:
    """Return the place of a record of versions up to 0.1, which kept all records in one folder."""
    return state_dir() / "results" / _record_name(output)


def _record_name(output: Place) -> str:
    return f"{hashlib.sha256(os.fsencode(path_key(output))).hexdigest()}.json"


def read_record(output: Place) -> dict[str, Any]:
    """Return the record of `output`, or an empty dict where no record of this version can be read."""
    try:
        if isinstance(output, RemotePlace):
            record: object = read_remote_record(output)
        else:
            path = _record_path(output)
            record = json.loads(read_small(path if is_taken(path) else _older_record_path(output)))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and record.get("version") == _VERSION else {}


def _find(output: Place) -> Path | ObjectFacts | None:
    """Return a file, or the properties of an object; None where nothing is there."""
    if isinstance(output, Path):
        return output if is_taken(output) else None
    return find_object(output)


def _is_unchanged(output: Path | ObjectFacts, record: Mapping[str, Any]) -> bool:
    """Return whether a file, or an object, is the one that the record describes."""
    # The size is compared first: comparing sizes costs nothing, and most changed files have another size.
    if isinstance(output, Path):
        try:
            return output.stat().st_size == record.get("bytes") and sha256_of(output) == record.get("sha256")
        except OSError:  # a file of another user, or one that has gone meanwhile
            return False
    if output.size != record.get("bytes"):
        return False
    if output.md5 is not None and output.md5 == record.get("md5"):
        return True
    # Not every storage states the MD5: not for an object of several parts, nor for one with a key of its own.
    with local_copy(output) as content:
        sha256 = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
    return sha256 == record.get("sha256")


def _as_json(key: ResultKey) -> dict[str, object]:
    """Return the key as JSON gives the key back: tuples become lists."""
    plain: dict[str, object] = json.loads(json.dumps(vars(key)))
    return plain
