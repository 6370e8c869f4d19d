"""Half pictures are refused, and with `salvage` taken as far as they are there, with the share."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from pictures import noise, pillow_file, read, read_still, saved_still, smooth
from PIL import Image, ImageFile

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.codecs.incomplete import fill_gaps, lenient_pillow
from dsclora_cli.imaging.codecs.jpeg_scan import repaired
from dsclora_cli.imaging.reader import open_picture

SIZE = (120, 90)
JPEG_KINDS = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"quality": 30, "subsampling": 2},
    {"restart_marker_blocks": 3},
    {"restart_marker_rows": 2, "progressive": True},
]


def salvaged(data: bytes) -> tuple[list[str], np.ndarray]:
    """Return all notes about a file, and the pixels of the first frame."""
    with open_picture(data, ReadOptions(salvage=True)) as picture:
        frames = list(picture.frames())
        assert len(frames) == picture.header.frames
        notes = [*picture.header.notes, *(frame.note for frame in frames if frame.note)]
    return [note for note in notes if note.startswith("salvaged: ")], frames[0].pixels


def zero_tail(data: bytes) -> bytes:
    kept = len(data) * 7 // 10
    return data[:kept] + bytes(len(data) - kept)


def early_end(data: bytes) -> bytes:
    return data[: len(data) * 7 // 10] + b"\xff\xd9"


def marker_inside(data: bytes) -> bytes:
    middle = len(data) * 7 // 10
    return data[:middle] + b"\xff\xd3\xff\xd5" + data[middle + 4 :]


def zeros_before_the_end(data: bytes) -> bytes:
    return zero_tail(data[:-2]) + b"\xff\xd9"


@pytest.mark.parametrize("damage", [zero_tail, early_end, marker_inside, zeros_before_the_end])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", JPEG_KINDS, ids=str)
def test_half_a_jpeg_is_refused_and_salvaged_on_demand(options, mode, damage):
    image = Image.fromarray(noise(3, np.uint8, (200, 90))).convert(mode)
    data = pillow_file(image, "JPEG", **options)
    whole = read_still(data)[1]
    with pytest.raises(ImageError, match="damaged"):
        read(damage(data))
    (note,), pixels = salvaged(damage(data))
    assert note.startswith("salvaged: about ") and note.endswith(" of 200 rows")
    assert pixels.shape == whole.shape
    assert salvaged(data)[0] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"behind \xff\xd8\xff the end",
        lambda data: data[:-2] + bytes(7) + data[-2:],
    ],
)
@pytest.mark.parametrize("options", JPEG_KINDS, ids=str)
def test_what_stands_behind_the_scan_of_a_jpeg_is_no_damage(options, change):
    data = pillow_file(Image.fromarray(smooth(3, SIZE)), "JPEG", **options)
    np.testing.assert_array_equal(read_still(change(data))[1], read_still(data)[1])


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "JPEG2000", "HEIF"])
def test_pictures_of_one_color_are_whole(format):
    """Coded, one color is next to nothing, and may be zeros."""
    if format == "HEIF":
        pytest.importorskip("pillow_heif")
    for level in (0, 255):
        pixels = np.full((600, 800, 3), level, np.uint8)
        assert read_still(saved_still(pixels, format))[1].shape == pixels.shape
    optimized = pillow_file(Image.fromarray(pixels), "JPEG", optimize=True)
    assert read_still(optimized)[1].shape == pixels.shape


@pytest.mark.parametrize("pixels", [noise(3, np.uint8, SIZE), smooth(3, SIZE)], ids=["noise", "smooth"])
@pytest.mark.parametrize("format", ["WEBP", "AVIF", "JPEG2000", "HEIF"])
def test_zeros_at_the_end_are_missing_pixels(format, pixels):
    if format == "HEIF":
        pytest.importorskip("pillow_heif")
    data = saved_still(pixels, format)
    with pytest.raises(ImageError, match=r"only about \d+% of the coded pixels are there .*--salvage"):
        read(zero_tail(data))
    (note,), taken = salvaged(zero_tail(data))
    assert note.endswith("% of the coded pixels") and taken.shape == pixels.shape


def test_room_behind_a_codestream_of_jpeg_2000_is_no_damage_and_one_missing_byte_is():
    data = saved_still(smooth(3, SIZE), "JPEG2000")
    whole = read_still(data)[1]
    assert data.endswith(b"\xff\xd9")
    stream = data[data.index(b"\xff\x4f\xff\x51") :]
    for file in (data, stream):
        np.testing.assert_array_equal(read_still(file + bytes(50))[1], whole)
        for missing in (3, 9, 40):
            for end in (b"", bytes(missing)):
                with pytest.raises(ImageError, match="damaged"):
                    read(file[:-missing] + end)


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "PNG", "GIF", "BMP", "PPM", "JPEG", "JPEG2000"])
def test_a_truncated_file_is_salvaged(format):
    pixels = smooth(3, SIZE)
    data = saved_still(pixels, format)
    (note,), taken = salvaged(data[: len(data) * 7 // 10])
    assert note.startswith("salvaged: ") and taken.shape == pixels.shape


@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_a_short_tga_is_refused_and_salvaged(tmp_path, compression):
    pixels = noise(3, np.uint8, SIZE)
    data = pillow_file(Image.fromarray(pixels), "TGA", compression=compression)
    (tmp_path / "short.tga").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError), open_picture(tmp_path / "short.tga") as picture:
        list(picture.frames())
    with open_picture(tmp_path / "short.tga", ReadOptions(salvage=True)) as picture:
        (frame,) = picture.frames()
    assert frame.note.startswith("salvaged: about ") and frame.note.endswith(" of 120 rows")
    # A TGA begins with the lowest row.
    np.testing.assert_array_equal(frame.pixels[-50:], pixels[-50:])


@pytest.mark.parametrize("factors", [b"\x00", b"\x01", b"\x10"])
def test_a_sampling_factor_of_zero_is_damage(factors):
    data = saved_still(smooth(), "JPEG")
    at = data.index(b"\xff\xc0") + 11  # number, factors and table of the first component follow from byte 10 on
    broken = data[:at] + factors + data[at + 1 :]
    assert isinstance(repaired(broken[:-9]), bytes)
    with pytest.raises(ImageError):
        read(broken)


@pytest.mark.parametrize("stated", [2**28, 2**32 - 16])
def test_a_few_bytes_that_state_a_length_of_gigabytes_are_not_filled(stated):
    data = saved_still(smooth(), "WEBP")
    long = data[:4] + stated.to_bytes(4, "little") + data[8:]
    filled, note = fill_gaps(io.BytesIO(long), "WEBP", 2 * 10**8)
    assert (filled.seek(0, io.SEEK_END), note) == (len(data), None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rows_of_a_png_that_are_there_are_salvaged_exactly(dtype):
    pixels = noise(3, dtype, SIZE)
    raw = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    head = png.header_chunk(pixels.shape, pixels.dtype)
    half = png.make_chunk(b"IDAT", zlib.compress(raw[: len(raw) // 2]))
    (note,), taken = salvaged(png.SIGNATURE + head + half)
    assert note == "salvaged: about 50% of the pixels"
    np.testing.assert_array_equal(taken[:60], pixels[:60])
    assert not taken[60:].any()


def test_a_png_without_a_pixel_is_refused_with_salvage_too():
    data = saved_still(smooth(3, SIZE), "PNG")
    for part in (data[: data.index(b"IDAT") + 4], data[:33]):
        with pytest.raises(ImageError):
            salvaged(part)


@pytest.mark.parametrize("name", ["StripByteCounts", "StripOffsets"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (32, 32)}], ids=str)
def test_strips_and_tiles_without_data_are_missing(options, name):
    pixels = noise(3, np.uint8, SIZE)
    buffer = io.BytesIO()
    plain = {} if "tile" in options else {"rowsperstrip": 16}
    tifffile.imwrite(buffer, pixels, photometric="rgb", metadata=None, **plain, **options)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag = tiff.pages[0].tags[name.replace("Strip", "Tile") if "tile" in options else name]
    size = 4 if tag.dtype == 4 else 2
    data[tag.valueoffset + 3 * size : tag.valueoffset + 4 * size] = bytes(size)
    with pytest.raises(ImageError, match=r"1 of (8|12) (strips|tiles) of the TIFF hold no data .*--salvage"):
        read(bytes(data))
    (note,), taken = salvaged(bytes(data))
    assert note in ("salvaged: 7 of 8 strips of the TIFF", "salvaged: 11 of 12 tiles of the TIFF")
    np.testing.assert_array_equal(taken[:32, :90], pixels[:32, :90]) if "tile" not in options else None
    assert (taken == pixels).mean() > 0.8


def test_a_fax_that_libtiff_mends_is_refused_without_a_line_on_standard_error(capfd):
    image = Image.fromarray(noise(1, np.uint8, SIZE)[..., 0]).convert("1")
    data = bytearray(pillow_file(image, "TIFF", compression="group4"))
    assert read_still(bytes(data))[1].shape == (*SIZE, 1)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        middle = tiff.pages[0].dataoffsets[0] + 200
    data[middle : middle + 40] = b"\xff\0" * 20
    with pytest.raises(ImageError, match="damaged"):
        read(bytes(data))
    assert salvaged(bytes(data))[1].shape == (*SIZE, 1)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("head", [b"P2 3 1 15 ", b"P5 3 1 15 ", b"P5 3 1 999 "])
def test_samples_above_the_maximum_of_a_pnm_are_damage(head):
    white = int(head.split()[3])
    values = [1, white, white + 1]
    if head.startswith(b"P2"):
        data = head + b" ".join(b"%d" % value for value in values)
    else:
        data = head + struct.pack(">3H" if white > 255 else ">3B", *values)
    with pytest.raises(ImageError, match=f"1 values are above the stated maximum of {white}"):
        read(data)
    (note,), taken = salvaged(data)
    assert note == f"salvaged: 1 of 3 values were above the stated maximum of {white}"
    assert taken[0, 1, 0] == taken[0, 2, 0] == np.iinfo(taken.dtype).max


def half_a_bmp() -> bytes:
    """Return a file whose missing rows no one but Pillow notices."""
    data = pillow_file(Image.fromarray(noise(3)), "BMP")
    return data[: len(data) // 2]


def test_a_cut_file_is_refused_while_another_thread_salvages_a_file():
    with ThreadPoolExecutor(1) as other, lenient_pillow():
        refused = other.submit(read, half_a_bmp()).exception(timeout=60)
        (note,), _ = other.submit(salvaged, half_a_bmp()).result(timeout=60)
    assert isinstance(refused, ImageError) and "damaged" in refused.message
    assert note.startswith("salvaged: about ")


def test_a_salvaged_picture_that_a_caller_holds_changes_and_blocks_no_other_picture():
    jpeg = early_end(pillow_file(Image.fromarray(noise(3, np.uint8, (200, 90))), "JPEG"))
    with open_picture(jpeg, ReadOptions(salvage=True)) as picture, ThreadPoolExecutor(1) as other:
        frames = picture.frames()
        assert next(frames).note.startswith("salvaged: about ")
        with pytest.raises(ImageError, match="damaged"):
            read(half_a_bmp())
        other.submit(salvaged, jpeg).result(timeout=60)
        assert list(frames) == []


@pytest.mark.parametrize("setting", [False, True])
def test_the_setting_of_the_program_that_uses_pillow_stays(setting, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", setting)
    salvaged(half_a_bmp())
    assert bool(ImageFile.LOAD_TRUNCATED_IMAGES) is setting
