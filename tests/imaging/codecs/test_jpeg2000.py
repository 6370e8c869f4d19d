"""JPEG 2000: depth, channels and colors as the container states them, and files that other readers understand."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
from pictures import cmyk_profile, gray_profile, noise, read_still, saved_still, smooth
from PIL import Image

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.imaging.isobmff import iter_boxes
from dsclora_cli.imaging.profiles import adobe_rgb_profile
from dsclora_cli.imaging.types import Metadata

COLOR, OPACITY, PREMULTIPLIED, UNSPECIFIED = 0, 1, 2, 65535


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, kind) + data


def space(number: int) -> bytes:
    """Return a "colr" box with an enumerated color space."""
    return box(b"colr", bytes((1, 0, 0)) + struct.pack(">I", number))


def definitions(*channels: tuple[int, int, int]) -> bytes:
    """Return a "cdef" box of number, type and association."""
    return box(b"cdef", struct.pack(">H", len(channels)) + b"".join(struct.pack(">HHH", *each) for each in channels))


def container(pixels: np.ndarray, *boxes: bytes, bits: int = 8) -> bytes:
    """Return a JP2 of channels that are stored as given, with boxes for their meaning."""
    height, width, channels = pixels.shape
    plain = pixels[..., 0] if channels == 1 else pixels
    coded = imagecodecs.jpeg2k_encode(plain, level=0, codecformat="j2k", reversible=True, mct=False, bitspersample=bits)
    size = box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, bits - 1, 7, 0, 0))
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return head + box(b"jp2h", size + b"".join(boxes)) + box(b"jp2c", bytes(coded))


def wide_profile() -> bytes:
    return adobe_rgb_profile(3) or b""


@pytest.mark.parametrize(("bits", "channels"), [(10, 1), (12, 3), (16, 3)])
def test_jpeg_2000_of_more_than_8_bits_uses_the_full_16(bits, channels):
    pixels = noise(channels, np.uint16) >> (16 - bits)
    flat = pixels[..., 0] if channels == 1 else pixels
    data = imagecodecs.jpeg2k_encode(flat, level=0, codecformat="jp2", reversible=True, bitspersample=bits)
    header, again = read_still(bytes(data))
    assert header.dtype == np.uint16 and header.notes == ()
    np.testing.assert_array_equal(again, np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_declared_to_other_readers(channels):
    data = saved_still(noise(channels), "JPEG2000")
    assert data.count(b"cdef") == 1
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), noise(channels))


@pytest.mark.parametrize(("bits", "channels"), [(1, 1), (4, 3), (7, 1)])
def test_fewer_than_8_bits_use_the_full_8(bits, channels):
    pixels = noise(channels) >> (8 - bits)
    header, again = read_still(container(pixels, bits=bits))
    assert header.dtype == np.uint8
    np.testing.assert_array_equal(again, np.rint(pixels * (255 / (2**bits - 1))).astype(np.uint8))


def test_signed_values_are_shifted():
    pixels = noise(3)
    data = container((pixels.astype(np.int16) - 128).astype(np.int8), space(16))
    np.testing.assert_array_equal(read_still(data)[1], pixels)


def test_sycc_becomes_rgb():
    pixels = smooth()
    header, again = read_still(container(np.asarray(Image.fromarray(pixels).convert("YCbCr")), space(18)))
    assert header.channels == 3 and header.notes == ()
    assert np.abs(again.astype(int) - pixels).max() <= 3  # both conversions round


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "bi-level"),
        (3, "YCbCr"),
        (9, "PhotoYCC"),
        (11, "CMY"),
        (14, "CIELab"),
        (20, "e-sRGB"),
        (24, "e-sYCC"),
        (77, "77"),
    ],
)
def test_other_colors_are_refused_and_called_unsupported(number, words):
    with pytest.raises(ImageUnreadable, match=f"JPEG 2000 with .*{words}.* is not supported") as caught:
        read_still(container(noise(3), space(number)))
    assert caught.value.hint == "convert it to PNG or TIFF with another program"
    # A box that is understood decides, wherever the box stands.
    np.testing.assert_array_equal(read_still(container(noise(3), space(number), space(16)))[1], noise(3))


@pytest.mark.parametrize("stated", [space(12), box(b"colr", bytes((2, 0, 0)) + cmyk_profile())])
@pytest.mark.parametrize("alpha", [False, True])
def test_cmyk_becomes_srgb(stated, alpha):
    inks = noise(4)
    boxes = [stated]
    if alpha:
        boxes.append(definitions(*((at, COLOR, at + 1) for at in range(4)), (4, OPACITY, 0)))
    header, pixels = read_still(container(np.dstack([inks, inks[..., 0]]) if alpha else inks, *boxes))
    with_profile = "its own profile" in header.notes[0]
    assert with_profile == (len(stated) > 100) and header.metadata.icc and header.channels == (4 if alpha else 3)
    plain = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
    assert (np.abs(pixels[..., :3].astype(int) - plain).max() == 0) != with_profile
    assert not alpha or (pixels[..., 3] == inks[..., 0]).all()


@pytest.mark.parametrize(("make", "channels"), [(wide_profile, 3), (gray_profile, 1)])
def test_a_profile_says_how_many_channels_are_colors(make, channels):
    stored = noise(4)[..., : channels + 1]
    profile = box(b"colr", bytes((2, 0, 0)) + make())
    # Pixels stay as stored: the profile is copied, not applied.
    header, pixels = read_still(container(stored, profile))
    assert header.channels == channels + 1 and header.metadata.icc == make()
    np.testing.assert_array_equal(pixels, stored)


def test_numbers_of_video_state_colors():
    p3 = box(b"colr", bytes((5, 0, 0)) + struct.pack(">HHHB", 12, 13, 0, 128))
    header, _ = read_still(container(noise(3), p3))
    assert dict(header.metadata.color_chunks)[b"cICP"] == bytes((12, 13, 0, 1))
    with pytest.raises(ImageUnreadable, match="not supported"):
        read_still(container(noise(3), box(b"colr", bytes((5, 0, 0)) + struct.pack(">HHHB", 1, 1, 1, 128))))


def test_channels_come_in_the_order_of_their_definitions():
    pixels = noise(4)
    stored = pixels[..., [3, 2, 0, 1]]  # alpha, blue, red, green
    meaning = definitions((0, OPACITY, 0), (1, COLOR, 3), (2, COLOR, 1), (3, COLOR, 2))
    header, again = read_still(container(stored, space(16), meaning))
    assert header.channels == 4 and header.notes == ()
    np.testing.assert_array_equal(again, pixels)


def test_premultiplied_color_is_divided():
    pixels = np.dstack([smooth(), np.full(smooth().shape[:2], 128, np.uint8)])
    stored = pixels.copy()
    stored[..., :3] = np.rint(pixels[..., :3] * (128 / 255))
    meaning = definitions((0, COLOR, 1), (1, COLOR, 2), (2, COLOR, 3), (3, PREMULTIPLIED, 0))
    header, again = read_still(container(stored, space(16), meaning))
    assert header.channels == 4 and np.abs(again.astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("stated", [space(16), space(17)])
def test_channels_without_a_meaning_are_left_out(stated):
    colors = 3 if stated == space(16) else 1
    stored = noise(4)[..., : colors + 1]
    meaning = definitions(*((at, COLOR, at + 1) for at in range(colors)), (colors, UNSPECIFIED, UNSPECIFIED))
    header, pixels = read_still(container(stored, stated, meaning))
    assert header.channels == colors
    assert header.notes == ("channels of this JPEG 2000 that are neither colour nor alpha were left out: 1",)
    np.testing.assert_array_equal(pixels, stored[..., :colors])


def test_a_palette_becomes_rgb():
    colors = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    palette = box(b"pclr", struct.pack(">HB", 256, 3) + bytes((7, 7, 7)) + colors.tobytes())
    mapping = box(b"cmap", struct.pack(">HBBHBBHBB", 0, 1, 0, 0, 1, 1, 0, 1, 2))
    header, pixels = read_still(container(noise(1), space(16), palette, mapping))
    assert header.channels == 3 and header.dtype == np.uint8
    np.testing.assert_array_equal(pixels, colors[noise(1)[..., 0]])


def test_five_channels_without_colors_are_refused():
    with pytest.raises(ImageUnreadable, match="5 channels and no colour space is not supported"):
        read_still(container(np.dstack([noise(4), noise(1)])))


@pytest.mark.parametrize("dpi", [(300.0, 150.0), (72.0, 72.0), (9600.0, 0.5), (5e6, 10.0)])
def test_the_resolution_is_kept(dpi):
    data = saved_still(noise(3), "JPEG2000", Metadata(dpi=dpi))
    assert read_still(data)[0].metadata.dpi == pytest.approx(dpi, rel=2e-4)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["dpi"] == pytest.approx(dpi, rel=2e-4)
    kinds = {each.kind for each in iter_boxes(io.BytesIO(data))}
    assert kinds >= {b"jp2h", b"jp2c"}
