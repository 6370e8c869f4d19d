"""The benchmark sets by name: where each lies on the Hub, and its HR pictures unpacked once into our cache."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.hub import HubUnavailable, fetch_dataset_file
from dsclora_cli.paths import cache_dir
from dsclora_cli.tasks.archives import OnUnpack, unpack_hr

SOURCES = {
    "Set5": (("eugenesiow/Set5", "data/Set5_HR.tar.gz"), ("goodfellowliu/Set5", "Set5.zip")),
    "Set14": (("eugenesiow/Set14", "data/Set14_HR.tar.gz"), ("goodfellowliu/Set14", "Set14.zip")),
    "BSD100": (("eugenesiow/BSD100", "data/BSD100_HR.tar.gz"), ("goodfellowliu/BSDS100", "BSDS100.zip")),
    "Urban100": (("eugenesiow/Urban100", "data/Urban100_HR.tar.gz"), ("goodfellowliu/Urban100", "Urban100.zip")),
    "Manga109": (("goodfellowliu/Manga109", "Manga109.zip"),),
    "DIV2K": (("goodfellowliu/DIV2K", "DIV2K_train_HR.zip"),),
    "DIV2K-valid": (("goodfellowliu/DIV2K", "DIV2K_valid_HR.zip"),),
}
"""Repository and file of each set's HR, in the order in which they are tried."""

_ABANDONED_SECONDS = 3600
_HINT = "try again later, or give the set as a folder with --data-dir DIR"


def set_name(name: str) -> str:
    """The set's own spelling of a name in any case. Raises UsageError, listing the sets, for an unknown one."""
    found = {known.casefold(): known for known in SOURCES}.get(name.casefold())
    if found is None:
        hint = f"one of {', '.join(SOURCES)}; any other pictures go with --hr DIR"
        raise UsageError(f'there is no benchmark set "{name}"', hint)
    return found


def fetch_set(name: str, offline: bool = False, on_progress: OnUnpack | None = None) -> Path:
    """The folder of the set's HR pictures, `datasets/NAME/HR` in our cache; where that is, nothing else is looked at.

    Else the archive is fetched, from the next source where the Hub does not give one, and unpacked as a whole or not
    at all. Raises ImageError where no source gives the set or the cache cannot be written, and as `unpack_hr` does.
    """
    sets = cache_dir() / "datasets"
    folder = sets / name
    if not folder.is_dir():
        archive = _fetch_archive(name, offline)
        try:
            sets.mkdir(parents=True, exist_ok=True)
            _drop_abandoned(sets, name)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=sets) as unfinished:
                unpack_hr(archive, Path(unfinished) / name / "HR", on_progress=on_progress)
                (Path(unfinished) / name).rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster
                hint = "free some space, or set DSCLORA_CACHE_DIR to a folder that can be written"
                raise ImageError(f"cannot unpack {name} into {sets}: {error.strerror}", hint) from error
    return folder / "HR"


def _fetch_archive(name: str, offline: bool) -> Path:
    failures = []
    for repo, file in SOURCES[name]:
        try:
            return fetch_dataset_file(repo, file, offline)
        except HubUnavailable as error:
            failures.append(error)
    reasons = "; ".join(error.message for error in failures)
    hint = next((error.hint for error in failures if "--data-dir" in error.hint), _HINT)
    raise ImageError(f"{name} cannot be fetched: {reasons}", hint) from failures[0]


def _drop_abandoned(sets: Path, name: str) -> None:
    """Remove what a killed process left; a folder that still grows belongs to one that lives."""
    for left in sets.glob(f".{name}-*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
