"""Names, suffixes and signatures of the formats, and optional packages that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import header_of, smooth

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.formats import FORMATS, detect_format, format_of_suffix, is_picture_name
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.writer import fit_format


def test_suffixes_and_formats_map_to_each_other():
    for name, abilities in FORMATS.items():
        if abilities.extra:
            continue
        assert all(format_of_suffix(suffix.upper()) == name for suffix in abilities.suffixes)
        assert format_of_suffix(abilities.suffixes[0]) == name
    assert FORMATS["JPEG"].suffixes[0] == ".jpg" and FORMATS["HEIF"].suffixes[0] == ".heic"
    with pytest.raises(ImageError, match=r'no picture format has the suffix "\.txt"'):
        format_of_suffix(".txt")
    with pytest.raises(ImageError, match='there is no picture format "JPG"'):
        fit_format(header_of(smooth(), "PNG"), "JPG", strict=False)


def test_picture_names_are_known_by_their_suffix():
    assert all(is_picture_name(Path(name)) for name in ("a.JPG", "b.tiff", "c.heic", "d.jxl", "é.webp"))
    assert not any(is_picture_name(Path(name)) for name in ("Thumbs.db", ".DS_Store", "a.txt", "b", "jpg"))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None),
        (b"P6 2", "PPM"),
        (b"Plain text", None),
    ],
)
def test_a_format_is_detected_by_its_first_bytes(head, name):
    assert detect_format(head, b"", ".jpg") == name


@pytest.mark.parametrize(("suffix", "extra"), [(".heic", "heif"), (".HEIF", "heif"), (".jxl", "jxl")])
def test_a_suffix_whose_package_is_missing_is_refused_with_the_install_command(suffix, extra, monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.formats.find_spec", lambda module: None)
    with pytest.raises(ImageError) as caught:
        format_of_suffix(suffix)
    assert caught.value.hint == f'pip install "dsclora[{extra}]"'


def test_a_file_whose_package_is_missing_is_refused_with_the_install_command(monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.formats.find_spec", lambda module: None)
    heic = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(40)
    jxl = b"\xff\x0a" + bytes(40)
    for data, extra in ((heic, "heif"), (jxl, "jxl")):
        with pytest.raises(ImageError) as caught:
            open_picture(data)
        assert caught.value.hint == f'pip install "dsclora[{extra}]"' and str(caught.value).startswith("<stdin>: ")
