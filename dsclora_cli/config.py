"""Options of the Python API and of most commands, with their defaults, as frozen dataclasses.

The command line takes defaults and ranges from here, and so does `Upscaler`. A value of another type or out of range
is a UsageError; a path may be given as text, and a tuple as a list. Options of training are in recipe.py, and
options of `push` in publishing/push.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dsclora_cli.checked import Checked, Numbers, Words
from dsclora_cli.errors import UsageError

if TYPE_CHECKING:
    from dsclora_cli.storage.places import Place

DEFAULT_SCALE = 4.0
"""Factor of the sides when no size is given."""

MAX_SCALE = 16.0
"""Largest factor of the sides."""


@dataclass(frozen=True)
class ModelOptions(Checked):
    """Which weights to use; a model's name and a weights file together are an error."""

    model: str = "auto"
    """Name of a model in the catalog, a weight file, or hf://USER/REPO/FILE[@REVISION] on the Hub; auto selects for the
    scale."""

    weights: Place | None = None
    """File of weights, as a path or at a URL, instead of a model's name."""

    offline: bool = False
    """Do not access the internet."""

    adapter: Path | None = None
    """Adapter file to merge into the model; with `model` auto, into the model that the adapter was made for."""

    sharp: Annotated[float, Numbers(0, 1)] | None = None
    """How far to move the weights towards the sharp model, 0 to 1; None and 0 leave the weights unchanged."""

    sharp_weights: Path | None = None
    """File of the sharp model, instead of the sharp model that the catalog names."""


@dataclass(frozen=True)
class SizeOptions(Checked):
    """How large the result is; the aspect ratio is always kept.

    At most one field may be set, or `width` and `height` together. With none set, `DEFAULT_SCALE` applies.
    """

    scale: float | None = None
    """Factor of the sides, above 1 and up to `MAX_SCALE`."""

    width: Annotated[int, Numbers(1)] | None = None
    """Width of the result in pixels; with `height`, the result fits into both."""

    height: Annotated[int, Numbers(1)] | None = None
    """Height of the result in pixels; with `width`, the result fits into both."""

    fit: Annotated[tuple[int, int], Numbers(1)] | None = None
    """Width and height, in pixels, of a box that the result fits into."""

    long_edge: Annotated[int, Numbers(1)] | None = None
    """Longer side of the result in pixels."""

    short_edge: Annotated[int, Numbers(1)] | None = None
    """Shorter side of the result in pixels."""

    megapixels: float | None = None
    """Size of the result in millions of pixels."""


@dataclass(frozen=True)
class EngineOptions(Checked):
    """Where and how the network runs."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; for a batch also several with commas between, or all for every GPU."""

    dtype: Annotated[str, Words(("auto", "float32", "float16"))] = "auto"
    """auto, float32 or float16; auto is float16 on CUDA and float32 elsewhere."""

    tile: Annotated[int, Numbers(0)] | None = None
    """Edge of a tile without halo, in LR pixels; 0 means the whole picture, None chooses from free memory."""

    threads: Annotated[int, Numbers(1)] | None = None
    """CPU threads for the network; None leaves the choice to the engine."""

    ensemble: bool = False
    """Take the mean over 8 flips and turns: a little better, 8 times slower."""

    engine: Annotated[str, Words(("auto", "native", "torch", "openvino"))] = "auto"
    """auto, native, torch or openvino; native and openvino run on the CPU in float32 only."""


@dataclass(frozen=True)
class SaveOptions(Checked):
    """How results are written."""

    format: str | None = None
    """Pillow format name in upper case; None takes the format of the output's suffix, else of the input."""

    quality: Annotated[int, Numbers(1, 100)] = 95
    """1 to 100, for JPEG, WebP, AVIF, HEIF and JPEG XL."""

    compression: Annotated[int, Numbers(0, 9)] = 1
    """0 to 9, for PNG and TIFF; the default is chosen for speed."""

    metadata: Annotated[str, Words(("all", "none"))] = "all"
    """all or none: keep or drop EXIF, XMP, IPTC and text. The color profile is always kept."""

    strict: bool = False
    """Refuse to lose transparency, bit depth, frames or colors; without `strict`, a loss is a warning."""


@dataclass(frozen=True)
class BatchOptions(Checked):
    """Which files to upscale, and where results go; docs/files.md describes the rules."""

    output: str | None = None
    """File, folder, or "-" for stdout; None writes results next to their inputs."""

    name: str = "{stem}_x{scale}.{ext}"
    """Template of a result's name, with {stem}, {scale}, {model}, {ext}, {width} and {height}."""

    recursive: bool = False
    """Also take pictures in folders inside the given folders, and repeat the tree of folders in the output."""

    overwrite: bool = False
    """Replace existing files."""

    fail_fast: bool = False
    """Start no other picture after the first failure."""

    shard: tuple[int, int] | None = None
    """Number of a shard, from 1, and number of shards: only the pictures of the shard are upscaled."""

    def __post_init__(self) -> None:
        """Check the values as `Checked` does, and the shard against the number of shards."""
        super().__post_init__()
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(
                f"BatchOptions.shard is {self.shard}", "give (I, N): shard I of N, where I is a number from 1 to N"
            )


