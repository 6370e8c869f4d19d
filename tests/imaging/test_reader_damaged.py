"""Files that are damaged, too large or no pictures: an error on one line, and nothing on standard error."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pictures import (
    HEIGHT,
    IPTC,
    WIDTH,
    animation,
    everything,
    header_of,
    noise,
    pillow_file,
    read,
    read_still,
    saved,
    saved_still,
    smooth,
)
from PIL import Image

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError, ImageUnreadable
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.reader import open_picture

PLAIN = sorted(name for name, abilities in FORMATS.items() if not abilities.extra)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("format", PLAIN)
def test_a_truncated_file_is_an_error_and_never_half_a_picture(format, share):
    data = saved_still(noise(3, np.uint8, (120, 90)), format)
    with pytest.raises(ImageError, match="<stdin>: ") as caught:
        read(data[: int(len(data) * share)])
    assert "\n" not in str(caught.value)


LIBRARY_WORDS = re.compile(r"decoder|BMFF|processed|Error|object|100%")


def cut_files() -> dict[str, bytes]:
    """Return files of every format that lack some of the end, by a name for the test."""
    whole = {name: saved_still(noise(3, np.uint8, (120, 90)), name) for name in PLAIN}
    whole["TIFF of another program"] = pillow_file(Image.fromarray(noise(3)), "TIFF")
    ends = {"bytes": -8, "a part": 6}
    return {
        f"{name} without {end}": data[:at] if at < 0 else data[: len(data) * at // 10]
        for name, data in whole.items()
        for end, at in ends.items()
    }


CUT = cut_files()


@pytest.mark.parametrize("kind", CUT)
def test_the_next_step_for_a_cut_file_names_salvage_if_and_only_if_salvage_takes_the_file(kind, tmp_path: Path):
    path = tmp_path / ("cut.tga" if kind.startswith("TGA") else "cut")
    path.write_bytes(CUT[kind])

    def fault(options: ReadOptions) -> ImageError | None:
        try:
            with open_picture(path, options) as picture:
                assert [frame.pixels.size > 0 for frame in picture.frames()] == [True]
        except ImageError as error:
            return error
        return None

    refused, salvage = fault(ReadOptions()), fault(ReadOptions(salvage=True))
    if refused is None:
        assert kind == "TGA without bytes", "a cut that leaves no trace"
        return
    assert ("--salvage" in refused.hint) == (salvage is None), refused
    assert not LIBRARY_WORDS.search(refused.message.removeprefix(str(path))), refused
    assert salvage is None or "--salvage" not in salvage.hint
    assert salvage is None or "TIFF" in kind, salvage


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_a_truncated_animation_is_an_error(format):
    frames, _ = animation()
    header = header_of(frames[0].pixels, format, frames=len(frames), animated=True, loop=0)
    data = saved(header, frames)
    with pytest.raises(ImageError):
        read(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "the file is empty", "copy or download"),
        (b"just some text\n" * 20, "is not a picture in a known format", "known formats: JPEG, PNG,"),
        (b"\xff\xd8\xff", "damaged or truncated", "copy or download"),
        (b"\x89PNG\r\n\x1a\n", "the PNG is truncated", "copy or download"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "states no size", "copy or download"),
        (b"RIFF\x08\0\0\0WEBPVP8 ", "damaged or truncated", "copy or download"),
    ],
)
def test_a_file_that_is_no_picture_is_refused_on_one_line_with_the_next_step(content, message, hint, tmp_path: Path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        open_picture(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert isinstance(caught.value, ImageUnreadable) and caught.value.hint.startswith(hint)


def test_folders_missing_files_and_unreadable_files_are_errors(tmp_path: Path):
    with pytest.raises(ImageError, match="is a folder, not a picture"):
        open_picture(tmp_path)
    with pytest.raises(ImageUnreadable, match="No such file") as caught:
        open_picture(tmp_path / "absent.png")
    assert caught.value.hint == "check the path and the permissions"
    locked = tmp_path / "locked.png"
    locked.write_bytes(saved_still(smooth(), "PNG"))
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ImageError, match="Permission denied"):
        open_picture(locked)


def test_a_changed_byte_in_the_pixels_is_an_error():
    data = bytearray(saved_still(noise(3), "PNG"))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(ImageError, match="damaged"):
        read(bytes(data))


def test_decoders_print_nothing_about_harmless_defects(capfd):
    """A gray PNG with an RGB profile and a TIFF with a damaged tag are common and harmless."""
    pixels = smooth(1)
    np.testing.assert_array_equal(read_still(saved_still(pixels, "PNG", everything()))[1], pixels)
    tiff = saved_still(pixels, "TIFF", with_size(everything(), WIDTH, HEIGHT))
    broken = tiff.replace(struct.pack("<HHI", 33723, 7, len(IPTC)), struct.pack("<HHI", 33723, 99, len(IPTC)))
    assert broken != tiff
    np.testing.assert_array_equal(read_still(broken)[1], pixels)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=60, deadline=None)
@given(format=some.sampled_from(PLAIN), places=some.lists(some.integers(0, 10**6), min_size=1, max_size=5))
def test_any_damage_is_read_or_is_an_error_on_one_line(format, places):
    data = bytearray(saved_still(smooth(), format, everything()))
    for place in places:
        data[place % len(data)] ^= 1 + place % 255
    try:
        header, frames = read(bytes(data))
        # The damage is outside the pixels, or the format has no means to notice.
        assert len(frames) == header.frames
        return
    except ImageError as error:
        message, hint = str(error), error.hint
    assert message.startswith("<stdin>: ") and "\n" not in message and hint
