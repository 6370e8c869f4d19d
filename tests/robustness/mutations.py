"""Structure-aware mutations of picture files: parts are edited, and lengths and checksums are right again."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from random import Random

EXTREMES = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
"""Values at the limits of the usual types of integers."""

_CONTAINERS = (b"meta", b"iprp", b"ipco", b"jp2h", b"moov", b"res ", b"asoc")
"""Boxes of ISO base media files that hold boxes; "meta" has four bytes of flags first."""

Chunk = tuple[bytes, bytes]


def mutate(data: bytes, other: bytes, random: Random) -> bytes:
    """Return a file with one to three mutations; `other` is a file to take parts from."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        structured = next((edit for known, edit in _STRUCTURED if known(data)), None)
        if structured and random.random() < 0.7:
            data = structured(data, other, random)
        else:
            data = random.choice(_PLAIN)(data, other, random)
    return data


def _truncate(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _flip(data: bytes, other: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite_integer(data: bytes, other: bytes, random: Random) -> bytes:
    """Write an extreme integer of 1 to 8 bytes, in either order, mostly near the head."""
    size = random.choice((1, 2, 4, 8))
    last = max(1, min(len(data), 128 if random.random() < 0.6 else len(data)) - size)
    at = random.randrange(last)
    return data[:at] + _extreme(size, random) + data[at + size :]


def _extreme(size: int, random: Random) -> bytes:
    return (random.choice(EXTREMES) % 256**size).to_bytes(size, random.choice(("big", "little")))


def _delete(data: bytes, other: bytes, random: Random) -> bytes:
    at, size = random.randrange(len(data) + 1), random.choice((1, 2, 4, 64, 1024))
    return data[:at] + data[at + size :]


def _duplicate(data: bytes, other: bytes, random: Random) -> bytes:
    start, size = random.randrange(len(data) + 1), random.choice((1, 4, 64, 1024))
    at = random.randrange(len(data) + 1)
    return data[:at] + data[start : start + size] + data[at:]


def _zero(data: bytes, other: bytes, random: Random) -> bytes:
    at, size = random.randrange(len(data) + 1), random.choice((4, 64, 512))
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def _splice(data: bytes, other: bytes, random: Random) -> bytes:
    """Continue with the end of another file."""
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _append(data: bytes, other: bytes, random: Random) -> bytes:
    return data + random.choice((random.randbytes(random.choice((1, 64, 4096))), other, data, bytes(4096)))


_PLAIN = (_truncate, _flip, _flip, _overwrite_integer, _overwrite_integer, _delete, _duplicate, _zero, _splice, _append)


def _edit_payload(payload: bytes, random: Random) -> bytes:
    """Change the content of a part: a TIFF inside (EXIF) by its structure, numbers of text, or bytes."""
    at = next((payload.find(head) for head in (b"II*\0", b"MM\0*") if 0 <= payload.find(head) < 12), -1)
    if at >= 0 and random.random() < 0.7:
        return payload[:at] + edit_tiff(payload[at:], b"", random)
    if payload[:1] in (b"<", b"h") and b"=" in payload and random.random() < 0.7:
        return edit_text(payload, random)
    return random.choice((_flip, _overwrite_integer, _truncate, _delete, _duplicate))(payload, b"", random)


def edit_text(data: bytes, random: Random) -> bytes:
    """Change a number, a name, a quotation mark or a bracket of a text: XMP, TOML, the head of a PNM."""
    if data[:1] in (b"{", b"[") and random.random() < 0.6 and (edited := edit_json(data, random)):
        return edited
    kind = random.choice((rb"\d+", rb"\w+", rb"[<>\"'=\[\]{}/]", rb"\s+"))
    found = list(re.finditer(kind, data))
    if not found:
        return _flip(data, b"", random)
    place = random.choice(found)
    number = str(random.choice(EXTREMES) * random.choice((1, -1))).encode()
    new = random.choice(
        (b"", number, b"9" * 5000, b"1e999", b"nan", place[0] * 2, b"\0", b"\xff\xfe", b"<a " * 50, b"'")
    )
    return data[: place.start()] + new + data[place.end() :]


_ODD_VALUES = (
    None,
    True,
    0,
    -1,
    2**64,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "../../x",
    "\udc80",
    [],
    {},
    [[]],
    [{}],
)
"""Values of every type of JSON, in place of values of other types."""


def edit_json(data: bytes, random: Random) -> bytes:
    """Replace, drop or double one value of a JSON text; return nothing for a text that is no JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return b""
    parents: list[dict[str, object] | list[object]] = [document]
    for each in parents:
        children = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        parents += [child for child in children if isinstance(child, dict | list) and child]
    parent = random.choice(parents)
    keys = list(parent) if isinstance(parent, dict) else range(len(parent)) if isinstance(parent, list) else ()
    if not keys:
        return b""
    key, action = random.choice(keys), random.choice(("replace", "replace", "replace", "drop", "many"))
    if action == "drop":
        del parent[key]
    elif action == "many":
        parent[key] = [parent[key]] * 500
    else:
        parent[key] = random.choice(_ODD_VALUES)
    return json.dumps(document).encode()


def _edit_list(parts: list[Chunk], others: list[Chunk], edit: Callable[[Chunk], Chunk], random: Random) -> list[Chunk]:
    """Drop, double, move, borrow or edit one of several named parts."""
    if not parts:
        return parts
    at = random.randrange(len(parts))
    action = random.choice(("edit", "edit", "edit", "edit", "drop", "double", "move", "borrow", "many"))
    if action == "edit":
        return [*parts[:at], edit(parts[at]), *parts[at + 1 :]]
    if action == "drop":
        return [*parts[:at], *parts[at + 1 :]]
    if action == "double":
        return [*parts[:at], parts[at], *parts[at:]]
    if action == "many":
        return [*parts[:at], *[parts[at]] * 300, *parts[at:]]
    moved = parts[at] if action == "move" or not others else random.choice(others)
    rest = [*parts[:at], *parts[at + 1 :]] if action == "move" else parts
    to = random.randrange(len(rest) + 1)
    return [*rest[:to], moved, *rest[to:]]


def _parse_png(data: bytes) -> list[Chunk]:
    chunks, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def edit_png(data: bytes, other: bytes, random: Random) -> bytes:
    """Edit a chunk of a PNG; lengths and checksums are right again."""

    def edit(chunk: Chunk) -> Chunk:
        kind, payload = chunk
        if kind == b"IHDR" and len(payload) >= 13:
            width, height, *rest = struct.unpack(">IIBBBBB", payload[:13])
            fields = [width, height, *rest]
            place = random.randrange(7)
            most = 2**32 if place < 2 else 256
            fields[place] = random.choice((*EXTREMES, 4, 6, 9, 33, 47)) % most
            return kind, struct.pack(">IIBBBBB", *fields)
        if kind in (b"IDAT", b"fdAT", b"zTXt", b"iCCP") and random.random() < 0.5:
            at = {b"IDAT": 0, b"fdAT": 4}.get(kind, payload.find(b"\0") + 2)
            try:
                plain = zlib.decompress(payload[at:])
            except zlib.error:
                plain = payload[at:]
            return kind, payload[:at] + zlib.compress(_edit_payload(plain, random))
        if random.random() < 0.1:
            return bytes(random.choice(b"abcIDATtEXtiCCPeXIfacTLfcTLtRNSPLTE") for _ in range(4)), payload
        return kind, _edit_payload(payload, random)

    others = _parse_png(other) if other.startswith(b"\x89PNG") else []
    chunks = _edit_list(_parse_png(data), others, edit, random)
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return data[:8] + b"".join(packed)


def edit_tiff(data: bytes, other: bytes, random: Random) -> bytes:  # noqa: C901 - one case for each field
    """Edit a directory of a TIFF or of an EXIF block: tag, type, count, value, or the link to the next directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_code, entry, word = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    entry_size, word_size, count_size = (20, 8, 8) if big else (12, 4, 2)
    directories, at = [], struct.unpack_from(order + word, data.ljust(16, b"\0"), 8 if big else 4)[0]
    while 0 < at < len(data) - count_size and len(directories) < 8 and at not in directories:
        directories.append(at)
        (count,) = struct.unpack_from(order + count_code, data, at)
        end = at + count_size + min(count, 999) * entry_size
        at = struct.unpack_from(order + word, data, end)[0] if end + word_size <= len(data) else 0
    if not directories:
        return _flip(data, other, random)
    place = random.choice(directories)
    (count,) = struct.unpack_from(order + count_code, data, place)
    changed = bytearray(data)
    start = place + count_size + random.randrange(max(1, min(count, 999))) * entry_size
    if start + entry_size > len(changed):
        return _flip(data, other, random)
    action = random.choice(("tag", "type", "count", "value", "value", "value", "link", "entries", "payload"))
    values = list(struct.unpack_from(order + entry, changed, start))
    if action == "tag":
        values[0] = random.choice(
            (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 324, 338, 339, 34665, 34675, 347, 700)
        )
    elif action == "type":
        values[1] = random.randrange(20)
    elif action == "count":
        values[2] = random.choice(EXTREMES) % 256**word_size
    elif action == "value":
        values[3] = random.choice((*EXTREMES, values[3] + 1, place, 5, 6, 32773, 34712, 50000)) % 256**word_size
    elif action == "link":
        end = place + count_size + count * entry_size
        if end + word_size <= len(changed):
            target = random.choice((*directories, 8, len(data) - 6, random.randrange(len(data))))
            struct.pack_into(order + word, changed, end, target)
    elif action == "entries":
        struct.pack_into(order + count_code, changed, place, random.choice(EXTREMES) % 256**count_size)
    elif values[3] < len(changed):
        changed[values[3] : values[3] + 8] = random.randbytes(8)
    if action in ("tag", "type", "count", "value"):
        struct.pack_into(order + entry, changed, start, *values)
    return bytes(changed)


def _parse_boxes(data: bytes) -> list[Chunk]:
    boxes, at = [], 0
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        size = size if size >= 8 else len(data) - at
        boxes.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    return boxes


def edit_boxes(data: bytes, other: bytes, random: Random) -> bytes:
    """Edit a box of an AVIF, HEIF, JPEG XL or JPEG 2000; sizes of the boxes around it are right again, mostly."""

    def edit(box: Chunk) -> Chunk:
        kind, payload = box
        if kind in _CONTAINERS and random.random() < 0.8:
            flags = 4 if kind == b"meta" else 0
            return kind, payload[:flags] + edit_boxes(payload[flags:], b"", random)
        if random.random() < 0.1:
            return random.choice((b"mdat", b"free", b"uuid", b"xml ", b"Exif", b"brob", b"colr", b"ipma")), payload
        return kind, _edit_payload(payload, random)

    others = _parse_boxes(other) if other[4:8] in (b"ftyp", b"jP  ", b"JXL ") else []
    boxes = _edit_list(_parse_boxes(data), others, edit, random)
    packed = [struct.pack(">I", len(body) + 8) + kind + body for kind, body in boxes]
    if packed and random.random() < 0.1:  # a size that is wrong: 0 to the end, 1 for a long one, or any
        at = random.randrange(len(packed))
        packed[at] = _extreme(4, random) + packed[at][4:]
    return b"".join(packed)


def edit_jpeg(data: bytes, other: bytes, random: Random) -> bytes:
    """Edit a segment of a JPEG; the length of the segment is right again."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (size,) = struct.unpack_from(">H", data, at + 2)
        segments.append((data[at : at + 2], data[at + 4 : at + 2 + size]))
        at += 2 + size

    def edit(segment: Chunk) -> Chunk:
        kind, payload = segment
        if kind[1] in range(0xC0, 0xC3) and len(payload) > 8:
            place = random.choice((0, 1, 3, 5, 6, 7, 8))
            size = 2 if place in (1, 3) else 1
            return kind, payload[:place] + _extreme(size, random) + payload[place + size :]
        if random.random() < 0.1:
            return bytes(
                (0xFF, random.choice((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)))
            ), payload
        return kind, _edit_payload(payload, random)

    scan = data[at:]
    if random.random() < 0.25:
        scan = random.choice((_flip, _truncate, _overwrite_integer, _zero, _duplicate))(scan, other, random)
    else:
        segments = _edit_list(segments, [], edit, random)
    packed = (kind + struct.pack(">H", (len(body) + 2) % 65536) + body for kind, body in segments)
    return data[:2] + b"".join(packed) + scan


def edit_webp(data: bytes, other: bytes, random: Random) -> bytes:
    """Edit a chunk of a WebP; the sizes of chunk and file are right again."""
    chunks, at = [], 12
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    chunks = _edit_list(chunks, [], lambda chunk: (chunk[0], _edit_payload(chunk[1], random)), random)
    body = b"".join(kind + struct.pack("<I", len(load)) + load + bytes(len(load) % 2) for kind, load in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _edit_head(data: bytes, other: bytes, random: Random) -> bytes:
    """Change a field of a binary head of fixed size (GIF, BMP, TGA)."""
    at, size = random.randrange(min(60, len(data))), random.choice((1, 2, 4))
    return data[:at] + _extreme(size, random) + data[at + size :]


def _edit_text_head(data: bytes, other: bytes, random: Random) -> bytes:
    end = random.choice((24, 64, len(data)))
    return edit_text(data[:end], random) + data[end:]


_STRUCTURED = (
    (lambda data: data.startswith(b"\x89PNG"), edit_png),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), edit_tiff),
    (lambda data: data[4:8] in (b"ftyp", b"jP  ", b"JXL "), edit_boxes),
    (lambda data: data.startswith(b"\xff\xd8"), edit_jpeg),
    (lambda data: data.startswith(b"RIFF"), edit_webp),
    (lambda data: data[:1] == b"P" and data[1:2] in b"1234567fF", _edit_text_head),
    (lambda data: len(data) > 20, _edit_head),
)
