"""Animations that end too early are refused at any place of the cut, and whole frames are salvaged."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from pictures import noise, pillow_file, read, smooth
from PIL import Image

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.reader import open_picture

FRAMES = [np.roll(smooth(3, (24, 32)) // 2 + noise(3, size=(24, 32)) // 8, 5 * at, axis=1) for at in range(4)]
OPTIONS = {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}}


def animation(format: str, **options: object) -> bytes:
    first, *others = [Image.fromarray(frame) for frame in FRAMES]
    buffer = io.BytesIO()
    first.save(buffer, format, save_all=True, append_images=others, duration=80, **OPTIONS[format], **options)
    return buffer.getvalue()


def salvaged(data: bytes) -> tuple[int, list[np.ndarray], str]:
    with open_picture(data, ReadOptions(salvage=True)) as picture:
        frames = list(picture.frames())
        notes = [*picture.header.notes, *(frame.note for frame in frames if frame.note)]
        return picture.header.frames, [frame.pixels for frame in frames], " | ".join(notes)


@pytest.mark.slow
@pytest.mark.parametrize("padding", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("format", OPTIONS)
def test_an_animation_cut_anywhere_is_refused(format, padding):
    data = animation(format)
    whole = [frame.pixels for frame in read(data)[1]]
    assert len(whole) == len(FRAMES)
    # Zeros of a few bytes may be the pixels of a WebP, and a part of the trailer of a PNG is no pixel.
    nearest = 100 if format == "WEBP" and padding else 1
    accepted = []
    for cut in range(40, len(data) - nearest, 37):
        part = data[:cut] + bytes(len(data) - cut) * padding
        try:
            frames = [frame.pixels for frame in read(part)[1]]
        except ImageError:
            continue
        same = len(frames) == len(whole) and all(map(np.array_equal, frames, whole))
        accepted += [] if same else [cut]
    assert accepted == []


@pytest.mark.parametrize("padding", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("format", OPTIONS)
def test_whole_frames_of_a_cut_animation_are_salvaged(format, padding):
    data = animation(format)
    whole = [frame.pixels for frame in read(data)[1]]
    kept = len(data) * 6 // 10
    with pytest.raises(ImageError):
        read(data[:kept] + bytes(len(data) - kept) * padding)
    count, frames, note = salvaged(data[:kept] + bytes(len(data) - kept) * padding)
    assert 1 <= count < len(FRAMES)
    assert note == f"salvaged: the frames up to number {count}"
    for taken, expected in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(taken[..., :3], expected[..., :3])
    assert salvaged(data)[2] == ""


def test_a_gif_cut_between_two_frames_is_refused():
    data = animation("GIF")
    second = [at for at in range(len(data)) if data[at : at + 3] == b"\x21\xf9\x04"][2]
    with pytest.raises(ImageError, match=r"only the frames up to number 2 are there .*--salvage"):
        read(data[:second])


def test_a_still_gif_whose_pixels_end_in_zeros_is_refused_and_salvaged():
    data = pillow_file(Image.fromarray(FRAMES[0]).quantize(256), "GIF")
    part = data[:-60] + bytes(60)
    with pytest.raises(ImageError, match="only parts of the first frame are there"):
        read(part)
    count, (pixels,), note = salvaged(part)
    assert (count, note) == (1, "salvaged: parts of the first frame")
    np.testing.assert_array_equal(pixels[:12], read(data)[1][0].pixels[:12])


def test_a_still_gif_without_end_marker_is_whole():
    data = pillow_file(Image.fromarray(FRAMES[0]).quantize(16), "GIF")
    assert data.endswith(b";")
    for end in (b"", b"\0", b"\0\0;"):
        (frame,) = read(data[:-1] + end)[1]
        np.testing.assert_array_equal(frame.pixels, read(data)[1][0].pixels)


def test_a_damaged_frame_ends_an_apng():
    data = bytearray(animation("PNG"))
    third = data.rfind(b"fdAT")
    data[third + 30] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        read(bytes(data))
    count, _, note = salvaged(bytes(data))
    assert (count, note) == (3, "salvaged: the frames up to number 3")


def test_an_apng_without_one_whole_frame_gives_the_picture_for_viewers_without_animation():
    data = animation("PNG")
    first = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[first - 4 : first])
    count, (pixels,), note = salvaged(data[: first + 4 + size // 2])
    assert count == 1 and pixels.shape == FRAMES[0].shape
    assert note.startswith("salvaged: ") and note.endswith("% of the pixels of the first frame")


def test_an_apng_whose_frames_are_lost_has_a_picture_outside_the_animation():
    control = struct.pack(">5I2H2B", 0, 8, 8, 0, 0, 1, 10, 0, 0)
    still = pillow_file(Image.fromarray(FRAMES[0][:8, :8]), "PNG")
    head, rest = still[:33], still[33:-12]
    data = head + png.make_chunk(b"acTL", struct.pack(">II", 2, 0)) + rest + png.make_chunk(b"fcTL", control)
    count, (pixels,), note = salvaged(data + b"\0\0\1\0fdAT")
    assert count == 1 and note == "salvaged: 100% of the pixels of the first frame"
    np.testing.assert_array_equal(pixels, FRAMES[0][:8, :8])
