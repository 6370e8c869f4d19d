"""Pixels, picture files, EXIF blocks and profiles, made by code so that the repository holds no binary files."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image

from dsclora_cli.config import SaveOptions
from dsclora_cli.imaging.profiles import srgb_profile
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.tiff_ifd import EXIF_IFD, LONG, SHORT, Entry, pack_exif, parse_exif, read_integers
from dsclora_cli.imaging.types import Frame, Header, Metadata, Pixels
from dsclora_cli.imaging.writer import fit_format, write_picture

WIDTH, HEIGHT = 47, 33
NOTHING = Metadata()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" tiff:ImageWidth="33" '
    b"exif:PixelXDimension='33'><tiff:ImageLength>47</tiff:ImageLength><dc:title>caf\xc3\xa9</dc:title>"
    b"<xmp:Thumbnails><rdf:Alt>AAAA</rdf:Alt></xmp:Thumbnails></rdf:Description></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x78\x00\x05hello\x1c\x02\x19\x00\x03key"
MAKER_NOTE = b"Maker\0" + bytes(range(64))
THUMBNAIL = b"\xff\xd8thumbnail of the old picture\xff\xd9"


def noise(channels: int, dtype: type[np.generic] = np.uint8, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    """Return random pixels `(H, W, channels)` over the full range of `dtype`; `size` is `(H, W)`."""
    values = np.random.default_rng(channels).random((*size, channels))
    return values.astype(np.float32) if dtype is np.float32 else np.rint(values * np.iinfo(dtype).max).astype(dtype)


def smooth(channels: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    """Return smooth 8-bit pixels `(H, W, channels)`, different in each corner, kept well by lossy codecs."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    planes = [rows * 5, columns * 4, 255 - rows * 3, 255 - columns]
    return np.stack(planes[:channels], axis=2).clip(0, 255).astype(np.uint8)


def header_of(pixels: Pixels, format: str, metadata: Metadata = NOTHING, **fields) -> Header:
    """Return a header that describes `pixels`."""
    height, width, channels = pixels.shape
    return Header(format, width, height, channels, pixels.dtype, metadata=metadata, **fields)


def saved(header: Header, frames: Iterable[Frame], format: str | None = None, **options) -> bytes:
    """Return the file that `write_picture` makes of the frames, after `fit_format`."""
    fitted, _ = fit_format(header, format or header.format, strict=False)
    buffer = io.BytesIO()
    write_picture(buffer, fitted, frames, SaveOptions(**options))
    return buffer.getvalue()


def saved_still(pixels: Pixels, format: str, carried: Metadata = NOTHING, **options) -> bytes:
    """Return a file with a single frame."""
    return saved(header_of(pixels, format, carried), [Frame(pixels)], **options)


def read(data: bytes) -> tuple[Header, list[Frame]]:
    """Return the header and all frames of a file."""
    with open_picture(data) as reader:
        return reader.header, list(reader.frames())


def read_still(data: bytes) -> tuple[Header, Pixels]:
    """Return the header and the pixels of a file with a single frame."""
    header, frames = read(data)
    assert len(frames) == header.frames == 1 and not header.animated
    return header, frames[0].pixels


def pillow_file(image: Image.Image, format: str, **options) -> bytes:
    """Return a file written by Pillow alone."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_block(orientation: int = 1, order: str = "<", width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Return EXIF as a camera writes it: maker note, GPS, interoperability, and a thumbnail at the end."""
    short, long_ = (lambda value: struct.pack(order + "HH", value, 0)), (lambda value: struct.pack(order + "I", value))
    ifd0, exif, interop, gps, ifd1 = 8, 200, 300, 400, 500
    maker, thumbnail = 600, 700
    directories = {
        ifd0: (
            [
                (271, 2, 4, b"Cam\0"),
                (274, 3, 1, short(orientation)),
                (34665, 4, 1, long_(exif)),
                (34853, 4, 1, long_(gps)),
            ],
            ifd1,
        ),
        exif: (
            [
                (37500, 7, len(MAKER_NOTE), long_(maker)),
                (40962, 3, 1, short(width)),
                (40963, 4, 1, long_(height)),
                (40965, 4, 1, long_(interop)),
            ],
            0,
        ),
        interop: ([(1, 2, 4, b"R98\0")], 0),
        gps: ([(1, 2, 2, b"N\0\0\0")], 0),
        ifd1: ([(256, 3, 1, short(160)), (513, 4, 1, long_(thumbnail)), (514, 4, 1, long_(len(THUMBNAIL)))], 0),
    }
    block = bytearray(thumbnail) + THUMBNAIL
    block[:8] = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, ifd0)
    block[maker : maker + len(MAKER_NOTE)] = MAKER_NOTE
    for at, (entries, following) in directories.items():
        body = struct.pack(order + "H", len(entries))
        body += b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
        body += struct.pack(order + "I", following)
        block[at : at + len(body)] = body
    return bytes(block)


