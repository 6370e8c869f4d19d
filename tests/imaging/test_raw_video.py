"""Frames of uncompressed video as pixels and back, against formulas written another way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.imaging.raw_video import MATRICES, FrameLayout, read_frame, read_header

LAYOUTS = ("420", "422", "444", "411", "410", "440")


def raw(data: bytes) -> io.RawIOBase:
    class Raw(io.RawIOBase):
        """A pipe that gives a few bytes at a time."""

        def __init__(self) -> None:
            self._left = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            some = self._left.read(min(len(buffer), 7))
            buffer[: len(some)] = some
            return len(some)

    return Raw()


def test_the_header_of_ffmpeg() -> None:
    line = b"YUV4MPEG2 W352 H288 F30000:1001 Ip A128:117 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED\n"
    header = read_header(raw(line + b"FRAME\n"))
    assert header.layout == FrameLayout(352, 288, "420", (True, False))
    assert header.says_range
    assert header.line(704, 576) == line.replace(b"W352 H288", b"W704 H576")


@pytest.mark.parametrize(
    ("name", "chroma", "siting", "bits"),
    [
        ("420jpeg", "420", (False, False), 8),
        ("420", "420", (False, False), 8),
        ("420paldv", "420", (True, True), 8),
        ("420p10", "420", (True, False), 10),
        ("422p12", "422", (True, False), 12),
        ("444", "444", (True, False), 8),
        ("mono", "mono", (True, False), 8),
        ("mono16", "mono", (True, False), 16),
    ],
)
def test_names_of_layouts(name: str, chroma: str, siting: tuple[bool, bool], bits: int) -> None:
    layout = read_header(raw(f"YUV4MPEG2 W4 H2 C{name}\n".encode())).layout
    assert layout == FrameLayout(4, 2, chroma, siting, bits)


def test_a_header_without_layout_is_420jpeg_in_the_limited_range() -> None:
    header = read_header(raw(b"YUV4MPEG2 W4 H2\n"))
    assert (header.layout.chroma, header.layout.siting, header.layout.full_range) == ("420", (False, False), False)
    assert read_header(raw(b"YUV4MPEG2 W4 H2 XCOLORRANGE=FULL\n")).layout.full_range


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "stdin is empty"),
        (b"RIFF....AVI ", "stdin holds no y4m video"),
        (b"x" * 9999, "stdin holds no y4m video"),
        (b"YUV4MPEG2", "stdin ends inside the y4m header"),
        (b"YUV4MPEG2 W64 H4", "stdin ends inside the y4m header"),
        (b"YUV4MPEG2 W4\n", "no usable width and height"),
        (b"YUV4MPEG2 W0 H4\n", "no usable width and height"),
        (b"YUV4MPEG2 W-4 H4\n", "no usable width and height"),
        (b"YUV4MPEG2 W99999999 H4\n", "no usable width and height"),
        (b"YUV4MPEG2 W4 H4 It\n", "interlaced"),
        (b"YUV4MPEG2 W4 H4 C444alpha\n", "444alpha of the y4m stream is not supported"),
        (b"YUV4MPEG2 W4 H4 C\xff\x1b[2J\n", "is not supported"),
    ],
)
def test_a_header_that_cannot_be_used(stream: bytes, message: str) -> None:
    with pytest.raises(ImageUnreadable) as caught:
        read_header(raw(stream))
    assert message in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_frames_are_read_to_the_byte() -> None:
    layout = FrameLayout(4, 2, "mono")
    stream = raw(b"FRAME Ip\n12345678FRAME\nabcdefgh")
    assert read_frame(stream, layout, 1, marked=True) == (b"FRAME Ip", bytearray(b"12345678"))
    assert read_frame(stream, layout, 2, marked=True) == (b"FRAME", bytearray(b"abcdefgh"))
    assert read_frame(stream, layout, 3, marked=True) is None
    with pytest.raises(ImageUnreadable, match="ends inside frame 4: 5 of 8 bytes"):
        read_frame(raw(b"FRAME\n12345"), layout, 4, marked=True)
    with pytest.raises(ImageUnreadable, match="no y4m frame at frame 2"):
        read_frame(raw(b"FRAMES\n12345678"), layout, 2, marked=True)
    with pytest.raises(ImageUnreadable, match="no y4m frame at frame 3"):
        read_frame(raw(b"\nFRAME\n12345678"), layout, 3, marked=True)


def test_known_colors() -> None:
    """Pure colors, as ITU-R BT.601 and BT.709 define them in 8 bits."""
    for matrix, red in (("bt601", (81, 90, 240)), ("bt709", (63, 102, 240))):
        layout = FrameLayout(2, 2, "444", matrix=matrix)
        frame = np.repeat(np.array(red, np.uint8), 4).tobytes()
        assert np.abs(layout.to_pixels(frame) - [1, 0, 0]).max() < 0.01
        pure = np.zeros((2, 2, 3), np.float32) + np.float32([1, 0, 0])
        assert layout.to_bytes(pure) == frame
    for full, black, white in ((False, 16, 235), (True, 0, 255)):
        layout = FrameLayout(1, 1, "444", full_range=full)
        assert layout.to_bytes(np.ones((1, 1, 3), np.float32)) == bytes([white, 128, 128])
        assert layout.to_bytes(np.zeros((1, 1, 3), np.float32)) == bytes([black, 128, 128])


@given(
    chroma=st.sampled_from((*LAYOUTS, "mono")),
    bits=st.sampled_from((8, 10, 12, 16)),
    matrix=st.sampled_from(sorted(MATRICES)),
    full=st.booleans(),
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    level=st.floats(0, 1),
)
def test_a_gray_frame_comes_back_to_the_bit(chroma, bits, matrix, full, width, height, level) -> None:
    layout = FrameLayout(width, height, chroma, (True, False), bits, matrix, full)
    pixels = np.full((height, width, layout.channels), level, np.float32)
    frame = layout.to_bytes(pixels)
    assert len(frame) == layout.frame_bytes
    back = layout.to_pixels(frame)
    assert back.shape == pixels.shape
    assert np.abs(back - pixels).max() < 0.7 / 219 / 2 ** (bits - 8)
    assert layout.to_bytes(back) == frame


@given(seed=st.integers(0, 99), matrix=st.sampled_from(sorted(MATRICES)), full=st.booleans())
def test_colors_survive_without_subsampling(seed: int, matrix: str, full: bool) -> None:
    layout = FrameLayout(5, 4, "444", bits=12, matrix=matrix, full_range=full)
    pixels = np.random.default_rng(seed).random((4, 5, 3), np.float32)
    assert np.abs(layout.to_pixels(layout.to_bytes(pixels)) - pixels).max() < 2e-3


@pytest.mark.parametrize("chroma", LAYOUTS)
@pytest.mark.parametrize("siting", [(False, False), (True, False), (True, True)])
def test_colors_stay_in_place_with_subsampling(chroma: str, siting: tuple[bool, bool]) -> None:
    """A smooth slope of color would show a shift of a fraction of a pixel."""
    layout = FrameLayout(64, 48, chroma, siting, bits=16, full_range=True)
    across = np.linspace(0.3, 0.5, 64, dtype=np.float32)[None, :]
    down = np.linspace(0, 0.2, 48, dtype=np.float32)[:, None]
    pixels = np.dstack([across + down, 1 - across - down, np.full((48, 64), 0.5, np.float32)])
    back = layout.to_pixels(layout.to_bytes(pixels))
    # Filters repeat edge samples, which bends a slope there. A shift of half a pixel would be 0.0016.
    assert np.abs(back - pixels)[9:-9, 9:-9].max() < 2e-4


def test_an_impulse_of_color_is_where_the_siting_says() -> None:
    """Chroma sample 2 of 422 stands on column 4 by MPEG-2, and between columns 4 and 5 by JPEG."""
    frame = bytes([126] * 10 + [128] * 5 + [128, 128, 160, 128, 128])
    on_columns = FrameLayout(10, 1, "422", (True, False)).to_pixels(frame)[0, :, 0]
    assert on_columns[3] == pytest.approx(on_columns[5], abs=1e-6)
    between = FrameLayout(10, 1, "422", (False, False)).to_pixels(frame)[0, :, 0]
    assert between[4] == pytest.approx(between[5], abs=1e-6)
    assert on_columns[4] > between[4]


def test_rgb_frames_are_the_bytes_themselves() -> None:
    layout = FrameLayout(3, 2, "rgb")
    frame = bytes(range(18))
    assert layout.frame_bytes == 18
    pixels = layout.to_pixels(frame)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (2, 3, 3))
    assert layout.to_bytes(pixels) == frame
