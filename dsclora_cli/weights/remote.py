"""Weight files at URLs, copied to the cache of downloads: `--weights s3://BUCKET/FILE`. No torch."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dsclora_cli.errors import ImageUnreadable, WeightsError, next_step
from dsclora_cli.paths import atomic_write, downloads_dir, found_in, is_file, is_inner_path, sha256_of
from dsclora_cli.storage.places import Place, RemotePlace
from dsclora_cli.weights.limits import MOST_WEIGHT_BYTES, MOST_WEIGHTS_TEXT


def local_weights(place: Place, offline: bool) -> Path:
    """Return the path of a weight file; a file at a URL is copied to the cache, again after each change of the file.

    A storage that states neither a checksum nor a time of change is read at every call.

    Raises:
        WeightsError: The file cannot be fetched; with `offline`, the file was never fetched before.
        UsageError: A package for the kind of storage is missing.
    """
    if isinstance(place, Path):
        return place
    # Without secrets: the signature in a web address changes with every address.
    folder = downloads_dir() / f"url-{hashlib.sha256(str(place).encode()).hexdigest()[:32]}"
    if offline:
        return _newest(folder, place)
    try:
        return _copy_to(folder, place)
    except ImageUnreadable as error:
        raise WeightsError(error.message, error.hint) from error
    except OSError as error:
        hint = next_step(error, "set DSCLORA_CACHE_DIR to a folder that can be written")
        raise WeightsError(f"{place} cannot be copied to {folder}: {error.strerror}", hint) from error


def _newest(folder: Path, place: RemotePlace) -> Path:
    copies = sorted(_copies(folder), key=lambda path: path.stat().st_mtime)
    if not copies:
        raise WeightsError(
            f"{place} is not on this machine yet, and nothing is downloaded", "run once without --offline and --dry-run"
        )
    return copies[-1]


def _copies(folder: Path) -> Iterator[Path]:
    return (path for path in found_in(folder, "*/*") if is_file(path) and not path.name.startswith("."))


def _copy_to(folder: Path, place: RemotePlace) -> Path:
    """Return the copy of the file as the file is now. Raises ImageUnreadable and OSError."""
    from dsclora_cli.storage.objects import find_object, local_copy

    facts = find_object(place)
    if facts is None or facts.is_folder:
        what = "does not exist" if facts is None else "is a folder, not a weight file"
        raise ImageUnreadable(f"{place} {what}", "check the URL")
    if facts.size is not None and facts.size > MOST_WEIGHT_BYTES:
        raise ImageUnreadable(f"{place}: {facts.size} bytes are more than {MOST_WEIGHTS_TEXT}", "check the URL")
    name = place.name if is_inner_path(place.name) else "weights"
    if facts.tag is not None:
        copy = folder / _version_of(f"{facts.size} {facts.tag}".encode()) / name
        if is_file(copy):
            return copy
    with local_copy(facts) as content:
        if facts.tag is None:  # only the bytes tell whether the file has changed
            copy = folder / _version_of(content) / name
        if not is_file(copy):
            _store(content, copy)
    for old in folder.iterdir():
        if old.name != copy.parent.name:
            with suppress(OSError):  # another process may still read the older file
                shutil.rmtree(old)
    return copy


def _version_of(content: bytes | Path) -> str:
    """Return the name of the folder for a version of a file, from a text or from all bytes of the file."""
    digest = sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
    return digest[:16]


def _store(content: bytes | Path, copy: Path) -> None:
    """Write the bytes of a file, or of the file at a path, to `copy`. Raises OSError."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(copy) as temporary:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            shutil.copyfile(content, temporary)
