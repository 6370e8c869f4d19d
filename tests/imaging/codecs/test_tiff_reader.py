"""TIFF in: depths, layouts, photometric interpretations, pages, and refused files."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL
import pytest
import tifffile
from pictures import (
    HEIGHT,
    WIDTH,
    noise,
    pillow_file,
    read,
    read_still,
    saved_still,
    smooth,
)
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.reader import open_picture


def tiff(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zstd"},
        {"tile": (16, 32)},
        {"rowsperstrip": 5},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"planarconfig": "separate"},
    ],
    ids=str,
)
def test_every_layout_is_read(dtype, options):
    pixels = noise(3, dtype)
    stored = np.moveaxis(pixels, 2, 0) if "planarconfig" in options else pixels
    header, again = read_still(tiff(stored, photometric="rgb", **options))
    assert header.dtype == dtype and again.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_with_white_as_zero_are_inverted(dtype):
    pixels = noise(1, dtype)
    white = 1 if dtype is np.float32 else np.iinfo(dtype).max
    _, again = read_still(tiff(pixels[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(again, white - pixels)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32_with_a_note(dtype):
    pixels = (noise(3, np.float32) * 7 - 2).astype(dtype)
    header, again = read_still(tiff(pixels, photometric="rgb"))
    assert header.dtype == np.float32
    assert header.notes == (f"{np.dtype(dtype).name} samples were converted to float32",)
    np.testing.assert_array_equal(again, pixels.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad):
    pixels = noise(1, np.float32)
    pixels[3, 4] = bad
    with pytest.raises(ImageError, match="holds NaN or infinity"):
        read(tiff(pixels[..., 0]))


@pytest.mark.parametrize("dtype", [np.uint32, np.int16, np.int8, np.complex64])
def test_unsupported_samples_are_refused_by_name(dtype):
    with pytest.raises(ImageError, match=f"{np.dtype(dtype).name} samples is not supported") as caught:
        read(tiff(np.zeros((9, 9), dtype)))
    assert caught.value.hint == "convert it to 16-bit or to float"


def test_layers_in_a_page_and_mixed_depths_are_refused_by_name():
    with pytest.raises(ImageError, match=r"TIFF with 4 layers in a page is not supported") as caught:
        read(tiff(np.zeros((4, 16, 16), np.uint8), photometric="minisblack", volumetric=True))
    assert caught.value.hint == "save each layer as a page"
    bits = struct.pack("<3H", 5, 6, 5)
    with pytest.raises(ImageError, match=r"TIFF with samples of different bits \(5, 6, 5\) is not supported") as caught:
        read(tiff(smooth(), photometric="rgb").replace(struct.pack("<3H", 8, 8, 8), bits))
    assert caught.value.hint == "convert it to 8 bits or 16 bits"


def without_photometric(file: bytes, *tags: int) -> bytes:
    """Return a TIFF whose only page does not say what its samples mean, and lacks `tags`."""
    layout, offset = tiff_ifd.parse_header(file[:16])
    entries = dict(tiff_ifd.read_directory(io.BytesIO(file), layout, offset).entries)
    for tag in (262, *tags):
        del entries[tag]
    file += bytes(len(file) % 2)
    directory = tiff_ifd.pack_directory(entries, layout, len(file), 0)
    return file[:4] + struct.pack("<I", len(file)) + file[8:] + directory


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {"photometric": "minisblack"}),
        (2, {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": (2,)}),
        (3, {"photometric": "rgb"}),
        (4, {"photometric": "rgb", "extrasamples": (2,)}),
        (4, {"photometric": "separated"}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_number_of_samples_tells_the_colors_where_the_file_does_not(channels, options, dtype):
    pixels = noise(channels, dtype)
    header, again = read_still(without_photometric(tiff(pixels, **options)))
    assert header.channels == channels and header.notes == ()
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("bits", [1, 4])
def test_zero_is_black_where_the_file_does_not_say_so_and_white_in_a_fax(bits):
    pixels = noise(1)[..., 0] >> (8 - bits)
    file = tiff(pixels.astype(bool) if bits == 1 else pixels, bitspersample=bits, photometric="minisblack")
    _, again = read_still(without_photometric(file))
    np.testing.assert_array_equal(again[..., 0], pixels * (255 // (2**bits - 1)))
    fax = pillow_file(Image.fromarray(pixels > 0), "TIFF", compression="group4")
    assert struct.pack("<HHII", 262, 3, 1, 1) in fax  # states that zero is black
    np.testing.assert_array_equal(read_still(without_photometric(fax))[1], 255 - read_still(fax)[1])


@pytest.mark.parametrize(
    ("samples", "tags", "options"),
    [(2, (338,), {"extrasamples": (0,)}), (5, (338,), {"extrasamples": (0, 0)}), (3, (), {"compression": "jpeg"})],
)
def test_samples_that_may_mean_anything_are_refused(samples, tags, options):
    pixels = np.concatenate([noise(3), noise(2)], axis=2)[..., :samples]
    photometric = "minisblack" if samples == 2 else "rgb"
    file = without_photometric(tiff(pixels, photometric=photometric, planarconfig="contig", **options), *tags)
    with pytest.raises(ImageError, match=f"TIFF with {samples} samples a pixel that does not say what they mean"):
        read(file)


def test_an_unsupported_layout_is_refused_by_name():
    with pytest.raises(ImageError, match="TIFF with 32-bit CIELAB samples is not supported"):
        read(tiff(noise(3, np.float32), photometric="cielab"))


def test_premultiplied_color_is_divided_by_alpha():
    pixels = noise(4, np.uint16)
    pixels[..., 3] = np.maximum(pixels[..., 3], 20_000)
    pixels[0, 0] = 0
    shares = pixels[..., 3:] / 65535
    stored = np.concatenate([np.rint(pixels[..., :3] * shares).astype(np.uint16), pixels[..., 3:]], axis=2)
    _, again = read_still(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(again.astype(int) - pixels).max() <= 2 and (again[0, 0] == 0).all()


@pytest.mark.parametrize(
    ("meanings", "kept"),
    [((0, 0, 0), [0, 1, 2]), ((2, 0, 0), [0, 1, 2, 3]), ((0, 2, 0), [0, 1, 2, 4]), ((0, 0, 2), [0, 1, 2, 5])],
)
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_only_a_channel_that_is_stated_as_alpha_is_alpha(meanings, kept, planes):
    pixels = np.concatenate([noise(4), noise(2)], axis=2)
    stored = pixels if planes == "contig" else np.moveaxis(pixels, 2, 0)
    header, again = read_still(tiff(stored, photometric="rgb", planarconfig=planes, extrasamples=meanings))
    left_out = f"extra channels of the TIFF that are no alpha were left out: {6 - len(kept)}"
    assert header.channels == len(kept) and header.notes == (left_out,)
    np.testing.assert_array_equal(again, pixels[..., kept])


def test_a_second_channel_of_gray_that_is_no_alpha_is_left_out():
    pixels = noise(2)
    header, again = read_still(tiff(pixels, photometric="minisblack", planarconfig="contig", extrasamples=(0,)))
    assert header.channels == 1 and header.notes
    np.testing.assert_array_equal(again, pixels[..., :1])


def palette_tiff(table: list[int], bits: int = 8) -> bytes:
    """Return a TIFF of 8 x 2 indices 0 to 7 with a color map; tifffile and Pillow write 16-bit maps only."""
    indices = np.arange(8, dtype=np.uint8)[None].repeat(2, axis=0)
    rows = indices if bits == 8 else indices[:, ::2] << 4 | indices[:, 1::2]
    entries = [(256, 4, 1, 8), (257, 4, 1, 2), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 3), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 4, 1, 2), (279, 4, 1, rows.size), (320, 3, len(table), 8 + rows.size)]
    colors = struct.pack(f"<{len(table)}H", *table)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + rows.size + len(colors)) + rows.tobytes() + colors + directory


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("factor", [1, 257])
def test_a_color_map_of_8_bit_values_has_the_colors_of_one_of_16(bits, factor):
    red = [min(255, 30 * index) for index in range(2**bits)]
    table = [factor * value for value in (*red, *red[::-1], *([90] * 2**bits))]
    _, pixels = read_still(palette_tiff(table, bits))
    assert pixels[1, :, 0].tolist() == red[:8] and (pixels[..., 2] == 90).all()


@pytest.mark.parametrize("sensor", ["page", "sub-directory", "DNG"])
def test_a_camera_raw_file_is_refused_and_not_read_as_its_thumbnail(sensor):
    buffer = io.BytesIO()
    version = [(50706, 1, 4, (1, 4, 0, 0), True)] if sensor == "DNG" else []
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(
            smooth(), photometric="rgb", subfiletype=1, subifds=int(sensor == "sub-directory"), extratags=version
        )
        if sensor != "DNG":
            writer.write(noise(1)[..., 0], photometric=32803, extratags=[(33421, 3, 2, (2, 2), True)])
    with pytest.raises(ImageError, match="camera RAW") as caught:
        read_still(buffer.getvalue())
    assert "develop it first" in caught.value.hint


def test_pictures_of_a_tiff_that_are_not_read_are_told():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(smooth(), photometric="rgb", subifds=2, metadata=None)
        for _ in range(2):
            writer.write(smooth()[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(smooth()[::4, ::4], photometric="rgb", subfiletype=1)
    header, _ = read_still(buffer.getvalue())
    assert header.notes == (
        "thumbnails and masks among the pages of the TIFF were left out: 1",
        "pictures in sub-directories of the TIFF (reduced copies) were left out: 2",
    )


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw", "packbits"])
def test_1_bit_becomes_gray(compression):
    image = Image.fromarray(smooth()).convert("1")
    header, pixels = read_still(pillow_file(image, "TIFF", compression=compression))
    assert header.channels == 1
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(image.convert("L")))


def test_a_tiff_with_jpeg_compression_is_read():
    header, pixels = read_still(pillow_file(Image.fromarray(smooth()), "TIFF", compression="jpeg", quality=95))
    assert header.channels == 3 and np.abs(pixels.astype(int) - smooth()).mean() < 3


def test_ycbcr_and_lab_become_rgb():
    image = Image.fromarray(smooth())
    # Pillow before version 13 cannot read YCbCr without compression.
    compression = None if int(PIL.__version__.partition(".")[0]) >= 13 else "tiff_lzw"
    header, pixels = read_still(pillow_file(image.convert("YCbCr"), "TIFF", compression=compression))
    assert header.channels == 3 and header.notes == ()
    assert np.abs(pixels.astype(int) - smooth()).max() <= 3
    lab = Image.new("LAB", (4, 3), (255, 128, 128))
    header, pixels = read_still(pillow_file(Image.merge("LAB", lab.split()), "TIFF"))
    assert header.notes == ("Lab was converted to sRGB",) and header.metadata.icc
    assert pixels.shape == (3, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_orientation_is_applied_by_both_decoders(mode, orientation):
    """RGB is read by tifffile and turned here; a palette is read and turned by Pillow."""
    image = Image.fromarray(smooth()).quantize(64)
    data = pillow_file(image.convert(mode), "TIFF", tiffinfo={274: orientation})
    with Image.open(io.BytesIO(data)) as theirs:
        theirs.load()
        expected = np.asarray(theirs.convert("RGB"))
    header, pixels = read_still(data)
    assert (header.height, header.width) == expected.shape[:2]
    np.testing.assert_array_equal(pixels, expected)


def test_pages_of_different_channels_become_the_widest_of_them():
    buffer = io.BytesIO()
    gray, colors = noise(1), noise(4, np.uint16)
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(gray[..., 0])
        writer.write(colors, photometric="rgb", extrasamples=["unassalpha"])
    header, frames = read(buffer.getvalue())
    assert (header.channels, header.dtype, header.frames) == (4, np.uint16, 2)
    np.testing.assert_array_equal(frames[0].pixels[..., :3], (gray.astype(np.uint16) * 257).repeat(3, axis=2))
    assert (frames[0].pixels[..., 3] == 65535).all()
    np.testing.assert_array_equal(frames[1].pixels, colors)


def test_thumbnails_and_masks_are_no_pages():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(smooth()[::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(smooth(), photometric="rgb")
    header, pixels = read_still(buffer.getvalue())
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(pixels, smooth())


def with_description(description: str | None, **options) -> tuple[str | None, tuple[str, ...]]:
    """Return the description of the result for a TIFF with a description, and the notes."""
    file = tiff(smooth(), photometric="rgb", description=description, **{"metadata": None, **options})
    header, pixels = read_still(file)
    with tifffile.TiffFile(io.BytesIO(saved_still(pixels, "TIFF", header.metadata))) as result:
        return result.pages[0].tags.valueof(270), header.notes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ('{"shape": [33, 47, 3]}', None),
        ('{"axes": "YXS", "shape": [33, 47, 3]}', None),
        ('{"shape": [5, 33, 47, 3], "truncated": true}', None),
        ("shape=(33, 47, 3)", None),
        ('{"title": "Wedding", "shape": [33, 47, 3], "box": [7, 1.5]}', '{"title": "Wedding", "box": [7, 1.5]}'),
    ],
)
def test_of_a_description_by_tifffile_the_shape_alone_is_left_out(given, kept):
    """Versions of tifffile put the shape in different places."""
    assert with_description(given) == (kept, ())
    assert with_description(None, metadata={"axes": "YXS"}) == (None, ())
    assert with_description(None, metadata={"axes": "YXS", "box": 7}) == ('{"box": 7}', ())


@pytest.mark.parametrize(
    "description",
    [
        '<?xml version="1.0"?><note>my archive number 42</note>',
        '<?xml version="1.0"?><!-- <OME> --><OMEN/>',
        '{"title": "Wedding 1952", "shape": ["round"], "box": 7}',
        '{"box": 7, "shape": [30, 40]}',
        '{"shape": []}',
        '{"shape": ' + "[" * 10_000,
        "shape=(round)",
        "Made with ImageJ=no",
    ],
)
def test_descriptions_by_people_are_kept(description):
    assert with_description(description) == (description, ())


@pytest.mark.parametrize(
    ("description", "program"),
    [
        ("ImageJ=1.53t\nunit=micron\nimages=2", "ImageJ"),
        ('<OME xmlns="http://www.openmicroscopy.org"><Image ID="Image:0"/></OME>', "OME-XML"),
        ('\ufeff<?xml version="1.0"?>\n<!-- a --><!-- b -->\n<ome:OME xmlns:ome="a"></ome:OME>', "OME-XML"),
    ],
)
def test_descriptions_by_programs_that_count_pixels_are_left_out_and_told(description, program):
    kept, notes = with_description(description.encode())
    assert kept is None and len(notes) == 1 and program in notes[0] and "was left out" in notes[0]


def test_resolution_per_centimeter_is_converted_to_dpi():
    data = tiff(smooth(), photometric="rgb", resolution=(100, 50), resolutionunit="centimeter")
    assert read_still(data)[0].metadata.dpi == pytest.approx((254, 127))


def test_what_only_some_pages_state_is_reported(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for dpi, description in ((300, "first"), (300, "first"), (72, "other")):
            writer.write(smooth(), photometric="rgb", resolution=(dpi, dpi), description=description, metadata=None)
    with open_picture(path) as reader:
        assert reader.header.notes == (
            "every page has the resolution of the first page; 1 of 3 pages had another",
            "every page has the metadata of the first page; 1 of 3 pages had another",
        )
        assert len(list(reader.frames())) == 3