@dataclass(frozen=True)
class ReadOptions(Checked):
    """How pictures are read."""

    max_pixels: Annotated[int, Numbers(1)] = 200_000_000
    """Most pixels of a picture in memory at once; a large TIFF is read in bands, and only a band counts."""

    salvage: bool = False
    """Take what is there of an incomplete picture, with a warning about the share; by default, refuse the picture."""


@dataclass(frozen=True)
class VideoOptions(Checked):
    """Everything about a video on a stream that the stream itself does not state."""

    rgb_size: Annotated[tuple[int, int], Numbers(1)] | None = None
    """Width and height of raw RGB frames of 8 bits (rgb24); None for a y4m stream."""

    matrix: Annotated[str, Words(("bt601", "bt709", "bt2020"))] | None = None
    """Color matrix of a YUV video: bt601, bt709 or bt2020; None takes BT.709 from 720 rows on, else BT.601."""

    full_range: bool | None = None
    """Whether the samples of a YUV video use all values; None follows the stream, and is False without a statement."""


@dataclass(frozen=True)
class UpscaleOptions(Checked):
    """All options of `dsclora upscale` and `Upscaler`."""

    model: ModelOptions = ModelOptions()
    size: SizeOptions = SizeOptions()
    engine: EngineOptions = EngineOptions()
    save: SaveOptions = SaveOptions()
    batch: BatchOptions = BatchOptions()
    read: ReadOptions = ReadOptions()

    max_memory: Annotated[int, Numbers(1)] | None = None
    """Limit on the host memory of the process in bytes: tiles get smaller, and a picture that needs more is refused."""

    wrap: bool = False
    """Whether a picture continues at the opposite edge, as a repeating texture does."""

    measure: bool = False
    """Whether the faithfulness of results is measured, which takes about a tenth of the time."""


@dataclass(frozen=True)
class ClusterOptions(Checked):
    """Where the workers of a run on a Ray cluster start, and how much of a machine each worker has."""

    address: str | None = None
    """Address of the cluster: auto, or HOST:PORT; None takes the variable RAY_ADDRESS, else this machine alone."""

    workers: Annotated[int, Numbers(1)] | None = None
    """Number of workers; None starts as many as the cluster has room for."""

    cpus: Annotated[int, Numbers(1)] = 2
    """CPUs of a worker, and threads of the network where the options of the engine name no number."""

    gpus: Annotated[float, Numbers(0)] = 0.0
    """GPUs of a worker; workers may share a GPU."""

    timeout: Annotated[float, Numbers(1)] = 3600.0
    """Seconds without a finished tile or picture after which a worker counts as hung, and is replaced."""


@dataclass(frozen=True)
class CompareOptions(Checked):
    """All options of `dsclora compare` but the picture and the places of the results."""

    candidates: tuple[str, ...] = ()
    """Models of the catalog, files of weights, finished pictures, nearest, bicubic or lanczos; none means bicubic and
    auto."""

    scale: float = DEFAULT_SCALE
    """Factor of the sides."""

    crop: tuple[int, int, int, int] | None = None
    """x, y, width and height of a part in pixels of the input; None takes the whole picture, or the middle of a large
    picture."""

    hr: Path | None = None
    """True picture, for scores."""

    sharp: Annotated[tuple[float, ...], Numbers(0, 1)] = ()
    """Sharpnesses, 0 to 1: each model gives one more result for each of them."""

    sharp_weights: Path | None = None
    """File of the sharp model, instead of the sharp model that the catalog names."""

    offline: bool = False
    """Do not access the internet."""

    engine: EngineOptions = EngineOptions()
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True)
class EvalOptions(Checked):
    """All options of `dsclora eval`: benchmark sets by name, or pictures in folders, and the models to score."""

    datasets: tuple[str, ...] = ()
    """Names of benchmark sets; not together with `hr`."""

    data_dir: Path | None = None
    """Folder that holds the named sets, instead of the Hub."""

    hr: Path | None = None
    """Folder of original pictures; not together with `datasets`."""

    lr: Path | None = None
    """Folder of small versions of the pictures in `hr`; None makes them with MATLAB's bicubic."""

    scale: Annotated[int, Numbers(1, 16)] = 4
    """Factor of the sides."""

    jpeg: Annotated[int, Numbers(1, 100)] | None = None
    """Save LR as JPEG of this quality, with 4:2:0 chroma, before upscaling; None leaves LR clean."""

    models: tuple[ModelOptions, ...] = ()
    """Models to score; none means auto."""

    protocol: Annotated[str, Words(("paper", "ntire"))] = "paper"
    """paper (Y and RGB, border = scale) or ntire (PSNR on RGB, border 4)."""

    metrics: tuple[str, ...] = ()
    """Extra metrics: niqe, and others by their names in pyiqa."""

    engine: EngineOptions = EngineOptions(dtype="float32", engine="torch")
    """Where and how networks run; the default is what papers use."""

    cost: bool = False
    """Also measure parameters, multiply-adds, activations, time and memory."""

    worst: Annotated[int, Numbers(0)] = 0
    """How many images with the least gain to name for every model."""

    save: Path | None = None
    """Folder for the upscaled images and contact sheets; None saves nothing."""

    offline: bool = False
    """Do not access the internet."""

    max_pixels: Annotated[int, Numbers(1)] = ReadOptions.max_pixels
    """Most pixels of a picture; a larger picture ends the evaluation."""

    fresh: bool = False
    """Ignore scores that earlier runs have kept."""
