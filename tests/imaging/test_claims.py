"""Each claim of a file in each format: kept, converted or told, as the table in docs/images.md says."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import IPTC, XMP, exif_block, pillow_file, read, saved, saved_still, smooth
from PIL import Image

from dsclora_cli.imaging.codecs.png import make_chunk
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.isobmff import make_box
from dsclora_cli.imaging.profiles import adobe_rgb_profile
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.tiff_ifd import ASCII, EXIF_IFD, LONG, RATIONAL, SHORT, UNDEFINED, Entry, pack_exif
from dsclora_cli.imaging.types import Header, Metadata
from dsclora_cli.imaging.writer import fit_format

PAGE = Path(__file__).parents[2] / "docs" / "images.md"
NAMES = {"WebP": "WEBP", "JP2": "JPEG2000", "PNM": "PPM"}
ICC = adobe_rgb_profile(3) or b""
ADOBE = pack_exif({EXIF_IFD: Entry(LONG, b"", sub={40961: Entry(SHORT, struct.pack("<H", 2))})}, "<")
VIDEO = b"MotionPhoto_Data" + b"\0\0\0\x18ftypmp42" + bytes(range(40))


def plain(format: str, channels: int = 3) -> bytes:
    return saved_still(smooth(channels), format)


def stated(field: str, value: object) -> Callable[[str], bytes]:
    """Return a function that makes a file of a format with a field of `Metadata`."""
    return lambda format: saved_still(smooth(), format, Metadata(**{field: value}))


def with_chunk(kind: bytes, data: bytes) -> Callable[[str], bytes]:
    """Return a function that puts a chunk behind the head of a PNG."""
    return lambda _: (png := plain("PNG"))[:33] + make_chunk(kind, data) + png[33:]


def with_segment(kind: int, data: bytes) -> Callable[[str], bytes]:
    return lambda _: b"\xff\xd8\xff" + bytes((kind,)) + struct.pack(">H", len(data) + 2) + data + plain("JPEG")[2:]


def with_box(kind: bytes, data: bytes) -> Callable[[str], bytes]:
    def make(format: str) -> bytes:
        start = plain(format)
        if format == "JXL" and start[:2] == b"\xff\x0a":
            start = make_box(b"JXL ", b"\r\n\x87\n") + make_box(b"ftyp", b"jxl \0\0\0\0jxl ") + make_box(b"jxlc", start)
        return start + make_box(kind, data)

    return make


def with_riff(kind: bytes, data: bytes) -> Callable[[str], bytes]:
    def make(_: str) -> bytes:
        webp = plain("WEBP")
        body = webp[12:] + kind + struct.pack("<I", len(data)) + data
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body

    return make


def with_extension(label: int, *blocks: bytes) -> Callable[[str], bytes]:
    content = b"".join(bytes((len(block),)) + block for block in blocks)
    return lambda _: plain("GIF")[:-1] + bytes((0x21, label)) + content + b"\0;"


def with_tag(tag: int, type_: int, data: bytes) -> Callable[[str], bytes]:
    """Return a function that makes a TIFF with a further tag in the only directory."""

    def make(_: str) -> bytes:
        import tifffile

        buffer = io.BytesIO()
        code = {SHORT: "H", ASCII: "s", UNDEFINED: "B"}[type_]
        value = struct.unpack(f"<{len(data) // 2}H", data) if type_ == SHORT else data
        tifffile.imwrite(
            buffer, smooth(), photometric="rgb", metadata=None, extratags=[(tag, code, len(value), value, True)]
        )
        return buffer.getvalue()

    return make


def behind(data: bytes) -> Callable[[str], bytes]:
    return lambda format: plain(format) + data


def bmp_with(kind: int, profile: bytes = b"") -> Callable[[str], bytes]:
    """Return a function that makes a BMP with the header V5, which states colors."""

    def make(_: str) -> bytes:
        bmp = plain("BMP")
        ends = (
            0x28F5C28F,
            0x151EB851,
            0x01EB851F,
            0x1AE147AE,
            0x3B851EB8,
            0x07AE147A,
            0x0999999A,
            0x03D70A3D,
            0x33333333,
        )
        head = struct.pack("<I", 124) + bmp[18:54] + bytes(16) + struct.pack("<I", kind)
        head += struct.pack("<9I3I", *(end // 2 for end in ends), *[int(1.8 * 65536)] * 3)
        head += struct.pack("<4I", 4, 124 + len(bmp) - 54, len(profile), 0)
        return bmp[:10] + struct.pack("<I", 14 + 124) + head + bmp[54:] + profile

    return make


def tga_with(**fields: tuple[int, bytes]) -> Callable[[str], bytes]:
    """Return a function that makes a TGA with an extension area; `fields` are offset and content."""

    def make(_: str) -> bytes:
        pixels = np.dstack([smooth(), np.full(smooth().shape[:2], 255, np.uint8)])
        tga = pillow_file(Image.fromarray(pixels), "TGA")
        start = len(tga) - 26
        area = bytearray(struct.pack("<H", 495) + bytes(492) + b"\3")
        for at, content in fields.values():
            area[at : at + len(content)] = content
        return tga[:start] + bytes(area) + struct.pack("<II", start, 0) + b"TRUEVISION-XFILE.\0"

    return make


def jp2_with(*boxes: bytes, pixels: np.ndarray | None = None) -> Callable[[str], bytes]:
    """Return a function that makes a JP2 with boxes for the meaning of the channels."""

    def make(_: str) -> bytes:
        values = smooth() if pixels is None else pixels
        coded = bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", reversible=True, mct=False))
        height, width, channels = values.shape
        head = make_box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, 7, 7, 0, 0)) + b"".join(boxes)
        start = make_box(b"jP  ", b"\r\n\x87\n") + make_box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        return start + make_box(b"jp2h", head) + make_box(b"jp2c", coded)

    return make


def colors(method: int, data: bytes) -> bytes:
    return make_box(b"colr", bytes((method, 0, 0)) + data)


def definitions(*kinds: tuple[int, int]) -> bytes:
    listed = [struct.pack(">HHH", at, kind, color) for at, (kind, color) in enumerate(kinds)]
    return make_box(b"cdef", struct.pack(">H", len(listed)) + b"".join(listed))


def with_property(kind: bytes, data: bytes) -> Callable[[str], bytes]:
    """Return a function that adds a property to the only picture of an AVIF or HEIF."""

    def make(format: str) -> bytes:
        file = bytearray(plain(format))
        place, boxes = make_box(kind, data), {}
        for name in (b"meta", b"iprp", b"ipco", b"ipma", b"iloc"):
            boxes[name] = file.index(name) - 4
        count = 0
        at, end = boxes[b"ipco"] + 8, boxes[b"ipco"] + int.from_bytes(file[boxes[b"ipco"] :][:4], "big")
        while at < end:
            count, at = count + 1, at + int.from_bytes(file[at : at + 4], "big")
        # Behind the version, the number of items, the first item's number and count, and then its properties.
        listed = boxes[b"ipma"] + 8
        assert file[listed : listed + 8] == b"\0\0\0\0\0\0\0\1"
        at_count = listed + 10
        # A property that changes pixels must be essential, the highest bit.
        file.insert(at_count + 1 + file[at_count], count + 1 | (0x80 if kind == b"clap" else 0))
        file[at_count] += 1
        file[end:end] = place
        for name, grown in ((b"ipma", 1), (b"ipco", len(place)), (b"iprp", 1 + len(place)), (b"meta", 1 + len(place))):
            start = file.index(name) - 4
            file[start : start + 4] = struct.pack(">I", int.from_bytes(file[start : start + 4], "big") + grown)
        _move_items(file, file.index(b"iloc") - 4, 1 + len(place))
        return bytes(file)

    return make


def _move_items(file: bytearray, start: int, by: int) -> None:
    """Add to the places of the items, for a file whose pixels have moved; as Pillow's encoders write the table."""
    version, sizes = file[start + 8], file[start + 12]
    assert version in (0, 1) and sizes == 0x44
    base, at = file[start + 13] >> 4, start + 16
    for _ in range(int.from_bytes(file[start + 14 : start + 16], "big")):
        at += 2 + (2 if version else 0) + 2 + base
        for _ in range(int.from_bytes(file[at : at + 2], "big")):
            old = int.from_bytes(file[at + 2 : at + 6], "big")
            file[at + 2 : at + 6] = struct.pack(">I", old + by)
            at += 8
        at += 2


