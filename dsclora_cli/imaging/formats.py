"""Table of the picture formats: suffixes, Pillow plugin, and what a file of each format can hold.

docs/architecture.md lists what a new format changes besides the row of `FORMATS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from dsclora_cli.errors import ImageError


@dataclass(frozen=True)
class Format:
    """Abilities of a picture format, as far as this program writes them."""

    suffixes: tuple[str, ...]
    """File suffixes with the dot, the usual suffix first."""

    module: str
    """Module that registers the format with Pillow."""

    channels: tuple[int, ...] = (1, 2, 3, 4)
    """Allowed numbers of channels, in the meaning of `types.Pixels`."""

    depths: tuple[str, ...] = ("uint8",)
    """Allowed dtypes, by NumPy name."""

    frames: str = "one"
    """Kind of frames: "one", "pages" (several frames without timing) or "timed" (animation)."""

    metadata: tuple[str, ...] = ()
    """Fields of `types.Metadata` with room in the format; "comment" is room for a single text."""

    limit: int = 2**31 - 1
    """Longest allowed side in pixels."""

    extra: str | None = None
    """Optional dependency of this package that brings `module`; None if `module` is always installed."""


_ALL = ("icc", "exif", "xmp", "iptc", "dpi", "density", "text")
_NO_IPTC = ("icc", "exif", "xmp")

FORMATS = MappingProxyType(
    {
        "JPEG": Format(
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            "PIL.JpegImagePlugin",
            channels=(1, 3),
            metadata=("icc", "exif", "xmp", "iptc", "dpi", "density", "comment"),
            limit=65500,  # of libjpeg; the format itself allows 65535
        ),
        "PNG": Format(
            (".png", ".apng"), "PIL.PngImagePlugin", depths=("uint8", "uint16"), frames="timed", metadata=_ALL
        ),
        "WEBP": Format(
            (".webp",), "PIL.WebPImagePlugin", channels=(3, 4), frames="timed", metadata=_NO_IPTC, limit=2**14 - 1
        ),
        "TIFF": Format(
            (".tif", ".tiff"),
            "PIL.TiffImagePlugin",
            depths=("uint8", "uint16", "float32"),
            frames="pages",
            metadata=("icc", "exif", "xmp", "iptc", "dpi", "density", "geo"),
        ),
        "AVIF": Format((".avif",), "PIL.AvifImagePlugin", channels=(1, 3, 4), metadata=_NO_IPTC, limit=2**16),
        "JPEG2000": Format(
            (".jp2", ".j2k", ".jpx", ".j2c", ".jpf", ".jpc"),
            "PIL.Jpeg2KImagePlugin",
            depths=("uint8", "uint16"),
            metadata=("icc", "exif", "xmp", "iptc", "dpi"),
        ),
        "GIF": Format(
            (".gif",), "PIL.GifImagePlugin", channels=(1, 3, 4), frames="timed", metadata=("comment",), limit=2**16 - 1
        ),
        "BMP": Format((".bmp", ".dib"), "PIL.BmpImagePlugin", channels=(1, 3), metadata=("dpi",)),
        "PPM": Format(
            (".ppm", ".pgm", ".pnm", ".pbm"),
            "PIL.PpmImagePlugin",
            channels=(1, 3),
            depths=("uint8", "uint16"),
            metadata=("comment",),
        ),
        "TGA": Format((".tga",), "PIL.TgaImagePlugin", limit=2**16 - 1),
        "HEIF": Format((".heic", ".heif", ".hif"), "pillow_heif", channels=(1, 3, 4), metadata=_NO_IPTC, extra="heif"),
        "JXL": Format((".jxl",), "pillow_jxl", metadata=("exif", "xmp"), extra="jxl"),
    }
)
"""All formats, by Pillow name."""

_OF_SUFFIX = MappingProxyType({suffix: name for name, format in FORMATS.items() for suffix in format.suffixes})
# Brands of an ISO base media file (the "ftyp" box). AVIF files may carry the general HEIF brands as well.
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"))
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),  # "+" in place of "*" is BigTIFF
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"BM", "BMP"),
)
_RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dcs", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef"),
    *(".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
# RAW files of cameras that are no TIFF, or nearly (Olympus, Panasonic, Canon, Fujifilm, Minolta, Sigma).
_RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"\0MRM", b"FOVb")

CAMERA_RAW = "camera RAW holds the data of a sensor, not a picture", "develop it first, and save it as TIFF"
"""Message and next step for the RAW file of a camera."""


def is_camera_raw(head: bytes, suffix: str) -> bool:
    """Return whether a file that is a TIFF or of no known format is the RAW file of a camera.

    Args:
        head: First bytes of the file; 32 bytes are enough.
        suffix: Suffix of the file name. Most RAW files are TIFF files, of which the first picture is a thumbnail.
    """
    canon = head[8:10] == b"CR" or head[6:14] == b"HEAPCCDR" or head[4:12] == b"ftypcrx "
    return canon or head.startswith(_RAW_SIGNATURES) or suffix.lower() in _RAW_SUFFIXES


def format_of_suffix(suffix: str) -> str:
    """Return the format of a file suffix, with the dot and in upper or lower case: ".jpg" -> "JPEG".

    Raises:
        ImageError: No format has the suffix, or the optional package of the format is not installed.
    """
    name = _OF_SUFFIX.get(suffix.lower())
    if name is None:
        raise ImageError(f'no picture format has the suffix "{suffix}"', f"known suffixes: {' '.join(_OF_SUFFIX)}")
    require_format(name)
    return name


def is_picture_name(path: Path) -> bool:
    """Return whether the suffix of a file belongs to a picture format; the file is not opened."""
    return path.suffix.lower() in _OF_SUFFIX


def detect_format(head: bytes, tail: bytes, suffix: str) -> str | None:
    """Return the format of a file from its content, or None for an unknown format.

    Args:
        head: First bytes of the file; 32 bytes are enough.
        tail: Last 18 bytes, where a TGA file may have a footer.
        suffix: Suffix of the file name. Only TGA without a footer is recognized by the suffix: TGA has no signature.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        # The main brand, 4 bytes of version, the compatible brands. AVIF files may name a HEIF brand first.
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, len(head), 4))}
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIF_BRANDS else None
    if head[:1] == b"P" and head[1:2] in b"123456fF" and head[2:3].isspace():
        return "PPM"
    if tail.startswith(b"TRUEVISION-XFILE") or suffix.lower() == ".tga":
        return "TGA"
    return None


def require_format(name: str) -> Format:
    """Return the abilities of a format, by Pillow name.

    Raises:
        ImageError: The format is unknown, or its optional package is missing; the hint is the command to install it.
    """
    found = FORMATS.get(name)
    if found is None:
        raise ImageError(f'there is no picture format "{name}"', f"known formats: {', '.join(FORMATS)}")
    if found.extra and find_spec(found.module) is None:
        raise ImageError(f"{name} pictures need an optional package", f'pip install "dsclora[{found.extra}]"')
    return found


def load_plugin(name: str) -> None:
    """Register a format with Pillow. Raise ImageError where the optional package of the format is missing.

    Only the plugin of this format is imported: `PIL.Image.init` would import all of them, which costs start-up time.
    """
    module = importlib.import_module(require_format(name).module)
    if name == "HEIF":
        module.register_heif_opener()
