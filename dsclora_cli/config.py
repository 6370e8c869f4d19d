"""Every default, once. Frozen dataclasses that the command line, the Python API and the tasks share; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_SCALE = 4.0
MAX_SCALE = 16.0


@dataclass(frozen=True)
class ModelOptions:
    """Which weights: a catalogue name or `auto`, or a file; a file and a name together are refused.

    `adapter` is merged into them; with `auto` it says itself which weights it is for.
    """

    model: str = "auto"
    weights: Path | None = None
    offline: bool = False
    adapter: Path | None = None


@dataclass(frozen=True)
class SizeOptions:
    """How large the result is. At most one field is set; with none, `DEFAULT_SCALE` applies.

    `scale` is a factor above 1 up to `MAX_SCALE`; the others are pixels of the result, `megapixels` 10^6 of them.
    `width` and `height` may both be set: the result then fits inside, as with `fit`. The aspect ratio is always kept.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    fit: tuple[int, int] | None = None
    long_edge: int | None = None
    short_edge: int | None = None
    megapixels: float | None = None


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the network runs.

    `tile` is the edge of a tile's core in LR pixels: None chooses from free memory, 0 means the whole picture.
    `device`: auto, cpu, cuda, cuda:N or mps; in a batch also several, with commas between, or all for every GPU.
    `dtype`: auto, float32 or float16. `engine`: auto, torch, or openvino, which runs on the CPU in float32.
    """

    device: str = "auto"
    dtype: str = "auto"
    tile: int | None = None
    threads: int | None = None
    ensemble: bool = False
    engine: str = "auto"


@dataclass(frozen=True)
class SaveOptions:
    """How results are written.

    `format` is a Pillow format name in upper case, or None for that of the output's suffix, else the input's.
    `quality` 1-100 for JPEG, WebP, AVIF, HEIF and JPEG XL. `compression` 0-9 for PNG and TIFF, chosen for speed.
    `metadata`: all or none. `strict` refuses what would otherwise lose alpha, depth or frames with a warning.
    """

    format: str | None = None
    quality: int = 95
    compression: int = 1
    metadata: str = "all"
    strict: bool = False


@dataclass(frozen=True)
class BatchOptions:
    """Which files, and where results go; see docs/files.md.

    `output` is a file, a folder or `-`; None puts results beside their inputs. `name` is the template of a result's
    name, with `{stem} {scale} {model} {ext} {width} {height}`.
    """

    output: str | None = None
    name: str = "{stem}_x{scale}.{ext}"
    recursive: bool = False
    overwrite: bool = False
    fail_fast: bool = False


@dataclass(frozen=True)
class UpscaleOptions:
    """Everything that `dsclora upscale` and `Upscaler` can be told.

    `max_memory` limits the host memory of the process for each picture of a batch, in bytes: by smaller tiles, or it
    is refused.
    """

    model: ModelOptions = ModelOptions()
    size: SizeOptions = SizeOptions()
    engine: EngineOptions = EngineOptions()
    save: SaveOptions = SaveOptions()
    batch: BatchOptions = BatchOptions()
    max_memory: int | None = None


@dataclass(frozen=True)
class EvalOptions:
    """Everything that `dsclora eval` can be told: either sets by name or `hr`, and what is compared on them.

    `data_dir` holds the named sets instead of the Hub; `lr` goes with `hr`. No model means `auto`. `metrics` are extra
    ones, by pyiqa's names. `worst` counts the images to name. `save` is the folder for the upscaled images. With `jpeg`
    LR goes through a JPEG of that quality, 4:2:0, before it is upscaled.
    """

    datasets: tuple[str, ...] = ()
    data_dir: Path | None = None
    hr: Path | None = None
    lr: Path | None = None
    scale: int = 4
    jpeg: int | None = None
    models: tuple[ModelOptions, ...] = ()
    protocol: str = "paper"
    metrics: tuple[str, ...] = ()
    engine: EngineOptions = EngineOptions(dtype="float32", engine="torch")
    cost: bool = False
    worst: int = 0
    save: Path | None = None
    offline: bool = False
    fresh: bool = False
