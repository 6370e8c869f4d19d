"""Text chunks of a PNG: texts with and without a language, and metadata hidden in texts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from dsclora_cli.imaging.containers.surplus import list_names
from dsclora_cli.imaging.types import Metadata

TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEY = "XML:com.adobe.xmp"
_RAW_PROFILE = re.compile(r"Raw profile type (iptc|8bim|exif|APP1|xmp|icc|icm)")
_MAX_TEXT = 2**26  # bytes after decompression


class PngTexts:
    """Texts of a file, collected chunk by chunk."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        """Texts by keyword."""
        self._further: list[tuple[str, str]] = []
        """Texts whose keyword was there before."""
        self.languages: list[bytes] = []
        """Contents of the chunks with a language or a translated keyword."""
        self._room = _MAX_TEXT  # for all texts together
        self._lost: list[str] = []

    def add(self, kind: bytes, data: bytes) -> None:
        """Read a text chunk of any kind."""
        key, value = _read_text(kind, data) if self._room > 0 else (data.partition(b"\0")[0].decode("latin-1"), None)
        # A bomb costs time, although no text is left of a bomb.
        self._room -= len(value or "") or (_MAX_TEXT // 16 if len(data) > 1000 else 0)
        if value is None:
            self._lost.append(key)
        elif kind == b"iTXt" and key != XMP_KEY and _states_language(data):
            self.languages.append(data)
        elif key in self._first:
            self._further.append((key, value))
        else:
            self._first[key] = value

    def take_profiles(self) -> dict[str, bytes]:
        """Remove and return blocks found in texts: "exif" or "app1", "iptc" or "8bim", "xmp", "icc" or "icm".

        ImageMagick and ExifTool hide the blocks as hexadecimal digits.
        """
        keys = {match[1].lower(): key for key in self._first if (match := _RAW_PROFILE.fullmatch(key))}
        found = {kind: _decode_hexadecimal(self._first.pop(key)) for kind, key in keys.items()}
        self._lost += [keys[kind] for kind, data in found.items() if not data]
        packet = self._first.pop(XMP_KEY, None)
        return {**found, "xmp": packet.encode()} if packet else found

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Return the remaining texts, empty ones too."""
        self._lost += [key for key, _ in self._further if key == XMP_KEY]
        return tuple((key, value) for key, value in (*self._first.items(), *self._further) if key != XMP_KEY)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for the user about texts without a readable content."""
        names = list_names(f'"{key:.40}"' for key in self._lost)
        return (f"texts that are damaged, double or too long were left out: {names}",) if names else ()


def _read_text(kind: bytes, data: bytes) -> tuple[str, str | None]:
    """Return keyword and text of a text chunk; None for a damaged or unreasonably long text."""
    key, _, rest = data.partition(b"\0")
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        # Behind the keyword: compressed or not, method, language, translated keyword, text.
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    plain = inflate(rest) if packed else rest
    text = None if plain is None else plain.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
    return key.decode("latin-1"), text


def _states_language(data: bytes) -> bool:
    """Return whether an iTXt chunk states a language or a translated keyword."""
    language, _, rest = data.partition(b"\0")[2][2:].partition(b"\0")
    return bool(language or rest.partition(b"\0")[0])


def inflate(data: bytes) -> bytes | None:
    """Return decompressed data; None for damaged data, and for a bomb beyond `_MAX_TEXT`."""
    unpacker: Any = zlib.decompressobj()
    try:
        plain: bytes = unpacker.decompress(data, _MAX_TEXT)
    except zlib.error:
        return None
    return plain if unpacker.eof else None


def _decode_hexadecimal(text: str) -> bytes:
    """Return the bytes of a "Raw profile" text: a name, a length, and hexadecimal digits over many lines."""
    try:
        return bytes.fromhex("".join(text.split()[2:]))
    except ValueError:
        return b""


def text_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the chunks for the texts of a picture."""
    for key, value in metadata.text:
        keyword = key.encode("latin-1", "replace")[:79] or b"Comment"
        try:
            yield b"tEXt", keyword + b"\0" + value.encode("latin-1")
        except UnicodeEncodeError:
            plain = value.encode("utf-8", "surrogateescape")
            # Bytes that are no UTF-8 (in the comment of a JPEG) are Latin-1 most often, and any byte is Latin-1.
            known = plain.decode("utf-8", "ignore").encode() == plain
            kind, between = (b"iTXt", b"\0\0\0\0\0") if known else (b"tEXt", b"\0")
            yield kind, keyword + between + plain
    for data in metadata.language_texts:
        yield b"iTXt", data
