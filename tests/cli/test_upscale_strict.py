"""`dsclora upscale --strict`: losses while reading are refused before any work, other notes stay warnings."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from pictures import noise, pillow_file, saved_still
from PIL import Image

EMBEDDED = ("-m", "dsclora-x4")


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def avif_sequence() -> bytes:
    first, *others = [Image.fromarray(noise(3)), Image.fromarray(255 - noise(3))]
    return pillow_file(first, "AVIF", save_all=True, append_images=others)


def lab() -> bytes:
    return pillow_file(Image.merge("LAB", Image.fromarray(noise(3)).split()), "TIFF")


def jxl(pixels: np.ndarray) -> bytes:
    pytest.importorskip("pillow_jxl")
    return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))


LOSSES: dict[str, tuple[Callable[[], bytes], str]] = {
    "AVIF of 10 bits": (lambda: bytes(imagecodecs.avif_encode(noise(3, np.uint16) >> 6, bitspersample=10)), "10 bits"),
    "JPEG XL of 16 bits": (lambda: jxl(noise(3, np.uint16)), "16 bits per channel were reduced to 8"),
    "JPEG XL of floats": (lambda: jxl(noise(3, np.float32)), "floats of 32 bits were reduced to 8"),
    "CMYK TIFF of 16 bits": (lambda: tiff(noise(4, np.uint16), photometric="separated"), "16 bits .* reduced to 8"),
    "TIFF of 64-bit floats": (
        lambda: tiff(noise(3).astype(np.float64) / 255, photometric="rgb"),
        "float64 samples were converted",
    ),
    "two pictures in a PPM": (lambda: saved_still(noise(3), "PPM") * 2, "only the first picture in this PPM"),
    "AVIF sequence": (avif_sequence, "only the first of 2 pictures in this AVIF"),
    "JPEG XL animation": (lambda: jxl(np.stack([noise(3)] * 2)), "only the first frame of this animated JPEG XL"),
    "CMYK JPEG": (lambda: pillow_file(Image.fromarray(noise(3)).convert("CMYK"), "JPEG"), "CMYK was converted to sRGB"),
    "Lab TIFF": (lab, "Lab was converted to sRGB"),
}
OTHER_NOTES: dict[str, Callable[[], bytes]] = {
    "damaged profile": lambda: pillow_file(Image.fromarray(noise(3)), "JPEG", icc_profile=b"no profile" * 20),
    "TIFF of 16-bit floats": lambda: tiff(noise(3).astype(np.float16) / np.float16(255), photometric="rgb"),
    "bytes behind the end": lambda: saved_still(noise(3), "PNG") + b"more" * 20,
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_while_reading_is_refused_before_any_work(dsclora, tmp_path, monkeypatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = LOSSES[kind]
    Path("given").write_bytes(make())
    # Nothing is lost while writing: TIFF has room for every depth.
    run = dsclora("upscale", "given", *EMBEDDED, "-o", "x.tif", "--strict")
    assert (run.code, run.out) == (1, "") and not Path("x.tif").exists()
    message = run.err.splitlines()[0]
    assert re.search(words, message), message
    assert message.startswith("failed: given: ") and "(leave out --strict, or convert the picture" in message
    assert dsclora("upscale", "given", *EMBEDDED, "-o", "x.tif", "--dry-run").code == 0


@pytest.mark.parametrize("kind", OTHER_NOTES)
def test_other_notes_stay_warnings(dsclora, tmp_path, monkeypatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given").write_bytes(OTHER_NOTES[kind]())
    run = dsclora("upscale", "given", *EMBEDDED, "-o", "x.tif", "--strict")
    assert run.code == 0 and "warning: given: " in run.err
