"""Which picture formats there are: how they are recognised, named and loaded, and what each can hold."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from dsclora_cli.errors import ImageError


@dataclass(frozen=True)
class Format:
    """What one format can hold when this program writes it.

    `channels` as in `picture.Pixels`, `depths` as NumPy dtype names, `metadata` as fields of `picture.Metadata`.
    `frames`: "one", "pages" (no timing) or "timed". `limit` is the longest side in pixels. `module` registers the
    format with Pillow; `extra` names the optional dependency of this package that brings it.
    """

    suffixes: tuple[str, ...]
    module: str
    channels: tuple[int, ...] = (1, 2, 3, 4)
    depths: tuple[str, ...] = ("uint8",)
    frames: str = "one"
    metadata: tuple[str, ...] = ()
    limit: int = 2**31 - 1
    extra: str | None = None


_ALL = ("icc", "exif", "xmp", "iptc", "dpi", "text")
_BOXED = ("icc", "exif", "xmp")

FORMATS = MappingProxyType(
    {
        "JPEG": Format(
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            "PIL.JpegImagePlugin",
            channels=(1, 3),
            metadata=("icc", "exif", "xmp", "iptc", "dpi", "comment"),
            limit=65500,
        ),
        "PNG": Format(
            (".png", ".apng"), "PIL.PngImagePlugin", depths=("uint8", "uint16"), frames="timed", metadata=_ALL
        ),
        "WEBP": Format(
            (".webp",), "PIL.WebPImagePlugin", channels=(3, 4), frames="timed", metadata=_BOXED, limit=16383
        ),
        "TIFF": Format(
            (".tif", ".tiff"),
            "PIL.TiffImagePlugin",
            depths=("uint8", "uint16", "float32"),
            frames="pages",
            metadata=("icc", "exif", "xmp", "iptc", "dpi"),
        ),
        "AVIF": Format((".avif",), "PIL.AvifImagePlugin", channels=(1, 3, 4), metadata=_BOXED, limit=65536),
        "JPEG2000": Format(
            (".jp2", ".j2k", ".jpx", ".j2c", ".jpf", ".jpc"),
            "PIL.Jpeg2KImagePlugin",
            depths=("uint8", "uint16"),
            metadata=("icc", "exif", "xmp", "iptc"),
        ),
        "GIF": Format(
            (".gif",), "PIL.GifImagePlugin", channels=(1, 3, 4), frames="timed", metadata=("comment",), limit=65535
        ),
        "BMP": Format((".bmp", ".dib"), "PIL.BmpImagePlugin", channels=(1, 3), metadata=("dpi",)),
        "PPM": Format(
            (".ppm", ".pgm", ".pnm", ".pbm"), "PIL.PpmImagePlugin", channels=(1, 3), depths=("uint8", "uint16")
        ),
        "TGA": Format((".tga",), "PIL.TgaImagePlugin", limit=65535),
        "HEIF": Format((".heic", ".heif", ".hif"), "pillow_heif", channels=(1, 3, 4), metadata=_BOXED, extra="heif"),
        "JXL": Format((".jxl",), "pillow_jxl", metadata=("exif", "xmp"), extra="jxl"),
    }
)
"""Every format by its Pillow name."""

_OF_SUFFIX = MappingProxyType({suffix: name for name, held in FORMATS.items() for suffix in held.suffixes})
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"BM", "BMP"),
)


def format_of_suffix(suffix: str) -> str:
    """The format of a file's suffix, dot included and in any case: ".jpg" -> "JPEG".

    Raises ImageError for a suffix that no format has, and for one whose optional dependency is not installed.
    """
    name = _OF_SUFFIX.get(suffix.lower())
    if name is None:
        raise ImageError(f'no picture format has the suffix "{suffix}"', f"one of {' '.join(_OF_SUFFIX)}")
    require_extra(name)
    return name


def suffix_of_format(name: str) -> str:
    """The usual suffix of a format: "JPEG" -> ".jpg". Raises ImageError for an unknown format."""
    return lookup(name).suffixes[0]


def is_picture_name(path: Path) -> bool:
    """Whether the file's suffix is that of a format read here; the file itself is not looked at."""
    return path.suffix.lower() in _OF_SUFFIX


def lookup(name: str) -> Format:
    """What the format called `name` can hold. Raises ImageError for an unknown one, naming those there are."""
    held = FORMATS.get(name)
    if held is None:
        raise ImageError(f'there is no picture format "{name}"', f"one of {', '.join(FORMATS)}")
    return held


def sniff(head: bytes, tail: bytes, suffix: str) -> str | None:
    """The format of a file with these first and last bytes (32 and 18 are enough), or None.

    TGA has no signature at its start: it is known by its footer, or, where that is absent, by `suffix`.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _sniff_brands([head[8:12], *(head[at : at + 4] for at in range(16, len(head), 4))])
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace():
        return "PPM"
    if tail.startswith(b"TRUEVISION-XFILE") or suffix.lower() == ".tga":
        return "TGA"
    return None


def _sniff_brands(brands: list[bytes]) -> str | None:
    """AVIF files may carry the general HEIF brand first, so their own brand is looked for in all of them."""
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "AVIF"
    return "HEIF" if any(brand in _HEIF_BRANDS for brand in brands) else None


def require_extra(name: str) -> None:
    """Raises ImageError with the install line where the optional dependency of format `name` is missing."""
    held = lookup(name)
    if held.extra and find_spec(held.module) is None:
        raise ImageError(f"{name} pictures need an optional package", f'pip install "dsclora[{held.extra}]"')


def load_plugin(name: str) -> None:
    """Register format `name` with Pillow, and nothing else. Raises ImageError where its extra is missing."""
    require_extra(name)
    module = importlib.import_module(lookup(name).module)
    if name == "HEIF":
        module.register_heif_opener()
