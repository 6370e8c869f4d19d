"""What a format can hold, said before writing, and where files are written."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
from pictures import animation, everything, header_of, noise, read_still, saved, smooth

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.formats import FORMATS, format_of_suffix, suffix_of_format
from dsclora_cli.imaging.types import Frame, Metadata
from dsclora_cli.imaging.writer import fit_format, write_picture


@pytest.mark.parametrize(
    ("format", "channels", "dtype", "expected", "words"),
    [
        ("JPEG", 4, np.uint8, (3, "uint8"), ["no transparency"]),
        ("JPEG", 3, np.uint16, (3, "uint8"), ["8 bits per channel: 16-bit depth is reduced"]),
        ("JPEG", 2, np.uint16, (1, "uint8"), ["no transparency", "8 bits"]),
        ("PNG", 4, np.uint16, (4, "uint16"), []),
        ("PNG", 3, np.float32, (3, "uint16"), ["floating point is reduced"]),
        ("TIFF", 3, np.float32, (3, "float32"), []),
        ("WEBP", 1, np.uint8, (3, "uint8"), []),
        ("WEBP", 2, np.uint8, (4, "uint8"), []),
        ("PPM", 4, np.uint16, (3, "uint16"), ["no transparency"]),
        ("GIF", 3, np.uint8, (3, "uint8"), ["256 colours"]),
        ("GIF", 2, np.uint8, (4, "uint8"), ["cut at one half"]),
    ],
)
def test_what_is_lost_is_said_or_refused(format, channels, dtype, expected, words):
    header = header_of(noise(channels, dtype), "TIFF")
    fitted, notes = fit_format(header, format, strict=False)
    assert (fitted.format, fitted.channels, fitted.dtype.name) == (format, *expected)
    assert len(notes) == len(words) and all(word in note for word, note in zip(words, notes, strict=True))
    if not words:
        assert fit_format(header, format, strict=True) == (fitted, ())
        return
    with pytest.raises(ImageError, match=words[0]) as caught:
        fit_format(header, format, strict=True)
    assert "--strict" in caught.value.hint


@pytest.mark.parametrize(
    ("format", "animated", "frames", "note"),
    [
        ("PNG", True, 4, None),
        ("TIFF", True, 4, "TIFF holds pages: the timing of the animation is lost"),
        ("JPEG", True, 1, "JPEG cannot hold an animation: only the first of 4 frames is kept"),
        ("TIFF", False, 4, None),
        ("PNG", False, 1, "PNG cannot hold pages: only the first of 4 pages is kept"),
    ],
)
def test_frames_that_do_not_fit(format, animated, frames, note):
    pictures, _ = animation(3)
    source = "GIF" if animated else "TIFF"
    header = header_of(pictures[0].pixels, source, frames=4, animated=animated, loop=0 if animated else None)
    fitted, notes = fit_format(header, format, strict=False)
    assert fitted.frames == frames and notes == (() if note is None else (note,))
    assert fitted.animated == (frames > 1 and format == "PNG")
    if note:
        with pytest.raises(ImageError):
            fit_format(header, format, strict=True)
    if frames == 1:
        assert read_still(saved(header, iter(pictures), format))[0].frames == 1


def test_metadata_without_room_is_a_note_and_never_refused():
    header = header_of(smooth(), "JPEG", everything())
    expected = {
        "BMP": 'BMP has no room for the colour profile, EXIF, XMP, IPTC, text "comment", text "parameters"',
        "WEBP": 'WEBP has no room for IPTC, text "comment", text "parameters"',
        "JPEG": 'JPEG has no room for text "parameters"',
    }
    for format, note in expected.items():
        fitted, notes = fit_format(header, format, strict=True)
        assert notes == (note,)
        assert fit_format(fitted, format, strict=True) == (fitted, ())
    assert fit_format(header, "PNG", strict=True)[1] == ()


def test_sizes_beyond_a_format_are_refused_before_any_work():
    header = header_of(np.broadcast_to(np.uint8(0), (10, 16384, 3)), "PNG")
    with pytest.raises(ImageError, match="WEBP holds at most 16383 pixels a side, not 16384 x 10"):
        fit_format(header, "WEBP", strict=False)


def test_names_of_formats():
    for name, held in FORMATS.items():
        if held.extra:
            continue
        assert all(format_of_suffix(suffix.upper()) == name for suffix in held.suffixes)
        assert format_of_suffix(suffix_of_format(name)) == name
    assert suffix_of_format("JPEG") == ".jpg" and suffix_of_format("HEIF") == ".heic"
    with pytest.raises(ImageError, match=r'no picture format has the suffix "\.txt"'):
        format_of_suffix(".txt")
    with pytest.raises(ImageError, match='there is no picture format "JPG"'):
        fit_format(header_of(smooth(), "PNG"), "JPG", strict=False)


@pytest.mark.parametrize(("suffix", "extra"), [(".heic", "heif"), (".HEIF", "heif"), (".jxl", "jxl")])
def test_a_missing_extra_is_named_before_any_work(suffix, extra, monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.formats.find_spec", lambda module: None)
    with pytest.raises(ImageError) as caught:
        format_of_suffix(suffix)
    assert caught.value.hint == f'pip install "dsclora[{extra}]"'


@pytest.mark.parametrize("format", sorted(name for name, held in FORMATS.items() if not held.extra))
def test_a_path_and_a_pipe_get_the_same_bytes(format, tmp_path: Path):
    class Pipe(io.RawIOBase):
        """Writable, and nothing else."""

        def __init__(self):
            self.data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    header, _ = fit_format(header_of(smooth(), "PNG", Metadata(dpi=(300, 300))), format, strict=False)
    path, pipe = tmp_path / "é漢.bin", Pipe()
    write_picture(path, header, [Frame(smooth())], SaveOptions())
    write_picture(pipe, header, [Frame(smooth())], SaveOptions())
    assert path.read_bytes() == pipe.data


def test_where_nothing_can_be_written_the_file_is_named(tmp_path: Path):
    header = header_of(smooth(), "PNG")
    for target in (tmp_path, tmp_path / "absent" / "a.png"):
        with pytest.raises(ImageError, match="cannot be written") as caught:
            write_picture(target, header, [Frame(smooth())], SaveOptions())
        assert str(caught.value).startswith(str(target))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_a_full_disk_is_an_error(format):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    header, _ = fit_format(header_of(smooth(), "PNG"), format, strict=False)
    with pytest.raises(ImageError, match=r"<stdout>: cannot be written \(No space left on device\)"):
        write_picture(Full(), header, [Frame(smooth())], SaveOptions())


def test_an_error_of_the_frames_passes_unchanged():
    def frames():
        raise RuntimeError("of the network")
        yield

    with pytest.raises(RuntimeError, match="of the network"):
        write_picture(io.BytesIO(), header_of(smooth(), "PNG"), frames(), SaveOptions())
