"""Large TIFF pages are read in bands in every layout, unless upscaling needs the whole page."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from pictures import noise

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs import tiff_reader
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Frame, StreamedFrame


def stored(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


LARGE_LAYOUTS = [
    {},
    {"byteorder": ">"},
    {"rowsperstrip": 7},
    {"compression": "zlib", "predictor": True, "rowsperstrip": 9},
    {"tile": (16, 32)},
    {"tile": (32, 16), "compression": "lzw"},
    {"bigtiff": True, "compression": "zstd"},
]


@pytest.fixture
def any_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages of any size large enough for bands."""
    monkeypatch.setattr(tiff_reader, "_LARGE", 0)
    monkeypatch.setattr(tiff_reader, "_BAND", 1000)


@pytest.mark.usefixtures("any_is_large")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", LARGE_LAYOUTS, ids=str)
def test_a_large_page_is_read_in_bands(dtype, channels, options):
    pixels = noise(channels, dtype)
    data = stored(pixels, photometric="rgb" if channels == 3 else "minisblack", **options)
    with open_picture(data) as picture:
        (frame,) = picture.frames()
        bands = list(frame.bands())
    assert isinstance(frame, StreamedFrame) and len(bands) > 1
    np.testing.assert_array_equal(np.concatenate(bands), pixels)


@pytest.mark.usefixtures("any_is_large")
def test_pages_with_alpha_orientation_planes_or_floats_are_read_whole():
    rgba, turned = noise(4, np.uint8), noise(3, np.uint8)
    whole = [
        stored(rgba, photometric="rgb", extrasamples=["unassalpha"]),
        stored(turned, photometric="rgb", extratags=[(274, 3, 1, 6, True)]),
        stored(np.moveaxis(turned, 2, 0), photometric="rgb", planarconfig="separate"),
        stored(noise(3, np.float32), photometric="rgb"),
    ]
    for data in whole:
        with open_picture(data) as picture:
            assert isinstance(next(picture.frames()), Frame)


@pytest.mark.usefixtures("any_is_large")
@pytest.mark.parametrize("options", LARGE_LAYOUTS, ids=str)
def test_a_truncated_large_page_is_an_error(options):
    data = stored(noise(3, np.uint8), photometric="rgb", **options)
    layout = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    last = layout.dataoffsets[-1] + layout.databytecounts[-1]
    with pytest.raises(ImageError, match="damaged or truncated"), open_picture(data[: last - 20]) as picture:
        next(picture.frames()).pixels  # noqa: B018 - decodes