def marked(orientation: int) -> tuple[Pixels, Metadata]:
    """Return a dark picture with a light spot, and metadata that state the place of the spot in the stored picture."""
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[6:14, 60:80] = 255
    area = Entry(SHORT, struct.pack("<4H", 70, 10, 20, 8))
    turned = Entry(SHORT, struct.pack("<H", orientation))
    exif = pack_exif({274: turned, EXIF_IFD: Entry(LONG, bytes(4), sub={37396: area})}, "<")
    region = 'stArea:x="0.7" stArea:y="0.166667" stArea:w="0.2" stArea:h="0.133333"'
    size = '<mwg-rs:AppliedToDimensions stDim:w="100" stDim:h="60"/>'
    return pixels, Metadata(exif=exif, xmp=f"<x:xmpmeta>{size}<mwg-rs:Area {region}/></x:xmpmeta>".encode())


def assert_marks_the_spot(header: Header, pixels: Pixels) -> None:
    """Check that the metadata of a picture of `marked` state where the light spot is."""
    rows, columns = np.nonzero(pixels[..., 0] > 127)
    sides = np.array([header.width, header.height])
    corners = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    center, extent = corners.mean(axis=0), corners[1] - corners[0]
    _, first = parse_exif(header.metadata.exif)
    area = read_integers(first.entries[EXIF_IFD].sub[37396], "<")
    np.testing.assert_allclose(area, [*center, *extent], atol=1)
    numbers = [float(number) for number in re.findall(rb'="([0-9.]+)"', header.metadata.xmp)]
    np.testing.assert_allclose(numbers, [*sides, *center / sides, *extent / sides], atol=0.02)


def everything(orientation: int = 1) -> Metadata:
    """Return metadata with every block."""
    return Metadata(
        icc=rgb_profile(),
        exif=exif_block(orientation),
        xmp=XMP,
        iptc=IPTC,
        dpi=(300.0, 150.0),
        text=(("comment", "grüße"), ("parameters", "steps 20 \u2603")),
    )


def rgb_profile() -> bytes:
    """Return a valid RGB profile that no encoder adds by itself: sRGB with another rendering intent."""
    profile = srgb_profile()
    return profile[:64] + struct.pack(">I", 1) + profile[68:]


@cache
def gray_profile() -> bytes:
    """Return a valid profile of gray pixels. Profiles hold the second of their making, so the profile is made once."""
    import imagecodecs

    return bytes(imagecodecs.cms_profile("gray", whitepoint=(0.3127, 0.329, 1.0), gamma=1.8))


def cmyk_profile() -> bytes:
    """Return a CMYK profile that is far from the plain formula: a table of Lab for 16 inks, cyan prints dark red."""
    inks = np.array([[-20, 30, 20], [-35, 60, 0], [-10, 0, 80], [-70, 0, 0]], float)
    table = bytearray()
    for cyan, magenta, yellow, black in np.ndindex(2, 2, 2, 2):
        lab = np.array([100.0, 0, 0]) + np.array([cyan, magenta, yellow, black]) @ inks
        table += bytes(int(v) for v in np.clip([lab[0] * 2.55, lab[1] + 128, lab[2] + 128], 0, 255))
    matrix = struct.pack(">9i", *(65536 if at % 4 == 0 else 0 for at in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + bytes(table) + ramp * 3
    text = b"text\0\0\0\0tiny press\0\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", 11) + b"tiny press\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": described, b"cprt": text, b"wtpt": white, b"A2B0": lut}
    at, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        index += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def animation(channels: int = 4, count: int = 4) -> tuple[list[Frame], tuple[float, ...]]:
    """Return frames with a square that moves over a picture (or over transparency), and their durations in ms."""
    times = (100.0, 200.0, 50.0, 400.0)[:count]
    frames = []
    for number, time in enumerate(times):
        pixels = np.zeros((HEIGHT, WIDTH, channels), np.uint8)
        if channels != 4:
            pixels[:] = 40
        pixels[5:20, 5 * number + 3 : 5 * number + 12] = (250, 60 * number, 10, 255)[:channels]
        frames.append(Frame(pixels, time))
    return frames, times


def upscaled(header: Header, frames: Iterable[Frame], factor: int) -> tuple[Header, list[Frame]]:
    """Return header and frames enlarged by repeating pixels, which keeps colors exactly."""
    grown = [replace(frame, pixels=frame.pixels.repeat(factor, 0).repeat(factor, 1)) for frame in frames]
    return replace(header, width=header.width * factor, height=header.height * factor), grown
