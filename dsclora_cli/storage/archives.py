"""Open ZIP archives of strangers: the list of entries and each entry are checked before memory or disk is spent."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.storage.places import RemotePlace

ARCHIVES = frozenset({"zip"})
"""Schemes of the places that this module opens."""

REFUSED = frozenset({"tar", "libarchive"})
"""Schemes of archives that nothing is read from: fsspec unpacks them without a limit on memory, disk and time."""

_MOST_NAMES = 16 * 2**20
"""Bytes of the longest list of entries. Python takes some 30 times as many to hold the list."""

_SMALL = 64 * 2**20
"""Bytes up to which an entry may have any ratio: pictures without compression, of one color, pack a thousand times."""

_RATIO = 100
"""Most bytes of a larger entry for each packed byte."""

_DEPTH = 100
"""Most folders around an entry."""

_SIGNS = (b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06")
"""First bytes of the end of an archive, of the locator of the long form of the end, and of the long form."""

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_LONGEST_END = _END64.size + _LOCATOR64.size + _END.size + 2**16
"""Most bytes at the end of an archive in which zipfile looks: a comment of up to 64 KiB comes last."""

_UNPACK = "unpack the archive, and name the folder"


def check_names(archive: IO[bytes], place: RemotePlace) -> None:
    """Raise ImageUnreadable for an archive whose list of entries takes too much memory.

    Whatever is no archive passes: the reader of archives says what is wrong.
    """
    listed = _listed_bytes(archive)
    archive.seek(0)
    if listed > _MOST_NAMES:
        message = f"the archive lists entries in {listed >> 20} MiB, and {_MOST_NAMES >> 20} MiB are read at most"
        raise ImageUnreadable(f"{place}: {message}", _UNPACK)


def _listed_bytes(archive: IO[bytes]) -> int:
    """Return the bytes of the list of entries as stated at the end of an archive; 0 for no archive.

    Versions of zipfile look in different places, so the largest number of all places counts.
    """
    size = archive.seek(0, os.SEEK_END)
    tail = _read_at(archive, max(0, size - _LONGEST_END), _LONGEST_END)
    # A comment may hold a second end, and so may the numbers of the end itself.
    is_last = tail[-_END.size :].startswith(_SIGNS[0]) and tail.endswith(b"\0\0")
    at = len(tail) - _END.size if is_last else tail.rfind(_SIGNS[0])
    if at < 0 or len(tail) - at < _END.size:
        return 0
    listed: int = _END.unpack_from(tail, at)[5]
    locator = at - _LOCATOR64.size
    if locator < 0 or not tail.startswith(_SIGNS[1], locator):
        return listed
    # zipfile has read the long form right before the locator, and since 2025 first where the locator points.
    before = _listed_in_long_form(tail[max(0, locator - _END64.size) : locator])
    pointed = _LOCATOR64.unpack_from(tail, locator)[2]
    there = _listed_in_long_form(_read_at(archive, pointed, _END64.size) if pointed < size else b"")
    return max(listed if before is None else before, there or 0)


def _read_at(archive: IO[bytes], at: int, size: int) -> bytes:
    archive.seek(at)
    return archive.read(size)


def _listed_in_long_form(data: bytes) -> int | None:
    """Return the bytes of the list of entries by the long form of the end; None for other bytes."""
    if len(data) < _END64.size or not data.startswith(_SIGNS[2]):
        return None
    listed: int = _END64.unpack(data)[8]
    return listed


def check_folders(names: Iterable[str], place: RemotePlace) -> None:
    """Raise ImageUnreadable for an archive with names of folders that take much more memory than the list of entries.

    fsspec makes a name for each folder above each entry.
    """
    folders = {name.rpartition("/")[0] for name in names}
    reason = ""
    if max((folder.count("/") for folder in folders), default=0) > _DEPTH:
        reason = "are nested too deep"
    elif sum(len(folder) * folder.count("/") for folder in folders) > _MOST_NAMES:
        reason = f"have names of more than {_MOST_NAMES >> 20} MiB"
    if reason:
        raise ImageUnreadable(f"{place}: the folders in the archive {reason}", _UNPACK)


def check_entry(facts: Mapping[str, Any], place: RemotePlace) -> None:
    """Raise ImageUnreadable for an entry that is encrypted, that is packed in an odd way, or that is a bomb.

    Args:
        facts: Description of the entry by fsspec, with the fields of `zipfile.ZipInfo`; folders have no such fields.
        place: Place of the entry.
    """
    reason = ""
    packed, size = facts.get("compress_size") or 0, facts.get("size") or 0
    if (facts.get("flag_bits") or 0) & 0x1:
        reason = "is encrypted"
    # zipfile unpacks a block of other methods as a whole, to gigabytes where a stranger wants that.
    elif (facts.get("compress_type") or 0) not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        reason = "is packed by another method than deflate"
    elif size > max(_SMALL, _RATIO * packed):
        reason = f"unpacks to {size >> 20} MiB, more than {_RATIO} times its size in the archive"
    if reason:
        raise ImageUnreadable(f"{place}: {reason}", _UNPACK)
