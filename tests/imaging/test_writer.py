"""What a format can hold, known before writing, and the targets of writing."""

from __future__ import annotations

import errno
import gc
import io
from pathlib import Path

import numpy as np
import pytest
from pictures import HEIGHT, WIDTH, animation, everything, header_of, noise, read_still, saved, saved_still, smooth
from PIL import Image

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, ImageUnwritable
from dsclora_cli.imaging.formats import FORMATS
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
def test_a_loss_of_alpha_depth_or_colors_is_a_note_or_with_strict_an_error(format, channels, dtype, expected, words):
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
def test_a_loss_of_frames_is_a_note_or_with_strict_an_error(format, animated, frames, note):
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


def test_lost_metadata_is_a_note_even_with_strict():
    header = header_of(smooth(), "JPEG", everything())
    expected = {
        "BMP": 'BMP has no room for the colour profile, EXIF, XMP, IPTC, text "comment", text "parameters"',
        "WEBP": 'WEBP has no room for IPTC, the resolution of 300 x 150 dpi, text "comment", text "parameters"',
        "JPEG": 'JPEG has no room for text "parameters"',
    }
    for format, note in expected.items():
        fitted, notes = fit_format(header, format, strict=True)
        assert notes == (note,)
        assert fit_format(fitted, format, strict=True) == (fitted, ())
    assert fit_format(header, "PNG", strict=True)[1] == ()


def test_pictures_too_large_for_a_format_are_refused():
    header = header_of(np.broadcast_to(np.uint8(0), (10, 16384, 3)), "PNG")
    with pytest.raises(ImageError, match="WEBP holds at most 16383 pixels a side, not 16384 x 10"):
        fit_format(header, "WEBP", strict=False)


@pytest.mark.parametrize("refusal", [RuntimeError("x265"), SyntaxError("no"), ValueError("no"), OSError("error -2")])
@pytest.mark.parametrize("format", ["AVIF", "WEBP", "BMP", "TGA"])
def test_a_picture_that_an_encoder_refuses_is_an_error_with_the_next_step(format, refusal, monkeypatch):
    def refuse(*_, **__):
        raise refusal

    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(ImageError) as caught:
        saved_still(smooth(), format)
    words = f"the encoder of {format} refuses a picture of {WIDTH} x {HEIGHT} pixels: {refusal}"
    assert str(caught.value) == f"{words} (choose another format, such as PNG or TIFF)"


def test_an_error_of_the_network_is_no_refusal_of_the_encoder():
    def frames():
        raise RuntimeError("no network")
        yield

    with pytest.raises(RuntimeError, match="no network"):
        saved(header_of(smooth(), "AVIF"), frames())


@pytest.mark.parametrize("format", sorted(name for name, abilities in FORMATS.items() if not abilities.extra))
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


def test_an_error_of_writing_names_the_file_and_the_next_step(tmp_path: Path):
    header = header_of(smooth(), "PNG")
    targets = {tmp_path: "check the path: it is a folder", tmp_path / "absent" / "a.png": "check the path"}
    for target, hint in targets.items():
        with pytest.raises(ImageUnwritable, match="cannot be written") as caught:
            write_picture(target, header, [Frame(smooth())], SaveOptions())
        assert str(caught.value).startswith(str(target))
        assert caught.value.hint == hint


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_a_full_disk_is_an_error(format):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    header, _ = fit_format(header_of(smooth(), "PNG"), format, strict=False)
    with pytest.raises(ImageError, match=r"<stdout>: cannot be written \(No space left on device\)"):
        write_picture(Full(), header, [Frame(smooth())], SaveOptions())
    gc.collect(0)  # crashed Python 3.12.1 while the exception held a view of the buffer


def test_an_error_raised_while_frames_are_made_passes_unchanged():
    def frames():
        raise RuntimeError("of the network")
        yield

    with pytest.raises(RuntimeError, match="of the network"):
        write_picture(io.BytesIO(), header_of(smooth(), "PNG"), frames(), SaveOptions())
