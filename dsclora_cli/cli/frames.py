"""`dsclora frames`: upscale a video between two pipes."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from dsclora_cli.cli import console, options
from dsclora_cli.cli.growing_output import GrowingOutput, open_growing_output
from dsclora_cli.cli.options import FILES, option
from dsclora_cli.config import (
    ReadOptions,
    SizeOptions,
    UpscaleOptions,
    VideoOptions,
)
from dsclora_cli.errors import DscloraError, OutputUnwritable, UsageError, escape_control, next_step
from dsclora_cli.paths import is_file, is_link, is_stream

_DEFAULT = UpscaleOptions()
_ENGINE = options.EngineName(_DEFAULT.engine.engine)
_DTYPE = options.Dtype(_DEFAULT.engine.dtype)
VIDEO = "Video"
_CONTAINERS = {
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
}
"""Suffixes of video files that only an encoder such as ffmpeg writes."""

FRAMES_EXAMPLES = """[bold]Examples[/]

  ffmpeg -i in.mp4 -f yuv4mpegpipe - | dsclora frames -s 2 | ffmpeg -i - -i in.mp4 -map 0:v -map 1:a? out.mp4

  ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - | dsclora frames --size 640x360 > out.rgb
"""


class Matrix(StrEnum):
    """Color matrices of YUV video."""

    AUTO = "auto"
    BT601 = "bt601"
    BT709 = "bt709"
    BT2020 = "bt2020"


class Range(StrEnum):
    """Ranges of the samples of YUV video."""

    AUTO = "auto"
    LIMITED = "limited"
    FULL = "full"


def frames(
    output: Annotated[
        Path | None,
        option(
            FILES,
            "File for the video; - is stdout.",
            "-o",
            "--output",
            parser=options.parse_file,
            metavar="<path>",
            show_default="stdout",
        ),
    ] = None,
    overwrite: Annotated[bool, option(FILES, "Replace an existing file.", "--overwrite")] = False,
    size: Annotated[
        str | None,
        option(
            VIDEO,
            "Size of raw frames of 8-bit RGB (rgb24) on stdin.",
            "--size",
            parser=options.parse_box,
            metavar="WxH",
            show_default="stdin is y4m, which states the size",
        ),
    ] = None,
    matrix: Annotated[
        Matrix, option(VIDEO, "Colour matrix of YUV video; auto is bt709 from 720 rows on, else bt601.", "--matrix")
    ] = Matrix.AUTO,
    range_: Annotated[
        Range, option(VIDEO, "Range of YUV samples; auto follows the stream, else is limited.", "--range")
    ] = Range.AUTO,
    scale: options.ScaleOption = None,
    width: options.WidthOption = None,
    height: options.HeightOption = None,
    model: options.ModelOption = _DEFAULT.model.model,
    weights: options.WeightsOption = _DEFAULT.model.weights,
    adapter: options.AdapterOption = _DEFAULT.model.adapter,
    sharp: options.SharpOption = _DEFAULT.model.sharp,
    sharp_weights: options.SharpWeightsOption = _DEFAULT.model.sharp_weights,
    offline: options.OfflineOption = _DEFAULT.model.offline,
    device: options.DeviceOption = _DEFAULT.engine.device,
    engine: options.EngineOption = _ENGINE,
    dtype: options.DtypeOption = _DTYPE,
    tile: options.TileOption = options.AUTO_TILE,
    threads: options.ThreadsOption = _DEFAULT.engine.threads,
    max_pixels: options.MaxPixelsOption = _DEFAULT.read.max_pixels,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Upscale a video from stdin to stdout, frame by frame: y4m, or raw RGB with --size."""
    asked = UpscaleOptions(
        model=options.model_options(model, weights, offline, adapter, sharp, sharp_weights),
        size=SizeOptions(scale, width, height),
        engine=options.engine_options(device, dtype, tile, threads, ensemble=False, engine=engine.value),
        read=ReadOptions(max_pixels),
    )
    video = VideoOptions(
        rgb_size=options.box_of(size) if size else None,
        matrix=None if matrix is Matrix.AUTO else matrix.value,
        full_range=None if range_ is Range.AUTO else range_ is Range.FULL,
    )
    output = None if str(output) == "-" else output
    _check(output, json, overwrite, is_rgb=size is not None)
    if quiet:
        console.hide_download_bars()
    # Imported here, as NumPy and the image libraries would slow down `--help`.
    from dsclora_cli.cli.views.frames_progress import FramesView
    from dsclora_cli.upscaling.frames import upscale_frames

    source = io.FileIO(sys.stdin.fileno(), closefd=False)
    with _target(output) as target, FramesView(quiet, target.end_part) as view:
        result = upscale_frames(source, target.file, asked, video, view)
    view.show(result)
    if json:
        console.show_json(result)


