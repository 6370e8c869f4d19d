"""XMP: what counts pixels is scaled, places are turned, and claims about parts that are gone are removed."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import XMP

from dsclora_cli.imaging import xmp
from dsclora_cli.imaging.xmp import Change, edit_xmp

TWICE = Change(80, 60, (Fraction(2), Fraction(2)))


def packet(attributes: str = "", inner: str = "") -> bytes:
    """Return a packet with a description."""
    description = f"<rdf:Description {attributes}>{inner}</rdf:Description>"
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{description}</x:xmpmeta>'.encode()


def numbers(data: bytes) -> list[str]:
    """Return the values of attributes and of elements that are numbers."""
    return re.findall(r"""["'>](-?[\d./]+)["'<]""", data.decode())


def test_the_six_counts_of_a_photo_sphere_are_scaled():
    names = (
        "FullPanoWidth",
        "FullPanoHeight",
        "CroppedAreaImageWidth",
        "CroppedAreaImageHeight",
        "CroppedAreaLeft",
        "CroppedAreaTop",
    )
    attributes = " ".join(f'GPano:{name}Pixels="{10 + at}"' for at, name in enumerate(names))
    elements = "".join(f"<GPano:{name}Pixels>{10 + at}</GPano:{name}Pixels>" for at, name in enumerate(names))
    change = Change(80, 90, (Fraction(2), Fraction(3)))
    for data in (packet(attributes), packet("", elements)):
        assert numbers(edit_xmp(data, change)[0]) == ["20", "33", "24", "39", "28", "45"]
        assert edit_xmp(data, Change(40, 30)) == (data, ())


def test_prefixes_are_those_that_the_packet_declares():
    data = packet('xmlns:p="http://ns.google.com/photos/1.0/panorama/" p:FullPanoWidthPixels="10" GPano:Other="3"')
    assert b'p:FullPanoWidthPixels="20"' in edit_xmp(data, TWICE)[0]


def test_fractions_and_lists_are_scaled():
    members = "<rdf:li>10</rdf:li><rdf:li>20</rdf:li><rdf:li>6</rdf:li>"
    seq = f"<exif:SubjectArea><rdf:Seq>{members}</rdf:Seq></exif:SubjectArea>"
    data = packet('exif:FocalPlaneXResolution="1000/3" exif:FocalPlaneYResolution="12.5"', seq)
    assert numbers(edit_xmp(data, TWICE)[0]) == ["2000/3", "25", "20", "40", "12"]


REGION = (
    '<mwg-rs:AppliedToDimensions stDim:w="40" stDim:h="30" stDim:unit="pixel"/>'
    '<mwg-rs:Area stArea:x="0.25" stArea:y="0.2" stArea:w="0.1" stArea:h="0.4" stArea:unit="normalized"/>'
    "<MPReg:Rectangle>0.2, 0, 0.1, 0.4</MPReg:Rectangle>"
)


def test_regions_keep_their_place():
    assert numbers(edit_xmp(packet("", REGION), TWICE)[0])[:2] == ["80", "60"]
    turned = edit_xmp(packet("", REGION), Change(30, 40, orientation=6))[0]
    assert numbers(turned) == ["30", "40", "0.8", "0.25", "0.4", "0.1"]
    assert b"<MPReg:Rectangle>0.6, 0.2, 0.4, 0.1</MPReg:Rectangle>" in turned


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_place_turns_with_the_pixels(orientation):
    import numpy as np

    from dsclora_cli.imaging.color import apply_orientation

    pixels = np.zeros((30, 40, 1), np.uint8)
    pixels[7, 11] = 1
    turned = apply_orientation(pixels, orientation)
    height, width, _ = turned.shape
    x, y = Change(width, height, orientation=orientation).place(11.5 / 40, 7.5 / 30)
    assert turned[int(y * height), int(x * width)] == 1


@pytest.mark.parametrize(
    ("attributes", "inner", "part"),
    [
        ('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" GCamera:MicroVideoOffset="99"', "", "a motion video"),
        ('c:MotionPhoto="1" xmlns:c="http://ns.google.com/photos/1.0/camera/"', "", "a motion video"),
        (
            'hdrgm:Version="1.0"',
            "<hdrgm:GainMapMax><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></hdrgm:GainMapMax>",
            "a gain map",
        ),
        (
            "",
            "<Container:Directory><rdf:Seq><rdf:li/></rdf:Seq></Container:Directory>",
            "pictures or videos behind the picture",
        ),
        ('GDepth:Format="RangeInverse"', "<GDepth:Data>AAAA</GDepth:Data>", "a depth map"),
    ],
)
def test_claims_about_parts_that_are_gone_are_removed_and_told(attributes, inner, part):
    edited, notes = edit_xmp(
        packet(f'dc:format="a" {attributes} xmp:Rating="5"', f"{inner}<dc:title>t</dc:title>"), TWICE
    )
    plain = re.sub(rb' xmlns:c="[^"]*"', b"", edited).replace(b"  ", b" ")
    assert plain == packet('dc:format="a" xmp:Rating="5"', "<dc:title>t</dc:title>")
    assert notes == (f"metadata of parts that are not kept was removed: {part}",)


def test_an_orientation_is_read_where_it_is_reset():
    for data in (packet('tiff:Orientation="6"'), packet("", "<tiff:Orientation> 6 </tiff:Orientation>")):
        assert xmp.read_xmp_orientation(data) == 6
        assert xmp.read_xmp_orientation(edit_xmp(data, TWICE)[0]) == 1
    for wrong in (
        b"",
        b"text",
        packet('tiff:Orientation="9"'),
        packet('tiff:Orientation=""'),
        packet('tiff:Orientation="66"'),
    ):
        assert xmp.read_xmp_orientation(wrong) == 1


@given(
    st.lists(
        st.sampled_from(
            [XMP, b"<a:b>", b"</a:b>", b' tiff:Orientation="', b"6", b'"', b"<", b">", b"\xff", REGION.encode()]
        )
    )
)
def test_any_bytes_can_be_edited(parts):
    data = b"".join(parts)
    once, _ = edit_xmp(data, TWICE)
    assert edit_xmp(once, Change(80, 60)) == (once, ())
