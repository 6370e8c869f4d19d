"""AVIF: estimate the quality that a lossy file was saved with, from the quantizer of the picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

import numpy as np

from dsclora_cli.imaging.codecs.av1 import Quantizer, read_quantizer
from dsclora_cli.imaging.isobmff import (
    Box,
    iter_boxes,
    iter_item_parts,
    iter_items,
    primary_item,
    read_meta,
    read_properties,
)

# Pairs of tables between which numbers are interpolated: of libaom, from `base_q_idx` to the level of the quantizer
# (`quantizer_to_qindex`, av1/encoder/av1_quantize.c); of libavif, from the level to the quality (src/codec_aom.c).
_LEVELS = (0, 244, 249, 255), (0, 61, 62, 63)
_QUALITIES = (0, 63), (100, 0)
_IQ_QUALITIES = (1, 35, 50, 61, 63), (99, 54, 28.5, 6.5, 1)
_PICTURE_ENTRY = 78  # bytes of the description of a track before the inner boxes
_MOST = 1024  # bytes of a configuration that are looked at
_MAX_BOXES = 64  # in a box of a movie; a file of empty boxes in boxes would take minutes


def estimate_avif_quality(file: BinaryIO) -> int | None:
    """Return the quality of libavif, 0 to 100, whose quantizer comes nearest to the quantizer of a file.

    libavif has two tables of quantizers, and the newer table goes with the option tune=iq of libaom: the default for
    stills since libavif 1.4. For stills of libaom, by libavif, libheif and FFmpeg, the estimate was at most 1 below
    and 1 above; for the first frame of animations up to 7 off, because the quantizer of a key frame depends on the
    frames that follow. Other encoders use finer quantizers than the quality says: rav1e 0.5 up to 9 above, SVT-AV1 1.4
    up to 35 above.

    Returns:
        The quality; None for a lossless file, for a picture in several layers, and for headers that cannot be read.
    """
    picture = _primary_picture(file) or _first_sample(file)
    try:
        quantizer = read_quantizer(file, picture.start, picture.length, picture.configuration) if picture else None
    except (EOFError, ValueError):
        return None
    return _to_quality(quantizer) if quantizer and quantizer.index else None


def _to_quality(quantizer: Quantizer) -> int:
    """Return the quality in the middle of the qualities that libavif writes with a quantizer."""
    level = np.interp(quantizer.index, *_LEVELS)
    return round(float(np.interp(level, *(_IQ_QUALITIES if quantizer.has_iq_tools else _QUALITIES))))


@dataclass(frozen=True)
class _CodedPicture:
    start: int
    """Offset in the file."""

    length: int
    """Bytes, as the file states."""

    configuration: bytes
    """Content of the "av1C" box; empty without the box."""


def _primary_picture(file: BinaryIO) -> _CodedPicture | None:
    """Return the primary picture; of a grid, the first tile."""
    meta = read_meta(file)
    item, kinds = primary_item(file, meta), dict(iter_items(file, meta))
    if kinds.get(item) == b"grid":
        item = _first_tile(file, meta, item)
    parts = [part for part in iter_item_parts(file, meta) if part.item == item]
    # Several parts are several layers, of which the first is coarser than the picture that readers show.
    if kinds.get(item) != b"av01" or len(parts) != 1:
        return None
    properties, _ = read_properties(file, item)
    configuration = next((data for kind, data in properties if kind == b"av1C"), b"")
    return _CodedPicture(parts[0].start, parts[0].length, configuration)


def _first_tile(file: BinaryIO, meta: Mapping[bytes, Box], grid: int) -> int:
    """Return the number of the first item of a grid (ISO/IEC 14496-12, "iref"), 0 where none is stated."""
    if b"iref" not in meta:
        return 0
    box = meta[b"iref"]
    wide = 4 if _head(file, box, 1) == b"\1" else 2
    for reference in iter_boxes(file, box.start + 4, box.end):
        entry = _head(file, reference, 2 * wide + 2)
        if reference.kind == b"dimg" and int.from_bytes(entry[:wide], "big") == grid:
            return int.from_bytes(entry[wide + 2 :], "big")  # behind the number of references
    return 0


def _first_sample(file: BinaryIO) -> _CodedPicture | None:
    """Return the first sample of the first track of pictures."""
    movie = next((box for box in iter_boxes(file) if box.kind == b"moov"), None)
    for track in _first_boxes(file, movie) if movie else ():
        media = _boxes_in(file, track, b"mdia")
        # Transparency has a track of its own, with another handler.
        if b"hdlr" not in media or _head(file, media[b"hdlr"], 12)[8:] != b"pict":
            continue
        table = _boxes_in(file, media.get(b"minf"), b"stbl")
        if {b"stsd", b"stsz"} <= set(table) and (b"stco" in table or b"co64" in table):
            return _read_sample(file, table)
    return None


def _boxes_in(file: BinaryIO, box: Box | None, kind: bytes) -> dict[bytes, Box]:
    """Return the boxes inside the box `kind` inside a box, by kind."""
    inner = next((each for each in _first_boxes(file, box) if each.kind == kind), None) if box else None
    return {each.kind: each for each in _first_boxes(file, inner)} if inner else {}


def _first_boxes(file: BinaryIO, box: Box) -> Iterator[Box]:
    return islice(iter_boxes(file, box.start, box.end), _MAX_BOXES)


def _read_sample(file: BinaryIO, table: Mapping[bytes, Box]) -> _CodedPicture | None:
    """Return the first sample of a table of samples (ISO/IEC 14496-12, "stbl"); None for other pictures than AV1."""
    entry = next(iter_boxes(file, table[b"stsd"].start + 8, table[b"stsd"].end), None)
    if entry is None or entry.kind != b"av01":
        return None
    inner = iter_boxes(file, entry.start + _PICTURE_ENTRY, entry.end)
    configuration = next((_head(file, box, _MOST) for box in inner if box.kind == b"av1C"), b"")
    # Behind version, flags and the number of entries; of sizes, a size of all samples comes before the number.
    place = _head(file, table[b"stco"], 12)[8:] if b"stco" in table else _head(file, table[b"co64"], 16)[8:]
    sizes = _head(file, table[b"stsz"], 16)
    length = int.from_bytes(sizes[4:8], "big") or int.from_bytes(sizes[12:], "big")
    return _CodedPicture(int.from_bytes(place, "big"), length, configuration)


def _head(file: BinaryIO, box: Box, most: int) -> bytes:
    """Return the first bytes of a box, at most `most`."""
    file.seek(box.start)
    return file.read(min(most, box.end - box.start))