def _check(output: Path | None, json: bool, overwrite: bool, is_rgb: bool) -> None:
    """Raise UsageError, before anything slow is loaded.

    stdin or stdout is no pipe and no file, the output is named as a file of an encoder, or an existing file would be
    replaced without --overwrite.
    """
    pipe = "ffmpeg -i in.mp4 -f yuv4mpegpipe - | dsclora frames | ffmpeg -i - out.mp4"
    if sys.stdin.isatty():
        raise UsageError("no video comes on stdin", f"for example: {pipe}")
    if output is None:
        console.check_stdout("video", json, True, f"for example: {pipe}")
        return
    _check_suffix(output, is_rgb)
    if is_file(output):  # pipes and devices are written to, and not replaced
        if not overwrite:
            raise UsageError(f"{output} exists already", "choose another name with -o, or add --overwrite")
        if os.path.samestat(output.stat(), os.fstat(sys.stdin.fileno())):
            raise UsageError(f"{output} is the video on stdin itself", "choose another name with -o")


def _check_suffix(output: Path, is_rgb: bool) -> None:
    """Raise UsageError for the suffix of a format with an encoder: a file named so would hold raw video."""
    # Imported here, as only `-o` needs the table.
    from dsclora_cli.imaging.formats import is_picture_name

    suffix = output.suffix.lower()
    if suffix not in _CONTAINERS and not is_picture_name(output):
        return
    if is_stream(output):  # a pipe or a device may have any name
        return
    reads, own = ("-f rawvideo -pix_fmt rgb24 -s WxH -i -", ".rgb") if is_rgb else ("-i -", ".y4m")
    raise UsageError(
        f"{output}: frames writes uncompressed video, and no {suffix} file",
        f"leave -o out and append: | ffmpeg {reads} {shlex.quote(str(output))}; or name a file that ends with {own}",
    )


@contextmanager
def _target(output: Path | None) -> Iterator[GrowingOutput]:
    """Yield the output for the video. Raises OutputUnwritable where bytes cannot be written.

    After a failure, the error or a warning tells where the whole frames are.
    """
    target = None
    try:
        if output is None:
            target = GrowingOutput(sys.stdout.buffer, is_stream=True)
            yield target
            return
        with open_growing_output(output) as target:
            yield target
    except BrokenPipeError:  # the next program has read enough, which is no error: see docs/exit-codes.md
        raise
    except OSError as error:
        message = f"{output or 'stdout'} cannot be written ({error.strerror})"
        raise OutputUnwritable("; ".join([message, *_whole_frames(output, target)]), next_step(error)) from error
    except DscloraError as error:
        error.message = "; ".join([error.message, *_whole_frames(output, target)])
        raise
    except KeyboardInterrupt as interrupt:
        for text in _whole_frames(output, target):
            console.show_interrupt(interrupt, f"the video is incomplete; {text}")
        raise
    except BaseException:  # a bug
        for text in _whole_frames(output, target):
            console.print_labeled("warning", f"the video is incomplete; {text}", "yellow")
        raise


def _whole_frames(output: Path | None, target: GrowingOutput | None) -> Iterator[str]:
    """Yield a clause about the frames that a failed command leaves, if there are any."""
    if not target or not target.parts or not (target.is_stream or target.kept):
        return
    frames = "the first frame is" if target.parts == 1 else f"the first {target.parts} frames are"
    place = target.kept or output or "stdout"
    # As the user writes the folder, except where a link leads to another one.
    if output and target.kept and not is_link(output):
        place = output.with_name(target.kept.name)
    yield escape_control(f"{frames} in {place}") if output else f"{frames} on {place}"
