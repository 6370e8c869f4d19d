"""Animations in every format with animation: frames, durations, loops, transparency."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
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
    saved,
    saved_still,
    smooth,
    upscaled,
)
from PIL import Image, ImageSequence

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.animation import changed_area
from dsclora_cli.imaging.types import Frame
from dsclora_cli.imaging.writer import fit_format

MOVING = ("GIF", "PNG", "WEBP")


def shown(pixels) -> np.ndarray:
    """Return pixels with color under full transparency set to 0."""
    return np.where(pixels[..., 3:] == 0, 0, pixels) if pixels.shape[2] == 4 else pixels


def moving_file(format: str, channels: int, loop: int, **options) -> bytes:
    frames, times = animation(channels)
    images = [Image.fromarray(frame.pixels) for frame in frames]
    if format == "WEBP":
        options["lossless"] = True
    elif format == "GIF" and channels == 4:
        options["disposal"] = 2
    more = {"append_images": images[1:], "duration": list(map(int, times)), "save_all": True, "loop": loop}
    return pillow_file(images[0], format, **more, **options)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("target", MOVING)
@pytest.mark.parametrize("source", MOVING)
def test_frames_durations_and_loop_survive(source, target, channels):
    frames, times = animation(channels)
    header, decoded = read(moving_file(source, channels, 0))
    assert (header.frames, header.animated, header.loop) == (4, True, 0)
    assert tuple(frame.duration_ms for frame in decoded) == times
    data = saved(header, decoded, target, quality=100)
    again_header, again = read(data)
    assert (again_header.frames, again_header.animated, again_header.loop) == (4, True, 0)
    assert tuple(frame.duration_ms for frame in again) == times
    with Image.open(io.BytesIO(data)) as image:
        theirs = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    for frame, ours, other in zip(frames, again, theirs, strict=True):
        np.testing.assert_array_equal(shown(ours.pixels)[..., :3], shown(frame.pixels)[..., :3])
        np.testing.assert_array_equal(shown(other)[..., :3], shown(frame.pixels)[..., :3])
        if channels == 4:
            np.testing.assert_array_equal(other[..., 3], frame.pixels[..., 3])


@pytest.mark.parametrize("plays", [0, 1, 3])
@pytest.mark.parametrize("format", MOVING)
def test_the_number_of_plays_is_kept(format, plays):
    frames, _ = animation(3)
    header = header_of(frames[0].pixels, format, frames=4, animated=True, loop=plays)
    data = saved(header, frames)
    assert read(data)[0].loop == plays
    with Image.open(io.BytesIO(data)) as image:  # a GIF counts repeats
        assert image.info.get("loop") == ({0: 0, 1: None, 3: 2}[plays] if format == "GIF" else plays)


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_more_plays_than_a_format_counts_become_the_most(format):
    frames, _ = animation(3)
    header = header_of(frames[0].pixels, "PNG", frames=4, animated=True, loop=100_000)
    assert read(saved(header, frames, format))[0].loop == {"GIF": 65536, "WEBP": 65535}[format]


@pytest.mark.parametrize("format", MOVING)
def test_an_upscaled_animation_is_the_animation_upscaled(format):
    header, frames = read(moving_file(format, 4, 2))
    larger, grown = upscaled(header, frames, 3)
    again_header, again = read(saved(larger, iter(grown), quality=100))
    assert (again_header.width, again_header.height) == (3 * WIDTH, 3 * HEIGHT)
    for ours, expected in zip(again, grown, strict=True):
        np.testing.assert_array_equal(shown(ours.pixels), shown(expected.pixels))


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF"])
def test_frames_are_pulled_one_at_a_time(format):
    frames, _ = animation(4)
    events: list[str] = []

    class Sink(io.BytesIO):
        def write(self, data):
            events.append("write")
            return super().write(data)

    def source():
        for frame in frames:
            events.append("frame")
            yield frame

    from dsclora_cli.config import SaveOptions
    from dsclora_cli.imaging import writer

    fitted, _ = fit_format(header_of(frames[0].pixels, format, frames=4, animated=True), format, strict=False)
    writer._write_frames(Sink(), fitted, writer._convert_frames(fitted, source()), SaveOptions())
    pulls = [at for at, event in enumerate(events) if event == "frame"]
    assert len(pulls) == 4
    assert "write" in events[pulls[1] : pulls[3]]


@pytest.mark.parametrize("format", MOVING)
def test_a_still_picture_stays_still(format):
    header, frames = read(saved_still(smooth(), format))
    assert (header.frames, header.animated, header.loop, frames[0].duration_ms) == (1, False, None, None)
    with Image.open(io.BytesIO(saved_still(smooth(), format))) as image:
        assert getattr(image, "n_frames", 1) == 1


def test_16_bit_frames_stay_16_bit_in_apng():
    frames = [Frame(noise(3, np.uint16), 40.0), Frame(noise(3, np.uint16)[::-1].copy(), 60.0)]
    data = saved(header_of(frames[0].pixels, "PNG", frames=2, animated=True, loop=0), frames)
    assert data[24] == 16 and data.count(b"fcTL") == 2
    header, again = read(data)
    assert header.notes == () and header.dtype == np.uint16
    assert all((frame.pixels == old.pixels).all() for frame, old in zip(again, frames, strict=True))
    assert [frame.duration_ms for frame in again] == [40.0, 60.0]


def test_a_default_image_outside_the_animation_is_not_shown():
    frames, times = animation(3)
    images = [Image.fromarray(frame.pixels) for frame in frames]
    options = {"save_all": True, "append_images": images, "default_image": True, "duration": list(times)}
    header, again = read(pillow_file(Image.fromarray(smooth()), "PNG", **options))
    assert header.frames == len(again) == 4
    assert header.notes == ("the picture for viewers without animation was left out",)
    np.testing.assert_array_equal(again[0].pixels, frames[0].pixels)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_animations_keep_their_metadata(format):
    frames, _ = animation(4)
    given = everything()
    header, _ = read(saved(header_of(frames[0].pixels, format, given, frames=4, animated=True), frames))
    kept = header.metadata
    if format == "GIF":
        assert kept.text == (("comment", "grüße"),)
    else:
        assert kept.icc == given.icc and kept.exif and kept.xmp and kept.iptc == (IPTC if format == "PNG" else None)


def test_durations_of_a_gif_do_not_drift():
    frames = [Frame(pixels.pixels, 33.3) for pixels in animation(3)[0]]
    header = header_of(frames[0].pixels, "GIF", frames=4, animated=True, loop=0)
    assert [frame.duration_ms for frame in read(saved(header, frames))[1]] == [30.0, 40.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("format", "given", "kept"),
    [
        ("PNG", 70_001.0, 70_001.0),
        ("PNG", 65_535.0, 65_535.0),
        ("PNG", 123_456.789, 123_456.8),
        ("PNG", 30_000_500.0, 30_000_500.0),
        ("PNG", 40_000_300.0, 40_000_000.0),
        ("PNG", 1e9, 65_535_000.0),
        ("GIF", 70_001.0, 70_000.0),
        ("GIF", 700_000.0, 655_350.0),
        ("WEBP", 700_000.0, 700_000.0),
        ("WEBP", 1e9, 16_777_215.0),
    ],
)
def test_a_frame_that_stands_for_minutes_keeps_its_duration_and_changes_no_other(format, given, kept):
    times = (given, 100.0, 100.0, 100.0)
    frames = [Frame(frame.pixels, time) for frame, time in zip(animation(3)[0], times, strict=True)]
    header = header_of(frames[0].pixels, format, frames=4, animated=True, loop=0)
    again = [frame.duration_ms for frame in read(saved(header, frames))[1]]
    assert again[0] == pytest.approx(kept, rel=2e-5) and again[1:] == [100.0] * 3


def test_equal_frames_keep_their_number_and_duration():
    frames = [Frame(smooth() // 8 * 8, 100.0)] * 3
    for format in MOVING:
        header = header_of(frames[0].pixels, format, frames=3, animated=True, loop=0)
        assert [frame.duration_ms for frame in read(saved(header, frames, quality=100))[1]] == [100.0] * 3, format


def test_gif_is_exact_up_to_256_colors_and_close_beyond():
    few = smooth() // 64 * 64
    np.testing.assert_array_equal(read(saved_still(few, "GIF"))[1][0].pixels, few)
    close = read(saved_still(smooth(), "GIF"))[1][0].pixels.astype(int) - smooth()
    assert np.abs(close).mean() < 8
    holes = np.dstack([few, np.where(np.arange(WIDTH) < 20, 127, 128) * np.ones((HEIGHT, 1), int)]).astype(np.uint8)
    header, frames = read(saved_still(holes, "GIF"))
    assert header.channels == 4
    np.testing.assert_array_equal(frames[0].pixels[..., 3], np.where(holes[..., 3] < 128, 0, 255))


def test_too_few_frames_and_frames_of_another_size_are_errors():
    frames, _ = animation(3)
    header = header_of(frames[0].pixels, "PNG", frames=5, animated=True)
    with pytest.raises(ImageError, match="4 of 5 frames"):
        saved(header, frames)
    with pytest.raises(ImageError, match="in an animation of 47 x 33 pixels"):
        saved(replace(header, frames=2), [frames[0], Frame(smooth()[:5])])


@pytest.mark.parametrize(
    ("old", "new", "even", "area"),
    [
        (None, None, False, (0, 0, 8, 9)),
        ((), (), False, (0, 0, 1, 1)),
        ((3, 5), (6, 7), False, (3, 5, 4, 3)),
        ((3, 5), (6, 7), True, (2, 4, 5, 4)),
    ],
)
def test_the_smallest_area_with_all_changes_is_found(old, new, even, area):
    current = np.zeros((8, 9, 1), np.uint8)
    previous = None if old is None else current.copy()
    for place in (old, new):
        if place:
            current[place] = 1
    assert changed_area(previous, current, even) == area