def gif_with_aspect(_: str) -> bytes:
    gif = bytearray(plain("GIF"))
    gif[12] = 113  # (113 + 15) / 64: pixels twice as wide as high
    return bytes(gif)


def premultiplied_tiff(_: str) -> bytes:
    import tifffile

    pixels = np.dstack([smooth() // 2, np.full(smooth().shape[:2], 128, np.uint8)])
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    return buffer.getvalue()


def infrared_tiff(_: str) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, smooth(4), photometric="rgb", extrasamples=["unspecified"], metadata=None)
    return buffer.getvalue()


def premultiplied_jp2(_: str) -> bytes:
    pixels = np.dstack([smooth() // 2, np.full(smooth().shape[:2], 128, np.uint8)])
    return jp2_with(colors(1, struct.pack(">I", 16)), definitions((0, 1), (0, 2), (0, 3), (2, 0)), pixels=pixels)("")


def apng(_: str) -> bytes:
    from pictures import animation, header_of

    frames, _ = animation()
    return saved(header_of(frames[0].pixels, "PNG", frames=len(frames), animated=True, loop=0), frames)


def two_pages(_: str) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack([smooth(), smooth()]), photometric="rgb", metadata=None, software=False)
    return buffer.getvalue()


def animated(format: str) -> bytes:
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    return pillow_file(first, format, save_all=True, append_images=[second], duration=100)


def animated_jxl(_: str) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(np.stack([smooth(), 255 - smooth()]), lossless=True))


PATH = b"8BIM" + struct.pack(">HHI", 2000, 0, 26) + bytes(26)
C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JXL", "JPEG2000")
SRGB_BOX = colors(1, struct.pack(">I", 16))
P3 = ((b"cICP", bytes((12, 13, 0, 1))),)
UNSPECIFIED_FOURTH = (SRGB_BOX, definitions((0, 1), (0, 2), (0, 3), (65535, 65535)))

MAKERS: dict[str, dict[str, Callable[[str], bytes]]] = {
    "ICC profile": {
        **dict.fromkeys(("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000"), stated("icc", ICC)),
        "GIF": with_extension(0xFF, b"ICCRGBG1012", *(ICC[at : at + 255] for at in range(0, len(ICC), 255))),
        "BMP": bmp_with(0x4D424544, ICC),
    },
    "colours by numbers": {
        "PNG": with_chunk(b"cICP", bytes((12, 13, 0, 1))),
        **dict.fromkeys(("AVIF", "HEIF"), stated("color_chunks", P3)),
        "JPEG2000": jp2_with(colors(5, struct.pack(">HHHB", 12, 13, 0, 128))),
    },
    "primaries, gamma": {
        "PNG": with_chunk(b"gAMA", struct.pack(">I", 100000)),
        "TIFF": with_tag(301, SHORT, bytes(512)),
        "BMP": bmp_with(0),
        "TGA": tga_with(gamma=(478, struct.pack("<HH", 18, 10))),
    },
    "profile elsewhere": {"BMP": bmp_with(0x4C494E4B)},
    "colours by EXIF": dict.fromkeys(("JPEG", "PNG", "WEBP", "TIFF"), stated("exif", ADOBE)),
    "resolution": dict.fromkeys(("JPEG", "PNG", "TIFF", "JPEG2000", "BMP"), stated("dpi", (300.0, 150.0))),
    "pixels not square": {
        **dict.fromkeys(("JPEG", "PNG", "TIFF"), stated("density", (2, 1))),
        **dict.fromkeys(("AVIF", "HEIF"), with_property(b"pasp", struct.pack(">II", 2, 1))),
        "GIF": gif_with_aspect,
        "TGA": tga_with(aspect=(474, struct.pack("<HH", 2, 1))),
    },
    "crop": {"AVIF": with_property(b"clap", struct.pack(">8I", 20, 1, 20, 1, 0, 1, 0, 1))},
    "HDR brightness": dict.fromkeys(("AVIF", "HEIF"), with_property(b"clli", struct.pack(">HH", 1000, 400))),
    "premultiplied alpha": {
        "TIFF": premultiplied_tiff,
        "JPEG2000": premultiplied_jp2,
        "TGA": tga_with(kind=(494, b"\4")),
    },
    "channels without meaning": {
        "TIFF": infrared_tiff,
        "JPEG2000": jp2_with(*UNSPECIFIED_FOURTH, pixels=smooth(4)),
    },
    "EXIF": dict.fromkeys(WITH_EXIF, stated("exif", exif_block())),
    "XMP": {
        **dict.fromkeys(WITH_EXIF, stated("xmp", XMP)),
        "GIF": with_extension(0xFF, b"XMP DataXMP", XMP[:200]),
    },
    "IPTC": dict.fromkeys(("JPEG", "PNG", "TIFF", "JPEG2000"), stated("iptc", IPTC)),
    "comments": {
        **dict.fromkeys(("JPEG", "PNG", "GIF", "PPM"), stated("text", (("comment", "one"), ("comment", "two")))),
        "TGA": tga_with(comment=(43, b"a comment")),
    },
    "texts": {"PNG": stated("text", (("Title", "a"), ("Title", ""), ("Empty", "")))},
    "damaged texts": {"PNG": with_chunk(b"zTXt", b"Title\0\0no zlib")},
    "content credentials": {
        "JPEG": with_segment(0xEB, b"JP\0\1\0\0\0\1" + make_box(b"jumb", bytes(20))),
        "PNG": with_chunk(b"caBX", bytes(20)),
        "WEBP": with_riff(b"C2PA", bytes(20)),
        "TIFF": with_tag(52545, UNDEFINED, bytes(20)),
        **dict.fromkeys(("AVIF", "HEIF"), with_box(b"uuid", C2PA + bytes(8))),
        **dict.fromkeys(("JXL", "JPEG2000"), with_box(b"jumb", bytes(20))),
    },
    "paths of Photoshop": {
        "JPEG": with_segment(0xED, b"Photoshop 3.0\0" + PATH),
        "TIFF": with_tag(34377, UNDEFINED, PATH),
    },
    "unknown parts": {
        "JPEG": with_segment(0xE5, b"Maker\0" + bytes(9)),
        "PNG": with_chunk(b"vpAg", bytes(9)),
        "WEBP": with_riff(b"ABCD", bytes(8)),
        "TIFF": with_tag(65000, ASCII, b"hello\0"),
        **dict.fromkeys(("AVIF", "HEIF", "JXL", "JPEG2000"), with_box(b"abcd", bytes(8))),
        "GIF": with_extension(0xFF, b"ABCDEFGH1.0", b"data"),
    },
    "bytes behind the end": dict.fromkeys(("JPEG", "PNG", "WEBP", "GIF"), behind(VIDEO)),
    "further pictures": {
        "JPEG": lambda _: plain("JPEG") + plain("JPEG"),
        "PNG": apng,
        **dict.fromkeys(("WEBP", "GIF", "AVIF"), animated),
        "TIFF": two_pages,
        "JXL": animated_jxl,
        "PPM": lambda _: plain("PPM") * 2,
        "JPEG2000": lambda _: (jp2 := jp2_with(SRGB_BOX)("")) + jp2[jp2.index(b"jp2c") - 4 :],
    },
}  # fmt: skip
FIELDS = {
    "ICC profile": "icc",
    "colours by numbers": "color_chunks",
    "primaries, gamma": "color_chunks",
    "resolution": "dpi",
    "pixels not square": "density",
    "EXIF": "exif",
    "XMP": "xmp",
    "IPTC": "iptc",
    "comments": "text",
    "texts": "text",
}
CASES = [(claim, format) for claim, makers in MAKERS.items() for format in makers]


def measured(claim: str, format: str) -> tuple[str, Header, tuple[str, ...]]:
    """Return what becomes of a claim when a file is read and written in the same format; the header and the notes."""
    header, frames = read(MAKERS[claim][format](format))
    assert header.format == format
    _, losses = fit_format(header, format, strict=False)
    again, more = read(saved(header, frames))
    field, notes = FIELDS.get(claim), (*header.notes, *losses)
    if claim == "further pictures" and len(more) == len(frames) > 1:
        return "kept", header, notes
    before, after = (getattr(each.metadata, field) if field else None for each in (header, again))
    same = before == after or (field == "dpi" and before and np.allclose(before, after, rtol=0.01))
    if before and (same or (field in ("exif", "xmp") and after)):
        return "kept", header, notes
    if claim == "premultiplied alpha" and header.channels == 4:
        return "converted", header, notes
    return ("converted" if any("became" in note for note in notes) else "told" if notes else "lost"), header, notes


@pytest.mark.parametrize(("claim", "format"), CASES)
def test_every_claim_is_kept_converted_or_told_as_the_page_says(claim: str, format: str):
    extra = FORMATS[format].extra
    if extra and find_spec(FORMATS[format].module) is None:
        pytest.skip(f'needs pip install "dsclora[{extra}]"')
    result, _, notes = measured(claim, format)
    assert result == page_table()[claim][format], notes
    # A claim that is kept needs no sentence.
    assert result != "kept" or notes == () or format == "GIF", notes


def page_table() -> dict[str, dict[str, str]]:
    """Return the table of the page: claim, format, and what becomes of the claim."""
    rows = [
        line.strip()[1:-1].split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    rows = [[cell.strip() for cell in row] for row in rows]
    head = next(at for at, row in enumerate(rows) if row[0] == "what the file says")
    names = [NAMES.get(name, "JXL" if name == "JPEG XL" else name) for name in rows[head][1:]]
    found = {}
    for row in rows[head + 2 :]:
        if len(row) != len(names) + 1:
            break
        found[row[0]] = {name: cell for name, cell in zip(names, row[1:], strict=True) if cell}
    return found


def test_the_page_has_a_cell_for_every_case_and_no_other():
    assert {claim: set(cells) for claim, cells in page_table().items()} == {
        claim: set(makers) for claim, makers in MAKERS.items()
    }


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_video_behind_the_picture_is_named_and_padding_is_not(format):
    header, _ = read(plain(format) + VIDEO)
    assert header.notes == (f"{len(VIDEO)} bytes behind the end of the picture were left out (a motion video)",)
    assert read(plain(format) + b"notes")[0].notes == ("5 bytes behind the end of the picture were left out",)
    assert read(plain(format) + bytes(99) + b"\r\n")[0].notes == ()


def test_pictures_of_an_index_and_cut_files_are_not_counted_as_bytes_behind_the_end():
    index = with_segment(0xE2, b"MPF\0" + bytes(20))("JPEG")
    notes = read(index + bytes(30) + plain("JPEG") + VIDEO)[0].notes
    assert [note for note in notes if "behind the end" in note] == [
        f"{len(VIDEO)} bytes behind the end of the picture were left out (a motion video)"
    ]
    with open_picture(plain("JPEG")[:-2]) as reader:  # the end marker is missing, so nothing is behind
        assert reader.header.notes == ()


def test_shape_of_pixels_stays_without_metadata():
    bare = saved_still(smooth(), "PNG", Metadata(density=(3, 1), text=(("comment", "x"),)), metadata="none")
    assert read(bare)[0].metadata == Metadata(density=(3, 1))


def test_shape_of_pixels_is_turned_with_the_picture():
    metadata = Metadata(density=(2, 1), exif=exif_block(orientation=6))
    header, _ = read(saved_still(smooth(), "JPEG", metadata))
    assert header.metadata.density == (1, 2)
    resolution = Metadata(dpi=(300.0, 150.0), exif=exif_block(orientation=8))
    assert read(saved_still(smooth(), "PNG", resolution))[0].metadata.dpi == pytest.approx((150, 300), rel=1e-3)


@pytest.mark.parametrize("format", ["WEBP", "PPM", "GIF"])
def test_resolution_and_shape_without_room_are_told(format):
    header, _ = read(saved_still(smooth(), "PNG", Metadata(dpi=(300.0, 150.0))))
    assert any("the resolution of 300 x 150 dpi" in loss for loss in fit_format(header, format, strict=False)[1])
    header, _ = read(saved_still(smooth(), "PNG", Metadata(density=(2, 3))))
    assert any("1.5 times as wide as high" in loss for loss in fit_format(header, format, strict=False)[1])
    for unknown in (72.0, 96.0):
        header, _ = read(saved_still(smooth(1), "BMP", Metadata(dpi=(unknown, unknown))))
        assert not any("dpi" in loss for loss in fit_format(header, format, strict=False)[1])


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(FORMATS))
@pytest.mark.parametrize("claim", sorted(FIELDS))
def test_no_claim_is_lost_without_a_word_on_the_way_to_another_format(claim: str, target: str):
    if FORMATS[target].extra and find_spec(FORMATS[target].module) is None:
        pytest.skip("an optional package is missing")
    for format, make in MAKERS[claim].items():
        if FORMATS[format].extra and find_spec(FORMATS[format].module) is None:
            continue
        header, frames = read(make(format))
        before = getattr(header.metadata, FIELDS[claim])
        _, losses = fit_format(header, target, strict=False)
        again = read(saved(header, frames, target))[0].metadata
        kept = getattr(again, FIELDS[claim]) or (
            again.icc if claim in ("colours by numbers", "primaries, gamma") else None
        )
        assert not before or kept or losses, format


def test_other_programs_see_the_shape_of_the_pixels():
    for format, expected in (("PNG", "aspect"), ("JPEG", "jfif_density")):
        with Image.open(io.BytesIO(saved_still(smooth(), format, Metadata(density=(2, 1))))) as image:
            assert image.info[expected] == (2, 1)


def test_all_entries_of_exif_with_the_tag_of_the_orientation_are_reset():
    block = bytearray(pack_exif({274: Entry(SHORT, b"\6\0"), 275: Entry(SHORT, b"\x08\0")}, "<"))
    at = block.index(struct.pack("<H", 275))
    block[at : at + 2] = struct.pack("<H", 274)
    header, frames = read(saved_still(smooth(), "JPEG", Metadata(exif=bytes(block))))
    assert frames[0].shape[:2] == smooth().shape[1::-1]
    assert re.findall(rb"\x12\x01\x03\x00\x01\x00\x00\x00(.)", header.metadata.exif or b"", re.DOTALL) == [b"\1", b"\1"]
    # A TIFF has each tag once.
    assert fit_format(header, "TIFF", strict=False)[1] == ()


def test_entries_of_exif_without_a_place_in_a_tiff_are_told():
    exif = pack_exif({271: Entry(ASCII, b"maker\0"), 60001: Entry(ASCII, b"what\0")}, "<")
    losses = fit_format(read(saved_still(smooth(), "JPEG", Metadata(exif=exif)))[0], "TIFF", strict=False)[1]
    assert losses == ("entries of EXIF that have no place in a TIFF were left out: 60001",)


def test_damaged_profile_of_a_png_is_told():
    png = plain("PNG")
    header, _ = read(png[:33] + make_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"a" * 99)[:-6]) + png[33:])
    assert header.notes == ("the colour profile is damaged and was left out",)


@pytest.mark.parametrize(
    ("unit", "dpi", "density"),
    [(2, (300.0, 150.0), None), (3, (762.0, 381.0), None), (1, None, (2, 1)), (None, (300.0, 150.0), None)],
)
def test_resolution_that_exif_alone_states_keeps_both_values(unit, dpi, density):
    entries = {
        282: Entry(RATIONAL, struct.pack("<II", 300, 1)),
        283: Entry(RATIONAL, struct.pack("<II", 150, 1)),
        **({} if unit is None else {296: Entry(SHORT, struct.pack("<H", unit))}),
    }
    jpeg = saved_still(smooth(), "JPEG", Metadata(exif=pack_exif(entries, "<")))
    # The head (JFIF) is the first segment, of 18 bytes with its marker.
    assert jpeg[6:10] == b"JFIF"
    header, _ = read(jpeg[:2] + jpeg[20:])
    assert (header.metadata.dpi, header.metadata.density) == (dpi, density)
