"""Uncompressed video: headers of y4m streams, and frames of YUV, gray or RGB samples as pixels and back.

ffmpeg and mpv write and read y4m (YUV4MPEG2). A stream states size, chroma layout and range, but no color matrix.
`upscaling/frames.py` runs the network between `FrameLayout.to_pixels` and `FrameLayout.to_bytes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import RawIOBase
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.imaging.types import Pixels

_MAGIC = b"YUV4MPEG2"
_LONGEST_LINE = 4096  # bytes; ffmpeg writes some 100
_MOST_PIXELS_A_SIDE = 1 << 20

MATRICES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
)
"""Shares of red (Kr) and blue (Kb) in luma: ITU-R BT.601, BT.709 and BT.2020 (non-constant luminance)."""

# Luma columns and rows for a chroma sample.
_SUBSAMPLING = {
    "420": (2, 2),
    "422": (2, 1),
    "444": (1, 1),
    "411": (4, 1),
    "410": (4, 4),
    "440": (1, 2),
    "mono": (0, 0),
}
# Whether chroma samples stand on luma columns and rows, rather than between. MPEG-2 and later: on columns.
_SITING = {"jpeg": (False, False), "mpeg2": (True, False), "paldv": (True, True)}
_PAD = 4  # chroma or luma samples around a plane while resampling; the bicubic filter reaches 2


@dataclass(frozen=True)
class FrameLayout:
    """How the bytes of a frame become pixels."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    chroma: str
    """Layout: 420, 422, 444, 411, 410 or 440, mono, or rgb."""
    siting: tuple[bool, bool] = (True, False)
    """Whether chroma samples stand on luma columns, and on luma rows."""
    bits: int = 8
    """Bits of a sample; above 8 a sample has two bytes, the low byte first."""
    matrix: str = "bt601"
    """Key of `MATRICES`."""
    full_range: bool = False
    """Whether black is 0 and white the largest value; otherwise black is 16 and white 235, in 8 bits."""

    @property
    def channels(self) -> int:
        """Return the channels of the pixels: 1 gray, 3 RGB."""
        return 1 if self.chroma == "mono" else 3

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.float32]:
        """Return the dtype of the pixels: uint8 for RGB frames, float32 for YUV and gray frames."""
        return np.dtype(np.uint8) if self.chroma == "rgb" else np.dtype(np.float32)

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of a frame."""
        samples = sum(rows * columns for rows, columns in self._plane_shapes())
        return samples * self._sample_dtype.itemsize

    @property
    def _sample_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8) if self.bits == 8 else np.dtype("<u2")

    def with_size(self, width: int, height: int) -> FrameLayout:
        """Return the layout for frames of another size, in pixels."""
        return replace(self, width=width, height=height)

    def to_pixels(self, frame: bytes | bytearray) -> Pixels:
        """Return `(height, width, 1 or 3)`: uint8 for RGB frames, else float32 in [0, 1].

        Values outside the range of the stream, such as luma above white, become the nearest value inside.
        """
        if self.chroma == "rgb":
            return np.frombuffer(frame, np.uint8).reshape(self.height, self.width, 3)
        planes = self._split(frame)
        luma = self._unit(planes[0], is_luma=True)
        if self.chroma == "mono":
            return np.clip(luma, 0, 1)[:, :, None]
        cb, cr = (self._to_luma_grid(self._unit(plane, is_luma=False)) for plane in planes[1:])
        kr, kb = MATRICES[self.matrix]
        red = luma + 2 * (1 - kr) * cr
        blue = luma + 2 * (1 - kb) * cb
        green = (luma - kr * red - kb * blue) / (1 - kr - kb)
        rgb: NDArray[np.float32] = np.clip(np.dstack([red, green, blue]), 0, 1)
        return rgb

    def to_bytes(self, pixels: Pixels) -> bytes:
        """Return the bytes of a frame for pixels as `to_pixels` returns, `(height, width, 1 or 3)`."""
        if self.chroma == "rgb":
            return pixels.tobytes()
        if self.chroma == "mono":
            return self._samples(np.clip(pixels[:, :, 0], 0, 1), is_luma=True).tobytes()
        kr, kb = MATRICES[self.matrix]
        red, green, blue = np.moveaxis(np.clip(pixels, 0, 1), 2, 0)
        luma = kr * red + (1 - kr - kb) * green + kb * blue
        colors = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
        planes = [self._samples(luma, is_luma=True)]
        planes += [self._samples(self._to_chroma_grid(color), is_luma=False) for color in colors]
        return b"".join(plane.tobytes() for plane in planes)

    def _plane_shapes(self) -> list[tuple[int, int]]:
        """Return (rows, columns) of every plane; the channels of RGB frames are side by side in one plane."""
        if self.chroma == "rgb":
            return [(self.height, self.width * 3)]
        across, down = _SUBSAMPLING[self.chroma]
        luma = (self.height, self.width)
        return [luma] if not across else [luma, *[(-(-self.height // down), -(-self.width // across))] * 2]

    def _split(self, frame: bytes | bytearray) -> list[NDArray[Any]]:
        samples = np.frombuffer(frame, self._sample_dtype)
        planes, start = [], 0
        for rows, columns in self._plane_shapes():
            planes.append(samples[start : start + rows * columns].reshape(rows, columns))
            start += rows * columns
        return planes

    def _levels(self, is_luma: bool) -> tuple[float, float]:
        """Return the sample of zero, and the samples from zero to one (ITU-R BT.601-7 table 3, BT.2100-2 table 9)."""
        eighths = 2 ** (self.bits - 8)
        zero = (0 if self.full_range else 16 * eighths) if is_luma else 128 * eighths
        span = 2**self.bits - 1 if self.full_range else (219 if is_luma else 224) * eighths
        return float(zero), float(span)

    def _unit(self, plane: NDArray[Any], is_luma: bool) -> NDArray[np.float32]:
        """Return luma from 0 to 1, or chroma from -0.5 to 0.5."""
        zero, span = self._levels(is_luma)
        return (plane.astype(np.float32) - np.float32(zero)) / np.float32(span)

    def _samples(self, plane: NDArray[np.float32], is_luma: bool) -> NDArray[Any]:
        zero, span = self._levels(is_luma)
        # Full-range chroma of +0.5 would need one level more than there is.
        rounded = np.clip(np.rint(plane * np.float32(span) + np.float32(zero)), 0, 2**self.bits - 1)
        samples: NDArray[Any] = rounded.astype(self._sample_dtype)
        return samples

    def _to_luma_grid(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a chroma plane with a sample for each pixel."""
        across, down = _SUBSAMPLING[self.chroma]
        # A sample on a luma column has the center of the first of its `across` columns.
        left = 0.5 - 0.5 / across if self.siting[0] else 0.0
        top = 0.5 - 0.5 / down if self.siting[1] else 0.0
        return _resample(plane, (self.width, self.height), (left, top), (self.width / across, self.height / down))

    def _to_chroma_grid(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples of a chroma plane for a value of each pixel."""
        across, down = _SUBSAMPLING[self.chroma]
        rows, columns = self._plane_shapes()[1]
        left = 0.5 - 0.5 * across if self.siting[0] else 0.0
        top = 0.5 - 0.5 * down if self.siting[1] else 0.0
        return _resample(plane, (columns, rows), (left, top), (columns * across, rows * down))


def _resample(
    plane: NDArray[np.float32], size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]
) -> NDArray[np.float32]:
    """Return a part of a plane in another size, with a bicubic filter; sides of pairs are (across, down).

    The part begins at `corner` and may reach a few samples beyond the plane: edge samples are repeated.
    """
    if size == (plane.shape[1], plane.shape[0]):
        return plane
    padded = Image.fromarray(np.pad(plane, _PAD, mode="edge"))
    left, top = corner[0] + _PAD, corner[1] + _PAD
    box = (left, top, left + extent[0], top + extent[1])
    return np.asarray(padded.resize(size, Image.Resampling.BICUBIC, box))


@dataclass(frozen=True)
class VideoHeader:
    """First line of a y4m stream."""

    layout: FrameLayout
    says_range: bool
    """Whether the stream states the range of the samples."""
    parameters: tuple[str, ...]
    """All parameters but width and height, as in the stream."""

    def line(self, width: int, height: int) -> bytes:
        """Return the first line of a stream with frames of another size and all other parameters the same."""
        words = [_MAGIC.decode(), f"W{width}", f"H{height}", *self.parameters]
        return " ".join(words).encode() + b"\n"


def read_header(stream: RawIOBase) -> VideoHeader:
    """Return the header of a y4m stream.

    Raises ImageUnreadable for another format, for a header that is cut, and for interlaced video.
    """
    line = _read_line(stream)
    magic, *words = line.removesuffix(b"\n").split(b" ")
    if magic != _MAGIC or len(line) == _LONGEST_LINE:
        found = "is empty" if not line else "holds no y4m video"
        raise ImageUnreadable(f"stdin {found}", "write it with: ffmpeg -i VIDEO -f yuv4mpegpipe -")
    # What is left of a size or of a layout may look like another one.
    if not line.endswith(b"\n"):
        raise ImageUnreadable("stdin ends inside the y4m header", "check the program that writes the video")
    parameters = tuple(word.decode("ascii", "backslashreplace") for word in words if word)
    values = {word[0]: word[1:] for word in parameters if not word.startswith("X")}
    width, height = (_side(values.get(key, "")) for key in "WH")
    if values.get("I", "p") not in {"p", "?", ""}:
        hint = "add -vf bwdif to the ffmpeg that reads the video, or -vf setfield=prog if the frames are whole"
        raise ImageUnreadable("the video is interlaced: a frame holds two moments", hint)
    ranges = [word.partition("=")[2].upper() for word in parameters if word.startswith("XCOLORRANGE=")]
    layout = replace(_layout(values.get("C", "420jpeg")), width=width, height=height, full_range="FULL" in ranges)
    return VideoHeader(layout, bool(ranges), tuple(word for word in parameters if word[0] not in "WH"))


def _side(text: str) -> int:
    side = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
    if not 0 < side <= _MOST_PIXELS_A_SIDE:
        raise ImageUnreadable(f"the y4m header has no usable width and height ({text or 'missing'!r})")
    return side


def _layout(name: str) -> FrameLayout:
    """Return the layout for the C parameter of a y4m header, such as 420jpeg or 422p10, without a size."""
    match = re.fullmatch(r"(420|422|444|411|410|440|mono)(jpeg|mpeg2|paldv|p?(9|10|12|14|16))?", name)
    if not match:
        hint = "let ffmpeg convert it with -pix_fmt yuv444p"
        raise ImageUnreadable(f"the pixel layout {name} of the y4m stream is not supported", hint)
    # "420" alone is an older name of 420jpeg.
    siting = _SITING.get(match[2] or "jpeg", _SITING["mpeg2"]) if match[1] == "420" else _SITING["mpeg2"]
    return FrameLayout(0, 0, match[1], siting, int(match[3] or 8))


def _read_line(stream: RawIOBase) -> bytes:
    """Return a line with the line end, of at most `_LONGEST_LINE` bytes; empty only at the end of the stream.

    Reads no byte more, so that the frame after the line stays whole.
    """
    with _reading():
        return bytes(stream.readline(_LONGEST_LINE) or b"")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a folder, for example
        raise ImageUnreadable(f"stdin cannot be read ({error.strerror})") from error


def read_frame(stream: RawIOBase, layout: FrameLayout, number: int, marked: bool) -> tuple[bytes, bytearray] | None:
    """Return the marker line of a frame and the bytes of the frame, or None at the end of the stream.

    Args:
        stream: Unbuffered stream.
        layout: Layout of the frames.
        number: Number of the frame for messages, from 1.
        marked: Whether a line `FRAME` with parameters stands before each frame, as in y4m.

    Raises:
        ImageUnreadable: The stream cannot be read, ends inside the frame, or holds something else.
    """
    line = _read_line(stream) if marked else b""
    if marked and not line:
        return None
    marker = line.removesuffix(b"\n")
    if marked and marker.split(b" ")[0] != b"FRAME":
        raise ImageUnreadable(f"stdin holds no y4m frame at frame {number}", _wrong_bytes_hint(layout))
    frame = bytearray(layout.frame_bytes)
    view, got = memoryview(frame), 0
    while got < len(frame):
        with _reading():
            count = stream.readinto(view[got:])
        if not count:
            break
        got += count
    if not got and not marked:
        return None
    if got < len(frame):
        message = f"stdin ends inside frame {number}: {got} of {len(frame)} bytes"
        raise ImageUnreadable(message, _wrong_bytes_hint(layout))
    return marker, frame


def _wrong_bytes_hint(layout: FrameLayout) -> str:
    """Return the next step for a stream whose frames have another number of bytes than the layout."""
    across = 1 if layout.chroma == "rgb" else _SUBSAMPLING[layout.chroma][0]
    # ffmpeg 5.1 halves the bytes of a row: 65 columns of 10 bits get 65 bytes of chroma, and 33 samples need 66.
    if layout.bits > 8 and across > 1 and layout.width % across:
        step = f"make the width even: add -vf 'crop=trunc(iw/{across})*{across}:ih' to the ffmpeg that reads the video"
        return f"ffmpeg writes wrong frames for an odd width above 8 bits; {step}"
    return "check the program that writes the video, and the size"
