"""PNG: interlaced pictures of every depth, and the frames of an APNG as a viewer shows them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import read, read_still, smooth
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs import png

PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def rows_of(samples: np.ndarray, depth: int) -> bytes:
    """Return samples `(h, w, C)` as rows of a PNG without a filter."""
    lines = samples.reshape(len(samples), -1)
    if depth >= 8:
        return b"".join(b"\0" + line.astype(">u2" if depth == 16 else np.uint8).tobytes() for line in lines)
    bits = (lines[..., None] >> np.arange(depth - 1, -1, -1) & 1).astype(np.uint8).reshape(len(lines), -1)
    return b"".join(b"\0" + line.tobytes() for line in np.packbits(bits, axis=1))


def png_file(samples: np.ndarray, depth: int, kind: int, interlaced: bool, *chunks: bytes) -> bytes:
    """Return a PNG of samples `(H, W, C)`."""
    height, width, _ = samples.shape
    parts = [samples[top::down, left::across] for top, left, down, across in PASSES] if interlaced else [samples]
    raw = b"".join(rows_of(part, depth) for part in parts if part.size)
    head = png.make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))
    body = png.make_chunk(b"IDAT", zlib.compress(raw))
    return png.SIGNATURE + head + b"".join(chunks) + body + png.make_chunk(b"IEND", b"")


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize(
    ("kind", "depth"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 4), (3, 8), (4, 8), (6, 16)],
)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (17, 23)])
def test_an_interlaced_picture_is_the_picture_without_interlacing(size, kind, depth, hole, capfd):
    samples = np.random.default_rng(depth).integers(0, 2**depth, (*size, SAMPLES[kind]))
    chunks = [png.make_chunk(b"PLTE", bytes(range(3)) * 2**depth)] if kind == 3 else []
    if hole and kind in (0, 2, 3):
        plain = samples[0, 0].astype(">u2").tobytes()
        chunks.append(png.make_chunk(b"tRNS", bytes(2**depth) if kind == 3 else plain))
    header, pixels = read_still(png_file(samples, depth, kind, True, *chunks))
    expected, right = read_still(png_file(samples, depth, kind, False, *chunks))
    assert header == expected
    np.testing.assert_array_equal(pixels, right)
    assert not any(capfd.readouterr())


def test_an_interlaced_picture_that_ends_early_is_an_error():
    whole = png_file(smooth(), 8, 2, True)
    start = whole.index(b"IDAT")
    raw = zlib.decompress(whole[start + 4 : -16])[:-100]
    with pytest.raises(ImageError, match="truncated"):
        read_still(whole[: start - 4] + png.make_chunk(b"IDAT", zlib.compress(raw)) + whole[-12:])


def apng(*frames: tuple[np.ndarray, int, int, int, int]) -> bytes:
    """Return an APNG of frames: pixels, left, top, disposal and blending."""
    height, width, _ = frames[0][0].shape
    out = png.SIGNATURE + png.header_chunk(frames[0][0].shape, frames[0][0].dtype)
    out += png.make_chunk(b"acTL", struct.pack(">II", len(frames), 0))
    count = 0
    for number, (pixels, left, top, dispose, blend) in enumerate(frames):
        height, width, _ = pixels.shape
        control = struct.pack(">5I2H2B", count, width, height, left, top, 1, 10, dispose, blend)
        data = zlib.compress(rows_of(pixels, 8 * pixels.itemsize))
        body = png.make_chunk(b"fdAT", struct.pack(">I", count + 1) + data) if number else png.make_chunk(b"IDAT", data)
        out += png.make_chunk(b"fcTL", control) + body
        count += 2 if number else 1
    return out + png.make_chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_patch_laid_over_an_opaque_picture_stays_opaque(dtype):
    white = np.iinfo(dtype).max
    ground = np.full((6, 8, 4), white, dtype)
    patch = np.zeros((2, 3, 4), dtype)
    patch[...] = (0, white, 0, white // 2)
    _, frames = read(apng((ground, 0, 0, 0, 0), (patch, 4, 1, 2, 1), (patch, 0, 0, 1, 0), (patch, 5, 4, 0, 1)))
    shown = [frame.pixels for frame in frames]
    half = white - white // 2
    assert shown[1][1, 4].tolist() == [half, white, half, white]
    # The second frame is taken away for the frame before, the third replaces, and leaves nothing behind.
    assert (shown[2][1, 4] == white).all() and shown[2][0, 0].tolist() == [0, white, 0, white // 2]
    assert (shown[3][0, 0] == 0).all() and shown[3][3, 3].tolist() == [white] * 4


def test_frames_of_an_apng_are_those_of_pillow_without_transparency():
    images = [Image.fromarray(np.roll(smooth(), 5 * shift, axis=1)) for shift in range(4)]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=70)
    header, frames = read(buffer.getvalue())
    assert (header.frames, header.loop, frames[0].duration_ms) == (4, 0, 70.0)
    assert all((frame.pixels == np.asarray(image)).all() for frame, image in zip(frames, images, strict=True))


def test_an_apng_with_fewer_frames_than_stated_or_a_frame_beyond_the_picture_is_an_error():
    ground = smooth(4)
    data = apng((ground, 0, 0, 0, 0), (ground[:4, :4], 0, 0, 0, 0))
    wrong = data.replace(
        png.make_chunk(b"acTL", struct.pack(">II", 2, 0)), png.make_chunk(b"acTL", b"\0\0\0\3" + bytes(4))
    )
    with pytest.raises(ImageError, match="1 frames are missing"):
        read(wrong)
    with pytest.raises(ImageError, match="larger than the picture"):
        read(apng((ground, 0, 0, 0, 0), (ground, 1, 0, 0, 0)))
