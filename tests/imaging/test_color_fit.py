"""Colors that a file states are carried into every format, converted, or told."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from pictures import (
    NOTHING,
    cmyk_profile,
    gray_profile,
    header_of,
    pillow_file,
    read,
    read_still,
    rgb_profile,
    saved_still,
    smooth,
)
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.png import make_chunk
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.profiles import profile_of_chunks, profile_space, srgb_profile
from dsclora_cli.imaging.tiff_ifd import EXIF_IFD, INTEROP_IFD, LONG, RATIONAL, SHORT, Entry, pack_exif
from dsclora_cli.imaging.types import Metadata
from dsclora_cli.imaging.writer import fit_format

LINEAR = ((b"gAMA", struct.pack(">I", 100000)),)
P3 = ((b"cICP", bytes((12, 13, 0, 1))),)
PQ = ((b"cICP", bytes((9, 16, 0, 1))), (b"mDCV", bytes(24)), (b"cLLI", bytes(8)))
SRGB = ((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455)))
WIDE = (
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)),
    (b"gAMA", struct.pack(">I", 45470)),
)
WRITTEN = sorted(name for name, abilities in FORMATS.items() if not abilities.extra)


def fitted(channels: int, name: str, metadata: Metadata = NOTHING, format: str = "PNG", strict: bool = False):
    """Return the metadata in a format, and the sentences."""
    header, losses = fit_format(header_of(smooth(channels), format, metadata), name, strict)
    return header.metadata, losses


def light(profile: bytes, channels: int) -> np.ndarray:
    """Return the linear sRGB of some colors under a profile."""
    colors = np.array(
        [[[0, 0, 0], [64, 64, 64], [128, 128, 128], [255, 255, 255], [200, 40, 40], [30, 220, 90]]], np.uint8
    )
    linear = imagecodecs.cms_profile("gray", whitepoint=(0.3127, 0.329, 1.0), gamma=1.0)
    given = np.ascontiguousarray(colors if channels > 2 else colors[:, :4, 0])
    space = "rgb" if channels > 2 else "gray"
    return imagecodecs.cms_transform(
        given, profile, linear, colorspace=space, outcolorspace="gray", outdtype="u2"
    ).ravel()[:4]


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("chunks", [LINEAR, P3, PQ, SRGB, WIDE])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_statement_about_colors_is_lost_without_a_word(name, chunks, channels):
    metadata, losses = fitted(channels, name, Metadata(color_chunks=chunks))
    kept = metadata.color_chunks or metadata.icc
    assert kept or chunks is SRGB or any("colours" in loss for loss in losses)
    assert chunks is not SRGB or losses in ((), ("GIF holds 256 colours per frame: other colours are approximated",))
    if name == "PNG":
        assert metadata.color_chunks == chunks and not losses
    channels_written = fit_format(header_of(smooth(channels), "PNG"), name, False)[0].channels
    assert metadata.icc is None or profile_space(metadata.icc) == ("RGB" if channels_written > 2 else "GRAY")


def test_a_file_carries_what_was_stated():
    jpeg, _ = read_still(saved_still(smooth(), "JPEG", Metadata(color_chunks=P3)))
    assert jpeg.metadata.icc == profile_of_chunks(P3, 3)
    for name in ("AVIF", "PNG"):
        again, _ = read_still(saved_still(smooth(), name, Metadata(color_chunks=P3)))
        assert again.metadata.color_chunks == P3
    avif, _ = read_still(saved_still(smooth(), "AVIF", Metadata(color_chunks=PQ)))
    assert avif.metadata.color_chunks == PQ[:1]
    # Readers of PNG know profiles better than cICP.
    metadata, _ = fitted(3, "PNG", Metadata(color_chunks=P3), format="AVIF")
    assert metadata == Metadata(icc=profile_of_chunks(P3, 3), color_chunks=P3)


def test_hdr_that_has_no_room_is_refused_by_strict():
    with pytest.raises(ImageError, match=r"HDR colours \(PQ\)"):
        fitted(3, "JPEG", Metadata(color_chunks=PQ), strict=True)


def test_chunks_become_the_profile_that_they_mean():
    assert profile_of_chunks(SRGB, 3) == srgb_profile() == profile_of_chunks(SRGB[1:], 3)
    assert light(profile_of_chunks(LINEAR, 3), 3)[2] == pytest.approx(65535 * 128 / 255, abs=64)
    assert light(profile_of_chunks(LINEAR, 1), 1)[2] == pytest.approx(65535 * 128 / 255, abs=64)
    assert light(profile_of_chunks(SRGB, 1), 1) == pytest.approx(light(srgb_profile(), 3), abs=64)
    assert light(profile_of_chunks(P3, 3), 3) == pytest.approx(light(srgb_profile(), 3), abs=64)
    assert profile_of_chunks(P3, 3) == profile_of_chunks(P3, 3)  # no time in it


@pytest.mark.parametrize(
    "chunks", [((b"gAMA", bytes(4)),), ((b"cHRM", bytes(32)),), ((b"cHRM", b"\xff" * 32),), ((b"gAMA", b"1"),)]
)
def test_chunks_that_mean_nothing_are_those_of_srgb(chunks):
    assert profile_of_chunks(chunks, 3) == srgb_profile()


@pytest.mark.parametrize("name", ["WEBP", "JPEG", "TIFF", "PNG", "AVIF"])
def test_a_gray_profile_fits_the_pixels_that_are_written(name):
    metadata, losses = fitted(1, name, Metadata(icc=gray_profile()), format="JPEG")
    if name == "WEBP":
        assert losses == ("a grey profile became an RGB profile of the same tone, to fit the pixels",)
        assert light(metadata.icc, 3) == pytest.approx(light(gray_profile(), 1), abs=64)
    else:
        assert metadata.icc == gray_profile() and losses == ()


def test_profiles_that_do_not_fit_are_converted_or_left_out_with_a_warning():
    metadata, losses = fitted(1, "JPEG", Metadata(icc=rgb_profile()))
    assert losses == ("an RGB profile became a grey profile of the same tone, to fit the pixels",)
    assert light(metadata.icc, 1) == pytest.approx(light(srgb_profile(), 3), abs=64)
    for wrong in (gray_profile(), cmyk_profile()):
        metadata, losses = fitted(3, "JPEG", Metadata(icc=wrong))
        assert metadata.icc is None and "is made for" in losses[0]
    for damaged in (b"x", srgb_profile()[:300], bytes(600)):
        metadata, losses = fitted(3, "JPEG", Metadata(icc=damaged))
        assert metadata.icc is None and losses == ("the colour profile is damaged and was left out",)


@pytest.mark.parametrize(("primaries", "transfer", "chunks"), [(12, 13, P3), (1, 13, ()), (2, 2, ()), (9, 16, PQ[:1])])
def test_numbers_of_an_avif_are_read(primaries, transfer, chunks):
    data = pillow_file(Image.fromarray(smooth()), "AVIF")
    at = data.index(b"nclx") + 4
    header, _ = read_still(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :])
    assert header.metadata.color_chunks == chunks


def bmp(kind: bytes, ends: list[float], profile: bytes = b"") -> bytes:
    """Return a BMP with a header of version 5."""
    plain = pillow_file(Image.fromarray(smooth()), "BMP")
    head = bytearray(124)
    head[:40] = plain[14:54]
    head[:4] = struct.pack("<I", 124)
    head[56:60] = kind
    head[60:96] = struct.pack("<9i", *(round(value * 2**30) for value in ends))
    head[96:108] = struct.pack("<3I", *[round(1.8 * 2**16)] * 3)
    head[112:120] = struct.pack("<II", 124 + len(plain) - 54, len(profile))
    return plain[:10] + struct.pack("<I", 138) + bytes(head) + plain[54:] + profile


def test_the_colors_of_a_bmp_are_read():
    p3 = [0.4866, 0.229, 0.0, 0.2657, 0.6917, 0.0451, 0.1982, 0.0793, 1.0439]
    header, pixels = read_still(bmp(bytes(4), p3))
    np.testing.assert_array_equal(pixels, smooth())
    (chrm, corners), (gama, gamma) = header.metadata.color_chunks
    assert (chrm, gama) == (b"cHRM", b"gAMA") and abs(int.from_bytes(gamma, "big") - 55556) <= 1
    assert [value / 100000 for value in struct.unpack(">8I", corners)[2:4]] == pytest.approx([0.68, 0.32], abs=1e-3)
    for nothing in (bmp(b"BGRs", p3), bmp(bytes(4), [0.0] * 9)):
        metadata = read_still(nothing)[0].metadata
        assert metadata.icc is None and metadata.color_chunks == ()
    assert read_still(bmp(b"DEBM", p3, rgb_profile()))[0].metadata.icc == rgb_profile()


def test_the_primaries_of_a_tiff_are_read():
    import tifffile

    def rationals(*values: float) -> tuple[int, ...]:
        return tuple(part for value in values for part in (round(value * 10000), 10000))

    tags = [
        (318, 5, 2, rationals(0.3127, 0.329), True),
        (319, 5, 6, rationals(0.68, 0.32, 0.265, 0.69, 0.15, 0.06), True),
    ]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, smooth(), photometric="rgb", extratags=[*tags, (301, 3, 768, tuple(range(768)), True)])
    header, _ = read(buffer.getvalue())
    assert header.metadata.color_chunks[0][0] == b"cHRM" and "transfer function" in header.notes[0]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, smooth(), photometric="rgb", extratags=tags, iccprofile=rgb_profile())
    header, _ = read(buffer.getvalue())
    assert header.metadata.icc == rgb_profile() and not header.metadata.color_chunks and not header.notes


def exif_of_colors(space: int | None, index: bytes | None = None, extra: dict[int, tuple] | None = None) -> bytes:
    """Return EXIF with ColorSpace, InteropIndex and further entries."""
    sub = {} if space is None else {40961: Entry(SHORT, struct.pack("<H", space))}
    if index:
        sub[INTEROP_IFD] = Entry(LONG, b"", sub={1: Entry(2, index + b"\0")})
    first = {EXIF_IFD: Entry(LONG, b"", sub=sub)}
    for tag, values in (extra or {}).items():
        data = b"".join(struct.pack("<II", round(value * 10000), 10000) for value in values)
        (first if tag < 40000 else sub)[tag] = Entry(RATIONAL, data)
    return pack_exif(first, "<")


ADOBE_POINTS = {318: (0.3127, 0.329), 319: (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 42240: (2.2,)}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("space", "index"), [(65535, b"R03"), (2, None), (None, b"R03")])
def test_adobe_rgb_that_exif_alone_states_becomes_a_profile(format, space, index):
    header, pixels = read_still(saved_still(smooth(), format, Metadata(exif=exif_of_colors(space, index)), quality=100))
    assert header.notes == ("Adobe RGB, which EXIF alone states, became a colour profile",)
    # As another program sees the profile, next to a profile of the published numbers, made apart.
    color = np.array([[[219, 0, 0], [100, 180, 60]]], np.uint8)
    known = imagecodecs.cms_profile(
        "rgb", whitepoint=(0.3127, 0.329, 1.0), primaries=(0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1), gamma=563 / 256
    )
    seen, wanted = (
        imagecodecs.cms_transform(color, profile, srgb_profile(), colorspace="rgb", outcolorspace="rgb").astype(int)
        for profile in (header.metadata.icc, known)
    )
    assert np.abs(seen - wanted).max() <= 1 and np.abs(seen - color).max() > 30
    # Without EXIF the picture still has its colors; where there is no room for a profile, a sentence says so.
    bare = read_still(saved_still(pixels, format, header.metadata, metadata="none"))[0]
    assert bare.metadata.icc == header.metadata.icc and bare.metadata.exif is None and bare.notes == ()
    _, losses = fit_format(header, "BMP", strict=False)
    assert any("the colour profile" in loss for loss in losses)


def test_colors_that_exif_gives_by_primaries_become_a_profile():
    exif = exif_of_colors(65535, None, ADOBE_POINTS)
    header, _ = read_still(saved_still(smooth(), "JPEG", Metadata(exif=exif)))
    assert header.notes == ("colours given by primaries, which EXIF alone states, became a colour profile",)
    assert profile_space(header.metadata.icc) == "RGB"
    gray, _ = read_still(saved_still(smooth(1), "JPEG", Metadata(exif=exif)))
    assert profile_space(gray.metadata.icc) == "GRAY"


@pytest.mark.parametrize(
    ("metadata", "note"),
    [
        (Metadata(exif=exif_of_colors(65535)), "EXIF states colours other than sRGB, but"),
        (Metadata(exif=exif_of_colors(0xFFFD, b"R98")), "EXIF states colours other than sRGB, but"),
        (Metadata(xmp=b'<a exif:ColorSpace="65535"/>'), "XMP states colours other than sRGB, but"),
        (Metadata(xmp=b'<a photoshop:ICCProfile="eciRGB v2"/>'), 'XMP names the colour profile "eciRGB v2", but'),
    ],
)
def test_colors_without_a_profile_are_told(metadata, note):
    header, _ = read_still(saved_still(smooth(), "JPEG", metadata))
    assert len(header.notes) == 1 and header.notes[0].startswith(note) and header.metadata.icc is None


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata(exif=exif_of_colors(1, b"R98")),
        Metadata(exif=exif_of_colors(1, b"R03")),
        Metadata(exif=exif_of_colors(65535, b"R03"), icc=rgb_profile()),
        Metadata(xmp=b'<a photoshop:ICCProfile="sRGB IEC61966-2.1"/>'),
    ],
)
def test_srgb_and_files_with_a_profile_get_no_other_profile(metadata):
    header, _ = read_still(saved_still(smooth(), "JPEG", metadata))
    assert header.notes == () and header.metadata.icc == metadata.icc


@pytest.mark.parametrize("name", ["JPEG", "AVIF", "GIF"])
def test_a_narrow_range_is_kept_in_png_and_told_elsewhere(name):
    narrow = ((b"cICP", bytes((1, 1, 0, 0))),)
    assert fitted(3, "PNG", Metadata(color_chunks=narrow)) == (Metadata(color_chunks=narrow), ())
    metadata, losses = fitted(3, name, Metadata(color_chunks=narrow))
    assert metadata.color_chunks == () and metadata.icc is None
    assert f"{name} has no room for the colours stated by cICP: the picture will look different" in losses


def test_a_profile_in_the_text_of_a_png_is_read():
    hidden = f"\nicc\n{len(rgb_profile()):8}\n{rgb_profile().hex()}\n".encode()
    chunk = make_chunk(b"zTXt", b"Raw profile type icc\0\0" + zlib.compress(hidden))
    png = saved_still(smooth(), "PNG")
    header, _ = read_still(png[:33] + chunk + png[33:])
    assert header.metadata.icc == rgb_profile() and header.metadata.text == ()


def test_a_profile_of_which_a_part_is_missing_is_told():
    part = b"ICC_PROFILE\0\1\2" + rgb_profile()
    segment = b"\xff\xe2" + struct.pack(">H", len(part) + 2) + part
    header, _ = read_still(b"\xff\xd8" + segment + saved_still(smooth(), "JPEG")[2:])
    assert header.notes == ("the colour profile is damaged and was left out",) and header.metadata.icc is None
