"""The parsers of this project, each with files to start from and the exceptions that its documentation allows."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from parser_cases import Parser, as_file, scratch
from pictures import IPTC, XMP, exif_block
from PIL import Image
from record_parsers import RECORD_PARSERS
from seeds import picture_files
from small_networks import made

from dsclora_cli import settings
from dsclora_cli.errors import DscloraError, ImageError, UsageError, WeightsError
from dsclora_cli.imaging import geotiff, isobmff, metadata, profiles, raw_video, tiff_ifd, xmp
from dsclora_cli.imaging.codecs import animation_gaps, avif, coded_tail, jpeg_scan, jxl, png, pnm, webp
from dsclora_cli.imaging.containers import bmp, gif, surplus, tga
from dsclora_cli.imaging.types import Metadata
from dsclora_cli.inference.native.weights import load_kept, read_span_weights
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import check_recipe, read_recipe, recipe_to_toml, resolve_defaults
from dsclora_cli.upscaling.inputs import expand_list
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.catalog import packaged_file, read_catalog
from dsclora_cli.weights.checkpoint import describe_file, pack_network
from dsclora_cli.weights.pickles import find_code

ALIKE = {".png": "PNG", ".gif": "GIF", ".webp": "WEBP", ".avif": "AVIF", ".heic": "HEIF", ".jp2": "JPEG2000"}
"""Suffix to format, for parsers that are told the format."""


def _with_suffix(*suffixes: str) -> Callable[[], list[bytes]]:
    return lambda: [data for name, data in picture_files().items() if name.endswith(suffixes)]


def _avif_tracks() -> bytes:
    """Return an AVIF whose pictures are in tracks alone: an animation without the boxes of a still picture."""
    buffer = io.BytesIO()
    first, second = (Image.new("RGB", (24, 16), color) for color in ((200, 90, 20), (10, 90, 200)))
    first.save(buffer, "AVIF", save_all=True, append_images=[second], speed=10)
    return buffer.getvalue().replace(b"meta", b"free")


def _parse_tiff(data: bytes) -> None:
    layout, first = tiff_ifd.parse_header(data[:16])
    stream = io.BytesIO(data)
    for offset, _ in zip(tiff_ifd.iter_pages(stream, layout, first), range(20), strict=False):
        directory = tiff_ifd.read_directory(stream, layout, offset)
        for entry in directory.entries.values():
            tiff_ifd.read_integers(entry, layout.order)
            tiff_ifd.read_fractions(entry, layout.order)
        list(surplus.tiff_notes(directory.entries, directory.repeated))


def _parse_exif(data: bytes) -> None:
    exif = metadata.normalize_exif(data)
    metadata.exif_notes(data)
    metadata.read_exif_resolution(data)
    metadata.tags_without_place(data)
    read = Metadata(exif=exif)
    orientation = metadata.read_orientation(read)
    with_size = metadata.with_size(read, 64, 48, (32, 24), orientation=orientation)
    # An edited block must be one that can be edited again.
    assert metadata.read_orientation(with_size) == 1
    if exif:
        metadata.without_orientation(exif)
        with suppress(ValueError):
            geotiff.scale_geo(exif, Fraction(2), Fraction(2))


def _parse_xmp(data: bytes) -> None:
    packet = metadata.normalize_xmp(data)
    read = Metadata(xmp=packet)
    orientation = xmp.read_xmp_orientation(packet)
    metadata.with_size(read, 64, 48, (32, 24), orientation=orientation)
    xmp.find_value(packet, "tiff:Orientation")


def _parse_boxes(data: bytes) -> None:
    file = io.BytesIO(data)
    list(isobmff.iter_boxes(file))
    isobmff.read_box_metadata(file)
    isobmff.read_color_numbers(file)
    isobmff.read_pixel_shape(file)
    isobmff.names_of_properties(file)
    isobmff.read_avif_depth(file)
    assert avif.estimate_avif_quality(file) in (None, *range(101))
    with suppress(ValueError):  # the documentation allows this one
        isobmff.read_codestream(file)


def _parse_pnm(data: bytes) -> None:
    file = io.BytesIO(data)
    pnm.read_pnm_comments(file)
    opened = pnm.open_pnm(file)
    if opened and 0 < opened.header.width * opened.header.height < 10**6:  # the reader has refused others
        list(opened.frames())


def _parse_heads(data: bytes) -> None:
    """Read the small heads, which say nothing of damage: a picture without these facts is still a picture."""
    for read in (gif.read_gif_parts, bmp.read_bmp_colors, tga.read_tga_alpha, tga.read_tga_metadata):
        read(io.BytesIO(data))
    webp.estimate_webp_quality(io.BytesIO(data))
    jxl.read_jxl_facts(io.BytesIO(data))
    list(metadata.path_notes(data))
    metadata.extract_iptc(data)


def _parse_tails(data: bytes) -> None:
    for name in ALIKE.values():
        coded_tail.present_share(io.BytesIO(data), name, 1000)
        surplus.surplus_notes(io.BytesIO(data), name)


def _parse_gaps(data: bytes) -> None:
    for name in ("GIF", "PNG", "WEBP"):
        animation_gaps.whole_frames(data, name)


def _parse_profile(data: bytes) -> None:
    profiles.profile_space(data)
    profiles.fitting_profile(data, 3)
    profiles.fitting_profile(data, 1)


def _parse_weights(data: bytes) -> None:
    path = as_file(data, "net.safetensors")
    read_span_weights(path)
    load_kept(path)
    with suppress(WeightsError):
        load_adapters(path)
    describe_file(path)


def _parse_recipe(data: bytes) -> None:
    check_recipe(resolve_defaults(read_recipe(as_file(data, "recipe.toml"))))


def _parse_settings(data: bytes) -> None:
    place = settings.settings_file()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    settings.read_file()


def _parse_list(data: bytes) -> None:
    for _ in expand_list(f"@{as_file(data, 'list.txt')}"):  # a line is not opened: `/**` would list the whole machine
        pass


@cache
def _weight_files() -> list[bytes]:
    files = [pack_network(made(name), {"training": "x"}) for name in ("span without norm", "compact")]
    state = made("span without norm").state_dict()
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in state.items()})
    return [*files, buffer.getvalue()]


def _small_safetensors() -> list[bytes]:
    header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"scale": "4"}}
    text = json.dumps(header).encode()
    return [struct.pack("<Q", len(text)) + text + bytes(16), *_weight_files()[:2]]


def _pickles() -> list[bytes]:
    objects = ({"a": [1, 2.5, None, True, b"x" * 300]}, {"params": {"w": (1, 2)}}, [{"k": "v" * 300}])
    return [pickle.dumps(each, protocol) for each in objects for protocol in range(6)]


def _icc() -> list[bytes]:
    return [profiles.srgb_profile(), Image.open(io.BytesIO(picture_files()["tiff-cmyk.tif"])).info["icc_profile"]]


PARSERS: dict[str, Parser] = {
    "TIFF directories": Parser(_parse_tiff, lambda: [*_with_suffix(".tif")(), exif_block(6)], (ValueError,)),
    "EXIF": Parser(_parse_exif, lambda: [exif_block(6), exif_block(3, ">"), b"Exif\0\0" + exif_block(8)]),
    "XMP": Parser(_parse_xmp, lambda: [XMP], is_text=True),
    "ISO BMFF boxes": Parser(
        _parse_boxes, lambda: [*_with_suffix(".avif", ".heic", ".jxl", ".jp2", ".j2k")(), _avif_tracks()]
    ),
    "PNG chunks": Parser(lambda data: png.scan_png(io.BytesIO(data)), _with_suffix(".png"), (ImageError,)),
    "PNM": Parser(_parse_pnm, _with_suffix(".ppm", ".pgm", ".pbm", ".pfm"), (ImageError,), is_text=True),
    "heads of GIF, BMP, TGA, WebP, JPEG XL, Photoshop": Parser(
        _parse_heads, lambda: [*_with_suffix(".gif", ".bmp", ".tga", ".webp", ".jxl")(), metadata.wrap_iptc(IPTC)]
    ),
    "ends of pictures": Parser(_parse_tails, _with_suffix(*ALIKE)),
    "ends of animations": Parser(_parse_gaps, _with_suffix(".gif", ".png", ".webp")),
    # The documentation allows any exception of Pillow.
    "JPEG scans": Parser(jpeg_scan.count_whole_rows, _with_suffix(".jpg"), (Exception,)),
    "JPEG repair": Parser(jpeg_scan.repaired, _with_suffix(".jpg")),
    "ICC profiles": Parser(_parse_profile, _icc),
    "y4m headers": Parser(
        lambda data: raw_video.read_header(io.BytesIO(data)),  # type: ignore[arg-type]
        lambda: [b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\nFRAME\n"],
        (ImageError,),
        is_text=True,
    ),
    "safetensors headers": Parser(_parse_weights, _small_safetensors, (WeightsError,)),
    "weight files": Parser(_parse_weights, _weight_files, (WeightsError,)),
    "pickles": Parser(lambda data: find_code(as_file(data, "net.pth")), _pickles),
    "recipes": Parser(
        _parse_recipe, lambda: [recipe_to_toml(Recipe()).encode(), b"[run]\nsteps = 10\n"], (UsageError,), True
    ),
    "catalogue": Parser(
        lambda data: read_catalog(as_file(data, "weights.toml"), scratch()),
        lambda: [packaged_file().read_bytes()[:6000].rsplit(b"\n[", 1)[0], b"[weights.a]\narch = 'span'\n"],
        (UsageError,),
        is_text=True,
    ),
    "settings": Parser(_parse_settings, lambda: [b"quality = 90\nmodel = 'dsclora-x4'\n"], (UsageError,), is_text=True),
    "lists of inputs": Parser(
        _parse_list, lambda: [b"a.png\nb/*.tif\n# x\n", "é.png\n".encode("utf-16")], (DscloraError,), is_text=True
    ),
    **RECORD_PARSERS,
}
"""Parsers by name."""
