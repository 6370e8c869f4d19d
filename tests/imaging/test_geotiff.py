"""GeoTIFF: an enlarged map stays in its place."""

from __future__ import annotations

import io

import pytest
import tifffile
from pictures import header_of, read, saved, smooth

from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.types import Frame
from dsclora_cli.imaging.writer import fit_format

AREA, POINT = (1, 1, 0, 1, 1025, 0, 1, 1), (1, 1, 0, 1, 1025, 0, 1, 2)
SCALE, TIES, MATRIX, KEYS = 33550, 33922, 34264, 34735


def enlarged(tags: list[tuple], factor: int = 2) -> dict[int, tuple]:
    """Return the tags of a TIFF that was read, enlarged and written."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, smooth(), photometric="rgb", extratags=tags, metadata=None, software=False)
    header, frames = read(buffer.getvalue())
    assert header.notes == ()
    height, width, _ = frames[0].shape
    pixels = frames[0].pixels.repeat(factor, 0).repeat(factor, 1)
    metadata = with_size(header.metadata, factor * width, factor * height, (width, height))
    data = saved(header_of(pixels, "TIFF", metadata), [Frame(pixels)])
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return {tag: tiff.pages[0].tags[tag].value for tag in (SCALE, TIES, MATRIX, KEYS) if tag in tiff.pages[0].tags}


def test_the_pixel_scale_is_divided_and_tie_points_keep_their_place():
    tags = [(SCALE, 12, 3, (0.5, 0.25, 0.0), True), (KEYS, 3, 8, AREA, True)]
    tags.append((TIES, 12, 12, (0, 0, 0, 500000.0, 4600000.0, 0, 10, 20, 0, 500005.0, 4599995.0, 0), True))
    found = enlarged(tags)
    assert found[SCALE] == (0.25, 0.125, 0.0) and found[KEYS] == AREA
    assert found[TIES] == (0, 0, 0, 500000.0, 4600000.0, 0, 20, 40, 0, 500005.0, 4599995.0, 0)


def test_a_tie_point_of_the_center_of_a_pixel_moves_with_the_center():
    tags = [
        (SCALE, 12, 3, (1.0, 1.0, 0.0), True),
        (KEYS, 3, 8, POINT, True),
        (TIES, 12, 6, (0, 0, 0, 7.0, 9.0, 0), True),
    ]
    assert enlarged(tags)[TIES] == (0.5, 0.5, 0, 7.0, 9.0, 0)


@pytest.mark.parametrize("keys", [AREA, POINT])
def test_a_transformation_gives_each_corner_the_same_place(keys):
    matrix = (2.0, 0.5, 0, 100.0, 0.25, -3.0, 0, 200.0, 0, 0, 0, 0, 0, 0, 0, 1.0)
    new = enlarged([(MATRIX, 12, 16, matrix, True), (KEYS, 3, 8, keys, True)])[MATRIX]
    shift = 0.5 if keys is POINT else 0.0
    for x, y in ((0, 0), (47, 0), (10, 33)):  # corners between pixels
        for at in (0, 4):
            old_place = matrix[at] * (x - shift) + matrix[at + 1] * (y - shift) + matrix[at + 3]
            new_place = new[at] * (2 * x - shift) + new[at + 1] * (2 * y - shift) + new[at + 3]
            assert new_place == pytest.approx(old_place)


def test_other_formats_and_turned_pictures_tell_that_the_place_is_lost():
    buffer = io.BytesIO()
    tags = [(SCALE, 12, 3, (0.5, 0.25, 0.0), True)]
    tifffile.imwrite(buffer, smooth(), photometric="rgb", extratags=tags, metadata=None, software=False)
    header, _ = read(buffer.getvalue())
    assert fit_format(header, "PNG", strict=False)[1] == ("PNG has no room for the place on the map",)
    buffer = io.BytesIO()
    tags.append((274, 3, 1, 6, True))
    tifffile.imwrite(buffer, smooth(), photometric="rgb", extratags=tags, metadata=None, software=False)
    header, _ = read(buffer.getvalue())
    assert header.metadata.geo is None and "GeoTIFF" in header.notes[0]
