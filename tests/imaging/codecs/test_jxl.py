"""JPEG XL: what the header of the codestream says, and what of it the decoder leaves out."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import assert_marks_the_spot, exif_block, marked, noise, read_still, saved_still, smooth
from PIL import Image

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.imaging.codecs.jxl import JxlFacts, read_jxl_facts
from dsclora_cli.imaging.color import apply_orientation
from dsclora_cli.imaging.isobmff import make_box
from dsclora_cli.imaging.types import Metadata

pytest.importorskip("pillow_jxl", reason='needs pip install "dsclora[jxl]"')


def encoded(pixels: np.ndarray) -> bytes:
    """Return a codestream; more than 8 bits come in a container, of which this takes the content."""
    data = bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, usecontainer=False))
    return data if data[:2] == b"\xff\x0a" else data[data.index(b"jxlc") + 4 :]


def facts(data: bytes) -> JxlFacts | None:
    return read_jxl_facts(io.BytesIO(data))


def as_bits(data: bytes) -> str:
    """Return the bits of a codestream, the lowest of each byte first."""
    return "".join(f"{byte:08b}"[::-1] for byte in data)


def with_header(rgba: np.ndarray, fields: str = "0", described: str = "1") -> bytes:
    """Return a JPEG XL of RGBA pixels with other extra fields and another description of the last channel, as bits.

    The encoder writes "0" for no extra fields, and "1" for alpha: everything by default. The description stands behind
    SizeHeader, three bits (nothing by default, no extra fields, integers), depth, buffers, and the number of extra
    channels.
    """
    data = encoded(rgba)
    bits = as_bits(data)
    at = 16 + 1 + (2 + (9, 13, 18, 30)[int(bits[17:19][::-1], 2)])
    at += 3 if bits[at : at + 3] != "000" else 3 + 2 + (9, 13, 18, 30)[int(bits[at + 3 : at + 5][::-1], 2)]
    assert bits[at : at + 5] == "00000" and bits[at + 6 : at + 9] == "101"  # one extra channel, as the encoder writes
    # Behind the description: no XYB, default colors, no extensions, default transforms. Frames begin at a whole byte.
    head = bits[: at + 1] + fields + bits[at + 2 : at + 8] + described + bits[at + 9 : at + 11]
    head += "1" * (fields != "0") + bits[at + 11 : at + 14]  # with extra fields, default tones stand behind the colors
    begin = -(-(at + 14) // 8) * 8
    assert "1" not in bits[at + 14 : begin]
    whole = head + "0" * (-len(head) % 8) + bits[begin:]
    return bytes(int(whole[start : start + 8][::-1], 2) for start in range(0, len(whole), 8))


def test_the_header_states_size_depth_and_animation():
    assert facts(encoded(noise(3))) == JxlFacts(47, 33)
    assert facts(encoded(noise(3, np.uint16))) == JxlFacts(47, 33, bits=16)
    assert facts(encoded(noise(3, np.float32))) == JxlFacts(47, 33, bits=32, floats=True)
    assert facts(encoded(noise(4))).alphas == 1
    assert facts(encoded(np.stack([noise(3)] * 3))).animated
    square = facts(encoded(noise(3, size=(64, 64))))
    assert (square.width, square.height) == (64, 64)


@pytest.mark.parametrize("data", [b"", b"\xff\x0a", b"\xff\x0a\x01", b"no picture at all"])
def test_a_damaged_header_has_no_facts(data):
    assert facts(data) is None


def test_the_codestream_may_come_in_small_parts():
    data = encoded(noise(3, np.uint16))
    boxes = struct.pack(">I4s", 12, b"JXL ") + b"\r\n\x87\n"
    for index, part in enumerate((data[:3], data[3:5], data[5:])):
        boxes += struct.pack(">I4sI", len(part) + 12, b"jxlp", index | (index == 2) << 31) + part
    assert facts(boxes) == facts(data)


def test_an_animation_is_told():
    header, pixels = read_still(encoded(np.stack([noise(3), smooth()])))
    assert header.notes == ("only the first frame of this animated JPEG XL was read",)
    np.testing.assert_array_equal(pixels, noise(3))


def test_less_depth_is_told_only_where_depth_is_lost():
    assert read_still(encoded(noise(3)))[0].notes == ()
    assert read_still(encoded(noise(3, np.uint16)))[0].notes == ("16 bits per channel were reduced to 8",)
    assert read_still(encoded(noise(3, np.float32)))[0].notes == ("floats of 32 bits were reduced to 8",)


# Kinds of extra channels in bits. A description is: not all by default, kind, depth (integers of 8 bits), shift, length
# of the name, and for alpha "premultiplied".
ALPHA, DEPTH, BLACK = "00", "10", "01" + f"{4 - 2:04b}"[::-1]


def test_premultiplied_color_is_divided():
    pixels = np.dstack([smooth(), np.full(smooth().shape[:2], 128, np.uint8)])
    stored = pixels.copy()
    stored[..., :3] = np.rint(pixels[..., :3] * (128 / 255))
    straight, premultiplied = (with_header(stored, described=f"0{ALPHA}0000000{bit}") for bit in "01")
    np.testing.assert_array_equal(read_still(straight)[1], stored)
    header, again = read_still(premultiplied)
    assert header.notes == () and np.abs(again.astype(int) - pixels).max() <= 1


def test_channels_that_are_no_alpha_are_told():
    header, pixels = read_still(with_header(noise(4), described=f"0{DEPTH}0000000"))
    assert header.channels == 3 and header.notes == ("extra channels of this JPEG XL were left out: depth",)
    np.testing.assert_array_equal(pixels, noise(4)[..., :3])


def test_cmyk_is_refused():
    with pytest.raises(ImageUnreadable, match="JPEG XL with CMYK colours is not supported"):
        read_still(with_header(noise(4), described=f"0{BLACK}0000000"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.filterwarnings("ignore:Using JPEG reconstruction")
def test_a_jpeg_packed_without_loss_is_turned(tmp_path: Path, orientation):
    path = tmp_path / "a.jpg"
    path.write_bytes(saved_still(smooth(), "JPEG", Metadata(exif=exif_block(orientation)), quality=95))
    with Image.open(path) as image:
        buffer = io.BytesIO()
        image.save(buffer, "JXL")
    header, pixels = read_still(buffer.getvalue())
    assert (header.height, header.width) == pixels.shape[:2]
    assert np.abs(pixels.astype(int) - apply_orientation(smooth(), orientation)).max() < 20
    assert header.metadata.exif and header.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_in_metadata_turn_with_the_picture(orientation):
    pixels, metadata = marked(1)
    # The orientation, and neither a size for display, nor a preview, nor an animation.
    fields = "1" + f"{orientation - 1:03b}"[::-1] + "000"
    stream = with_header(np.dstack([pixels, noise(1, size=pixels.shape[:2])]), fields)
    boxes = {
        b"JXL ": b"\r\n\x87\n",
        b"ftyp": b"jxl \0\0\0\0jxl ",
        b"Exif": bytes(4) + metadata.exif,
        b"xml ": metadata.xmp,
    }
    file = b"".join(make_box(kind, data) for kind, data in {**boxes, b"jxlc": stream}.items())
    header, turned = read_still(file)
    np.testing.assert_array_equal(turned[..., :3], apply_orientation(pixels, orientation))
    assert_marks_the_spot(header, turned)


def test_compressed_metadata_is_read():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:title>title</dc:title></x:xmpmeta>'
    packed = b"xml " + bytes(imagecodecs.brotli_encode(xmp))
    plain = saved_still(noise(3), "JXL", Metadata(exif=exif_block()))
    data = plain + struct.pack(">I4s", len(packed) + 8, b"brob") + packed
    assert read_still(data)[0].metadata.xmp == xmp
    bomb = b"xml " + bytes(imagecodecs.brotli_encode(bytes(2**25)))
    assert read_still(plain + struct.pack(">I4s", len(bomb) + 8, b"brob") + bomb)[0].metadata.xmp is None


def test_the_plugin_prints_nothing_about_damaged_boxes(capfd):
    data = saved_still(noise(3), "JXL", Metadata(exif=exif_block())) + struct.pack(">I4sQ", 1, b"abcd", 3)
    np.testing.assert_array_equal(read_still(data)[1].shape, noise(3).shape)
    assert capfd.readouterr().err == ""
