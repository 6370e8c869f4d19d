"""Contact sheets: places of pictures, labels and error maps."""

from __future__ import annotations

import numpy as np

from dsclora_cli.imaging.contact_sheet import GAIN, PANEL, Panel, Strip, contact_sheet, error_map

RED, GREEN, BLUE = (np.full((60, 80, 3), color, np.uint8) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def places(sheet: np.ndarray, color: tuple[int, int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of the rectangle in a color."""
    rows, columns = np.nonzero((sheet == color).all(axis=2))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def test_results_and_truth_are_placed_side_by_side_in_full_size() -> None:
    sheet = contact_sheet([Strip((Panel("bicubic", RED), Panel("model", GREEN)), Panel("HR", BLUE))])
    red, green, blue = (places(sheet, color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    for rows, columns in (red, green, blue):
        assert (rows.stop - rows.start, columns.stop - columns.start) == (60, 80)
    assert red[0] == green[0] == blue[0]
    assert red[1].stop < green[1].start < green[1].stop < blue[1].start


def test_each_strip_has_labels_and_error_maps_below_its_results() -> None:
    strip = Strip((Panel("bicubic", RED), Panel("model", BLUE)), Panel("HR", BLUE))
    one, two = contact_sheet([strip]), contact_sheet([strip, strip])
    assert two.shape[1] == one.shape[1] and two.shape[0] > 1.9 * one.shape[0]
    rows, columns = places(one, (255, 0, 0))
    assert (one[: rows.start, columns] < 128).any()
    below = one[rows.stop :]
    assert (below[:, columns] == 255).any()
    assert places(below, (0, 0, 0))[1].stop > columns.stop + 80


def test_large_pictures_are_reduced_and_long_labels_make_room() -> None:
    wide = np.zeros((10, 3 * PANEL, 3), np.uint8)
    assert contact_sheet([Strip((Panel("a", wide),), Panel("HR", wide))]).shape[1] < 2 * PANEL + 50
    label = Strip((Panel("a very long label " * 10, RED),), Panel("HR", BLUE))
    assert contact_sheet([label]).shape[1] > 1000


def test_an_error_map_is_the_amplified_mean_difference_limited_to_white() -> None:
    truth = np.array([[[10, 10, 10], [200, 200, 200]]], np.uint8)
    result = np.array([[[13, 7, 10], [0, 0, 0]]], np.uint8)
    assert error_map(result, truth).tolist() == [[[2 * GAIN] * 3, [255] * 3]]
    assert not error_map(truth, truth).any()
