"""Animations that end too early: cut behind the last whole frame, so that decoders show the frames that are there.

A GIF does not say how many frames follow, and decoders take the end of a file for the end of the animation. Only the
end marker tells a whole GIF.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass

from dsclora_cli.imaging.codecs.coded_tail import missing_bytes, webp_chunks

_NO_CHUNK = bytes(4)
_PNG_HEAD = 8
_GIF_HEAD = 13
_BLOCK = re.compile(rb"[\x21\x2c\x3b]")
_EXTENSION, _PICTURE, _TRAILER = b"\x21", b"\x2c", b"\x3b"
_CONTROL, _APPLICATION = b"\xf9", b"\xff"
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


@dataclass(frozen=True)
class WholeFrames:
    """The part of an animation that is there."""

    data: bytes
    """File that ends behind the last whole frame."""

    frames: int
    """Number of whole frames; 0 where decoders would fill the first frame without a message."""


def whole_frames(data: bytes, name: str) -> WholeFrames | None:
    """Return the whole frames of an animation that ends too early.

    Args:
        data: A file of format `name`. Only GIF, PNG and WEBP are looked at.
        name: Pillow name of the format.

    Returns:
        None for a whole file, for a file that is no animation, and where decoders refuse the first frame.
    """
    found = {"GIF": _whole_gif, "PNG": _whole_apng, "WEBP": _whole_webp}.get(name)
    return found(data) if found else None


@dataclass
class _Gif:
    """What a walk over the blocks of a GIF has found."""

    frames: int = 0
    animated: bool = False
    """Whether more frames are to be expected: a loop, a duration, or the start of a second frame."""

    end: int = 0
    """Offset behind the last whole frame."""


def _whole_gif(data: bytes) -> WholeFrames | None:
    found, at = _Gif(), _GIF_HEAD + _color_table(data[10:11])
    there = len(data.rstrip(b"\0"))
    # Decoders pass over other bytes between blocks.
    while block := _BLOCK.search(data, at):
        if block[0] == _TRAILER:
            return None
        start, at = block.end(), _end_of_block(data, block)
        found.animated |= _tells_animation(data, start, block[0], found.frames)
        if at < 0:
            break
        if block[0] == _PICTURE:
            # Behind the last byte that is there, one zero ends the picture; others are a reserved place.
            if at > there + 1:
                return WholeFrames(data[: found.end] + _TRAILER, found.frames)
            found.frames, found.end = found.frames + 1, at
    # Many old programs leave the end marker out of a still.
    return WholeFrames(data[: found.end] + _TRAILER, found.frames) if found.animated and found.frames else None


def _color_table(flags: bytes) -> int:
    """Return the bytes of the color table that the flags of a GIF or of a frame announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _end_of_block(data: bytes, block: re.Match[bytes]) -> int:
    """Return the offset behind a block of a GIF, -1 for a block that is cut off."""
    at = block.end()
    # Of a picture, place and size, colors, and the size of a code come before the data.
    at += 9 + _color_table(data[at + 8 : at + 9]) + 1 if block[0] == _PICTURE else 1
    while at < len(data):
        if not data[at]:
            return at + 1
        at += data[at] + 1
    return -1


def _tells_animation(data: bytes, start: int, kind: bytes, frames: int) -> bool:
    """Return whether a block of a GIF that begins at `start` belongs to an animation."""
    if kind == _PICTURE:
        return frames > 0
    label, content = data[start : start + 1], data[start + 2 : start + 13]
    if label == _CONTROL:
        return content[1:3].strip(b"\0") != b""  # the duration
    return label == _APPLICATION and content in _LOOPS


def _whole_apng(data: bytes) -> WholeFrames | None:
    at, kept, ends = _PNG_HEAD, {b"IEND": b""}, [0]
    pixels = False
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + size]
        if len(chunk) < 12 + size or struct.pack(">I", zlib.crc32(chunk[4:-4])) != chunk[-4:]:
            break
        # A frame is whole where the next one begins, or the end of the file.
        if kind in (b"fcTL", b"IEND") and pixels and b"fcTL" in kept:
            ends.append(at)
        pixels = kind in (b"IDAT", b"fdAT") or (pixels and kind != b"fcTL")
        kept.setdefault(kind, chunk)
        at += len(chunk)
    control = kept.get(b"acTL", b"")
    frames = len(ends) - 1
    if not control or not frames or frames >= struct.unpack_from(">I", control, 8)[0]:
        return None
    shorter = struct.pack(">I4sI", 8, b"acTL", frames) + control[12:16]
    shorter += struct.pack(">I", zlib.crc32(shorter[4:]))
    end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
    return WholeFrames(data[: ends[-1]].replace(control, shorter, 1) + end, frames)


def _whole_webp(data: bytes) -> WholeFrames | None:
    frames, end = 0, 0
    whole = 8 + int.from_bytes(data[4:8], "little") <= len(data)
    for kind, start, length in webp_chunks(io.BytesIO(data)):
        if kind == _NO_CHUNK:
            whole = False
            break
        if kind == b"ANMF":
            part = data[start : start + length]
            width, height = (int.from_bytes(part[at : at + 3], "little") + 1 for at in (6, 9))
            if missing_bytes(part, length, "WEBP", width * height):
                whole = False
                break
            frames, end = frames + 1, start + length + length % 2
    if whole or not frames:
        return None
    return WholeFrames(b"RIFF" + struct.pack("<I", end - 8) + data[8:end].ljust(end - 8, b"\0"), frames)
