"""Small picture files of every format and of the uncommon kinds of each format, to mutate."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache

import numpy as np
import tifffile
from pictures import animation, cmyk_profile, everything, header_of, noise, pillow_file, saved, saved_still, smooth
from PIL import Image

from dsclora_cli.errors import DscloraError
from dsclora_cli.imaging.formats import FORMATS

SIZE = (24, 32)
"""Rows and columns of most files."""


@cache
def picture_files() -> dict[str, bytes]:
    """Return files by name; the suffix of a name is that of the format. Formats without a package are left out."""
    files: dict[str, bytes] = {}
    for group in (_own(), _tiffs(), _pillows(), _others()):
        files |= dict(group)
    return files


def _own() -> Iterator[tuple[str, bytes]]:
    """Yield files of our own encoders: every format, depth and number of channels, and animations and pages."""
    for name, abilities in FORMATS.items():
        suffix = abilities.suffixes[0]
        for channels in abilities.channels:
            for depth in abilities.depths:
                pixels = smooth(channels, SIZE) if depth == "uint8" else noise(channels, np.dtype(depth).type, SIZE)
                try:
                    yield f"own-{channels}-{depth}{suffix}", saved_still(pixels, name, everything(6))
                except DscloraError:  # the package of the format is absent
                    break
        if abilities.frames != "one":
            frames, _ = animation()
            timed = abilities.frames == "timed"
            header = header_of(frames[0].pixels, name, everything(), frames=len(frames), animated=timed, loop=0)
            yield f"own-frames{suffix}", saved(header, frames)


def _tiffs() -> Iterator[tuple[str, bytes]]:
    """Yield TIFF files of every compression, layout and order of bytes."""
    pixels = smooth(3, (48, 48))
    layouts = {"strips": {"rowsperstrip": 16}, "tiles": {"tile": (16, 16)}, "planes": {"planarconfig": "separate"}}
    packed = ("zlib", "lzw", "packbits", "lzma", "jpeg", "webp", "jpeg2000", "zstd")
    options = {
        **{f"{name}-{kind}": {"compression": name, **layouts[kind]} for name in packed for kind in ("strips", "tiles")},
        **{f"plain-{kind}": layout for kind, layout in layouts.items()},
        "predictor": {"compression": "zlib", "predictor": True},
        "big": {"bigtiff": True, "compression": "zlib"},
        "motorola": {"byteorder": ">"},
    }
    for name, more in options.items():
        yield f"tiff-{name}.tif", _tiff(pixels, photometric="rgb", **more)
    yield "tiff-16.tif", _tiff(noise(1, np.uint16, SIZE)[..., 0], compression="zlib", predictor=True)
    yield "tiff-float.tif", _tiff(noise(3, np.float32, SIZE), photometric="rgb", compression="zlib", predictor=True)
    yield "tiff-bilevel.tif", pillow_file(Image.fromarray(pixels[..., 0] > 90), "TIFF", compression="group4")
    yield "tiff-palette.tif", pillow_file(Image.fromarray(pixels).convert("P"), "TIFF", compression="tiff_lzw")
    yield "tiff-cmyk.tif", pillow_file(Image.fromarray(pixels).convert("CMYK"), "TIFF", icc_profile=cmyk_profile())
    yield "tiff-lab.tif", pillow_file(Image.new("LAB", (24, 16), (120, 5, 250)), "TIFF")
    yield "tiff-ycbcr.tif", pillow_file(Image.fromarray(pixels).convert("YCbCr"), "TIFF")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for size in (32, 16, 8):
            writer.write(smooth(3, (size, size)), photometric="rgb", subfiletype=0 if size == 32 else 1)
    yield "tiff-pages.tif", buffer.getvalue()


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


def _pillows() -> Iterator[tuple[str, bytes]]:
    """Yield kinds of files that our own encoders do not write, written by Pillow."""
    picture = Image.fromarray(smooth(3, SIZE))
    gray, palette = picture.convert("L"), picture.convert("P")
    yield "p-palette.png", pillow_file(palette, "PNG", transparency=3)
    yield "p-bilevel.png", pillow_file(gray.convert("1"), "PNG")
    yield "p-interlaced.png", _interlaced()
    yield "p-progressive.jpg", pillow_file(picture, "JPEG", progressive=True, quality=80)
    yield "p-restarts.jpg", pillow_file(picture, "JPEG", restart_marker_blocks=1, subsampling=0)
    yield "p-cmyk.jpg", pillow_file(picture.convert("CMYK"), "JPEG", icc_profile=cmyk_profile())
    yield "p-gray.jpg", pillow_file(gray, "JPEG", quality=30)
    yield "p-lossless.webp", pillow_file(picture.convert("RGBA"), "WEBP", lossless=True)
    yield "p-lossy.webp", pillow_file(picture, "WEBP", quality=40)
    yield "p-plain.gif", pillow_file(palette, "GIF", interlace=0)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"p-{mode}.bmp", pillow_file(picture.convert(mode), "BMP")
    for mode in ("L", "P", "RGB", "RGBA", "LA"):
        for packing in (None, "tga_rle"):
            yield f"p-{mode}-{packing}.tga", pillow_file(picture.convert(mode), "TGA", compression=packing)
    yield "p-codestream.j2k", pillow_file(picture, "JPEG2000", no_jp2=True)
    yield "p-lossy.jp2", pillow_file(picture, "JPEG2000", irreversible=True, quality_layers=[20])
    yield "p-bilevel.pbm", pillow_file(gray.convert("1"), "PPM")


def _interlaced() -> bytes:
    """Return an interlaced PNG: the passes of Adam7, rows without filters."""
    import zlib

    pixels = smooth(3, (8, 8))
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = (pixels[top::down, left::across] for top, left, down, across in steps)
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part if row.size)
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _others() -> Iterator[tuple[str, bytes]]:
    """Yield text forms of PNM, PFM, RLE bitmaps and JPEG XL files that other programs write."""
    values = " ".join(str(value) for value in smooth(3, (6, 8)).reshape(-1))
    yield "text.ppm", f"P3\n# a comment\n8 6\n255\n{values}\n".encode()
    yield "text.pgm", b"P2 4 2 70\n0 10 20 30\n40 50 60 70\n"
    yield "text.pbm", b"P1\n4 2\n0 1 0 1\n1010\n"
    yield "deep.pgm", b"P5 8 6 1023\n" + noise(1, np.uint16, (6, 8)).astype(">u2").tobytes()
    yield "odd.ppm", b"P6 8 6 70 " + bytes(range(71)) * 2 + bytes(2)
    yield "floats.pfm", b"PF\n8 6\n-1.0\n" + noise(3, np.float32, (6, 8)).tobytes()
    rle = b"".join(b"\x08" + bytes((row,)) + b"\0\0" for row in range(8)) + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(rle), 2835, 2835, 256, 0)
    palette = b"".join(bytes((value, 255 - value, 90, 0)) for value in range(256))
    yield "rle.bmp", struct.pack("<2sIHHI", b"BM", 54 + 1024 + len(rle), 0, 0, 54 + 1024) + head + palette + rle
    with Image.new("RGB", (8, 6), (10, 90, 200)) as first:
        second = Image.new("RGB", (8, 6), (250, 90, 20))
        yield "p-timed.webp", pillow_file(first, "WEBP", save_all=True, append_images=[second], duration=90)
        yield "p-timed.png", pillow_file(first, "PNG", save_all=True, append_images=[second], duration=90)
        yield "p-timed.gif", pillow_file(first, "GIF", save_all=True, append_images=[second], duration=90)
