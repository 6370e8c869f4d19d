"""Options of a training run: default, range and help text of every option, written once. Imports no torch.

A group of options is a table of `recipe.toml` and a panel of `dsclora train --help`. A field of a group is a key of the
table and an option on the command line: `learning_rate` is `--learning-rate`. Field names are therefore unique over all
groups. `recipe_toml` reads and writes recipes, and `cli.recipe_options` makes the options; both use `option_fields`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dsclora_cli.config import ReadOptions
from dsclora_cli.methods import DISTILL_METHODS, is_broken_method, method_names
from dsclora_cli.names import ARCHITECTURES

DEFAULT_SHAPES = {"dsclora": (26, 6), **{name: (arch.channels, arch.blocks) for name, arch in ARCHITECTURES.items()}}
"""Channels and blocks of each architecture; for RCAN the blocks of one group."""

DEFAULT_RCAN_GROUPS = 10
"""Groups of blocks in an RCAN."""

OPTIMIZER_DEFAULTS = {"adam": (1e-3, (0.9, 0.99)), "adamw": (1e-3, (0.9, 0.99)), "soap": (0.05, (0.95, 0.97))}
"""Learning rate and decay rates of the two moments (`betas`) of each optimizer."""

DEFAULT_FEATURE_WEIGHTS = {"fd": 0.01, "fakd": 0.04, "facd": 10.0, "augkd": 0.5}
"""Weight of the feature loss of each method. FAKD's authors use 10 for images in [0, 255]; 0.04 is 10 / 255."""

PLUGIN_FEATURE_WEIGHT = 1.0
"""Weight of the feature loss of methods of other packages."""

DEFAULT_FEATURE_DISTANCE = "l2"
"""Distance between feature maps for FD and FACD."""

EXPERT_OPTIONS = frozenset(
    {
        *("contrast", "negatives", "condition", "margin", "temperature"),  # the parts of FACD
        *("betas", "final", "milestones", "gamma", "most_skips"),
    }
)
"""Options that `--help` leaves out, to stay readable. The command line and recipes accept every expert option."""

_WEIGHTS = "FILE|NAME"
_TEACHER_INPUTS = ("patch", "whole", "ensemble")


def option_field(
    default: Any,  # noqa: ANN401 - as dataclasses.field is typed
    text: str,
    metavar: str = "",
    min: float = -math.inf,
    max: float = math.inf,
    affects_result: bool = True,
) -> Any:  # noqa: ANN401
    """Return a dataclass field with the metadata of an option.

    Args:
        default: Default value.
        text: Help text, which must be clear without the help texts around.
        metavar: How to write a value: words to choose from ("adam|adamw") or a placeholder ("DIR").
        min: Smallest number allowed.
        max: Largest number allowed.
        affects_result: False for an option that does not change the trained weights (apart from rounding), so that a
            run may resume with another value.
    """
    # `dataclasses.fields` hands the metadata back, so `option_fields` finds an option without a second list.
    metadata = {"help": text, "metavar": metavar, "min": min, "max": max, "affects_result": affects_result}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NetworkOptions:
    """Options of the network to train."""

    arch: str = option_field(
        "dsclora",
        "Architecture: dsclora is the DSCLoRA student, span a SPAN of any width.",
        "|".join(DEFAULT_SHAPES),
    )
    scale: int = option_field(4, "Upscaling factor: 2, 3 or 4, or 1 to restore pictures.", "1|2|3|4", min=1, max=4)
    channels: int | None = option_field(
        None, "Channels of the network; default 26 for dsclora, 48 for span, 64 for compact, edsr and rcan.", "N", min=1
    )
    blocks: int | None = option_field(
        None,
        "Blocks of the network; default 6 for dsclora and span, 16 for compact and edsr, 20 per group for rcan.",
        "N",
        min=1,
    )
    groups: int | None = option_field(None, "RCAN: groups of blocks; default 10.", "N", min=1)
    expanded: bool = option_field(
        False, "SPAN: train three convolutions for each 3x3 convolution (Conv3XC), merged in every pass."
    )
    init: str | None = option_field(
        None,
        "Weights to start from. Weights for another scale give every layer but the upsampler.",
        _WEIGHTS,
    )


@dataclass(frozen=True)
class DataOptions:
    """Options of the training pictures and patches. Without `lr`, LR is MATLAB's bicubic of whole HR pictures."""

    data: tuple[str, ...] = option_field(
        (), "Folder of HR training pictures, or a set such as DIV2K; may be repeated.", "DIR|SET"
    )
    lr: Path | None = option_field(  # noqa: RUF009
        None,
        "Folder of real LR pictures, paired by name with the HR pictures of --data and --val; default: bicubic LR.",
        "DIR",
    )
    val: Path | None = option_field(  # noqa: RUF009
        None, "Folder of held-out HR pictures; default: a share of the training pictures.", "DIR"
    )
    val_share: float = option_field(
        0.04, "Share of the training pictures to hold out, chosen by --seed.", "X", min=0, max=0.9
    )
    max_pixels: int = option_field(
        ReadOptions.max_pixels,
        "Most pixels of a training picture in memory at once, such as 500MP; larger pictures are left out.",
        "PIXELS",
        min=1,
        affects_result=False,
    )
    batch: int = option_field(16, "Patches in a training step, over all worker processes.", "N", min=1)
    patch: int = option_field(48, "Side of a patch in LR pixels.", "N", min=4)


@dataclass(frozen=True)
class DegradeOptions:
    """Options for degrading LR patches in a camera's order: blur, noise, sharpening, saving once or twice.

    Values are uniform in their range.
    """

    degrade: bool = option_field(False, "Train for camera pictures: blur the LR patches, add noise, save as JPEG.")
    blur: tuple[float, float] = option_field(
        (0.0, 0.6),
        "With --degrade: standard deviation of the Gaussian blur in LR pixels.",
        "LOW HIGH",
        min=0,
        max=10,
    )
    noise: tuple[float, float] = option_field(
        (0.0, 2.0),
        "With --degrade: standard deviation of the sensor noise in 8-bit levels.",
        "LOW HIGH",
        min=0,
        max=255,
    )
    quality: tuple[int, int] = option_field(
        (30, 100), "With --degrade: JPEG quality, 1 to 100.", "LOW HIGH", min=1, max=100
    )
    subsampled: float = option_field(
        0.8, "With --degrade: share of the JPEGs with 4:2:0 chroma; all others have 4:4:4.", "X", min=0, max=1
    )
    clean: float = option_field(0.1, "With --degrade: share of the patches left unchanged.", "X", min=0, max=1)
    sharpened: float = option_field(
        0.0,
        "With --degrade: share of the patches that are sharpened before saving, which gives halos.",
        "X",
        min=0,
        max=1,
    )
    halo: tuple[float, float] = option_field(
        (0.2, 1.5),
        "With --sharpened: amount of the unsharp mask; 1 doubles the contrast of edges.",
        "LOW HIGH",
        min=0,
        max=10,
    )
    twice: float = option_field(
        0.0, "With --degrade: share of the patches that are saved, cropped and saved again.", "X", min=0, max=1
    )
    first_size: tuple[float, float] = option_field(
        (1.0, 1.0),
        "With --twice: size at which a picture was saved the first time, relative to LR; the picture is then resized.",
        "LOW HIGH",
        min=0.25,
        max=4,
    )
    webp: float = option_field(
        0.0, "With --degrade: share of the saved files that are lossy WebP; all others are JPEG.", "X", min=0, max=1
    )


@dataclass(frozen=True)
class LossOptions:
    """Options of the loss between the network's output and HR."""

    loss: str = option_field("l1", "Loss between the network's output and HR.", "l1|l2|charbonnier|psnr")
    fft: float = option_field(0.0, "Weight of an L1 loss between the spectra of output and HR.", "X", min=0)


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of the optimizer and the learning rate."""

    optimiser: str | None = option_field(
        None, "Optimiser; default soap for SPAN, adam for Compact, EDSR, RCAN and adapters.", "adam|adamw|soap"
    )
    learning_rate: float | None = option_field(
        None, "Peak learning rate; default 0.001, for soap 0.05 (a share of the size of each weight).", "X", min=0
    )
    betas: tuple[float, float] | None = option_field(
        None,
        "Decay rates of the optimiser's two averages; default 0.9 0.99, for soap 0.95 0.97.",
        "FIRST SECOND",
        min=0,
        max=0.999999,  # an average that forgets nothing has no first value: optimizers refuse 1, or divide by zero
    )
    weight_decay: float = option_field(
        0.0, "Weight decay: decoupled for adamw, an L2 penalty for adam, unused by soap.", "X", min=0
    )
    warmup: float = option_field(
        0.02, "Share of the steps in which the learning rate rises from zero.", "X", min=0, max=1
    )
    schedule: str = option_field(
        "cosine", "How the learning rate falls after the warm-up.", "cosine|multistep|constant"
    )
    final: float = option_field(0.01, "Cosine schedule: last learning rate as a share of the peak.", "X", min=0, max=1)
    milestones: tuple[float, ...] = option_field(
        (0.5, 0.75, 0.9),
        "Multistep schedule: share of the steps after which the learning rate falls; may be repeated.",
        "X",
        min=0,
        max=1,
    )
    gamma: float = option_field(
        0.5, "Multistep schedule: factor of the learning rate at each milestone.", "X", min=0, max=1
    )
    clip: float = option_field(1.0, "Largest norm of the gradient; 0 for no limit.", "X", min=0)
    accumulate: int = option_field(
        1,
        "Parts to cut each batch into, to save memory; distillation by facd, augkd or with positions changes a little.",
        "N",
        min=1,
        affects_result=False,
    )
    ema: float = option_field(
        0.995,
        "Decay of the moving average of the weights, which is scored and saved; 0 for none.",
        "X",
        min=0,
        max=1,
    )


@dataclass(frozen=True)
class RunOptions:
    """Options of the run: length, validation, checkpoints and device."""

    steps: int = option_field(20000, "Training steps.", "N", min=1)
    seed: int = option_field(
        1, "Seed of the initial weights, the held-out pictures, the patches and the degradations.", "N", min=0
    )
    validate: int = option_field(250, "Steps between two scores on the held-out pictures.", "N", min=1)
    checkpoint_minutes: float = option_field(3.0, "Minutes between two checkpoints.", "X", min=0, affects_result=False)
    most_skips: int = option_field(
        20,
        "Stop after more than N steps in a row with a loss or gradient that is not finite.",
        "N",
        min=1,
        affects_result=False,
    )
    device: str = option_field("auto", "Device to train on.", "auto|cpu|cuda|cuda:N|mps", affects_result=False)
    threads: int | None = option_field(
        None, "CPU threads; default: PyTorch's choice.", "N", min=1, affects_result=False
    )
    compile: str = option_field(
        "auto",
        "Compile the network with torch.compile; auto: if a compiler is installed.",
        "auto|on|off",
        affects_result=False,
    )
    amp: str = option_field(
        "auto",
        "Mixed precision; auto: on CUDA only, and not for adapters. A CPU that multiplies bfloat16 in hardware"
        " needs 55 to 65 % of the time with bfloat16.",
        "auto|bfloat16|float16|off",
    )


@dataclass(frozen=True)
class DistillOptions:
    """Options of distillation. Method dsclora trains adapters for `base`; every other method trains a network.

    The loss is `rec * distance(output, HR) + ts * L1(output, teacher's output)`, plus `spectrum` times the distance of
    their amounts of detail (`detail_l1`), plus the loss of the method: `ad` times the affinity loss for dsclora,
    `feature_weight` times the loss of the method for fd, fakd, facd and augkd, nothing for logits and none.
    `dsclora train --teacher-images DIR` is method logits with a folder.
    """

    method: str = option_field(
        "dsclora",
        "dsclora: train adapters for a base. Other methods train a network: logits by the teacher's output, fd, fakd"
        " and facd by the teacher's feature maps as well, augkd by the teacher's output on zoomed and changed inputs as"
        " well, none without a teacher. Installed packages may add methods.",
        "|".join(DISTILL_METHODS),
    )
    base: str | None = option_field(None, "dsclora: weights to adapt.", _WEIGHTS)
    teacher: str | None = option_field(None, "Weights of the teacher; default for dsclora: the base.", _WEIGHTS)
    adapters: str = option_field(
        "paper",
        "dsclora: ranks of the adapters; none trains every weight of the base.",
        "paper|figure|small|none|RULES",
    )
    init_adapter: Path | None = option_field(  # noqa: RUF009
        None, "dsclora: adapter file to continue in a new run, of the same base and ranks.", "FILE"
    )
    rec: float = option_field(1.0, "Weight of the loss between output and HR.", "X", min=0)
    ts: float = option_field(1.0, "Weight of the L1 loss between output and teacher's output.", "X", min=0)
    spectrum: float = option_field(
        0.0, "Weight of a loss between the amounts of detail in output and teacher's output.", "X", min=0
    )
    spectrum_block: int = option_field(
        32, "Edge, in HR pixels, of the blocks that --spectrum compares; 0 for the whole patch.", "N", min=0
    )
    ad: float = option_field(1.0, "dsclora: weight of the spatial-affinity loss.", "X", min=0)
    taps: tuple[str, ...] = option_field(
        (),
        "Feature maps of the student to compare, by pattern; default: the first three blocks for dsclora, the end of"
        " each third of the body for other methods; may be repeated.",
        "PATTERN",
    )
    teacher_taps: tuple[str, ...] = option_field(
        (),
        "Feature maps of the teacher to compare, by pattern; default: as for the student; may be repeated.",
        "PATTERN",
    )
    feature_weight: float | None = option_field(
        None,
        "fd, fakd, facd, augkd, methods of packages: weight of the loss of the method; default 0.01 for fd, 0.04 for"
        " fakd, 10 for facd, 0.5 for augkd, 1 for methods of packages.",
        "X",
        min=0,
    )
    feature_distance: str | None = option_field(
        None,
        "fd, facd: distance between feature maps; default l2, the mean squared difference. In our reading of the FACD"
        " paper facd takes l1, the mean absolute difference, which scored lower.",
        "l1|l2|cosine",
    )
    contrast: str = option_field(
        "sums",
        "facd: divide the distance to the positive by the sum or the mean of the distances to the negatives, or use"
        " InfoNCE.",
        "sums|means|infonce",
    )
    negatives: str = option_field(
        "teacher", "facd: network that computes the feature maps of the negatives.", "teacher|student"
    )
    condition: str = option_field(
        "better",
        "facd: patches that count: where the teacher's error is lower (better), lower by --margin (margin), or all"
        " (always).",
        "better|margin|always",
    )
    margin: float = option_field(
        0.0,
        "facd with --condition margin: smallest advantage of the teacher, a mean absolute error in [0, 1].",
        "X",
        min=0,
        max=1,
    )
    temperature: float = option_field(
        1.0, "facd with --contrast infonce: number to divide the distances by.", "X", min=1e-6
    )
    positions: int = option_field(
        0, "dsclora, fakd: positions of each map to compare, drawn anew in each step; 0 for all.", "N", min=0
    )
    teacher_images: str = option_field(
        "patch",
        "Input of the teacher: each patch; whole pictures, once; or ensemble, whole pictures in 8 flips and turns. Or a"
        " folder of a teacher's pictures, by name, at the size of HR, which no network has to make.",
        "patch|whole|ensemble|DIR",
    )

    @property
    def teacher_folder(self) -> Path | None:
        """Return the folder of a teacher's pictures; None where a teacher's network gives the output."""
        return None if self.teacher_images in _TEACHER_INPUTS else Path(self.teacher_images)


# Field names of this class are the tables of a recipe file, so renaming a field breaks every saved recipe.
@dataclass(frozen=True)
class Recipe:
    """All options of a training run; `distill` is None for `dsclora train`."""

    network: NetworkOptions = NetworkOptions()
    data: DataOptions = DataOptions()
    degrade: DegradeOptions = DegradeOptions()
    loss: LossOptions = LossOptions()
    optimiser: OptimizerOptions = OptimizerOptions()
    run: RunOptions = RunOptions()
    distill: DistillOptions | None = None


@dataclass(frozen=True)
class OptionField:
    """One field of one group of options, as data for command lines, recipe files and checks."""

    table: str
    """Table of `recipe.toml`, equal to the field name of the group in `Recipe`."""
    name: str
    """Key in the table."""
    kind: type[bool | int | float | str | Path]
    """Type of one value."""
    count: int
    """Number of values: 1, 2 (a pair), or 0 for any number."""
    default: Any
    """Default value; None where the default depends on other options."""
    help: str
    """Help text of `option_field`."""
    metavar: str
    """Words to choose from or placeholder, as in `option_field`."""
    min: float
    """Smallest number allowed."""
    max: float
    """Largest number allowed."""
    affects_result: bool
    """False if a run may resume with another value."""

    @property
    def flag(self) -> str:
        """Return the option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def names_files(self) -> bool:
        """Return whether values are pictures or weights: a run may resume with another path to the same content."""
        return not {"DIR", "FILE"}.isdisjoint(self.metavar.split("|"))

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the words that a text may be; empty for any text. A metavar in capitals is a placeholder ("FILE")."""
        if self.name == "method":
            return method_names()  # the metavar has no methods of other packages
        return tuple(self.metavar.split("|")) if self.kind is str and self.metavar == self.metavar.lower() else ()

    def takes(self, text: object) -> bool:
        """Return whether a text is one of `choices`, or a method that cannot be used, whose error says why."""
        return text in self.choices or (self.name == "method" and is_broken_method(str(text)))

    def no_choice(self, text: object) -> str:
        """Return why a text is none of `choices`."""
        more = "; if another package adds it, install that package" if self.name == "method" else ""
        return f"{text!r} is not one of {', '.join(self.choices)}{more}"


def _kind_and_count(hint: Any) -> tuple[Any, int]:  # noqa: ANN401 - a type, `X | None` or `tuple[X, ...]`
    """Return type and number of values: (int, 1) for `int | None`, (float, 0) for `tuple[float, ...]`."""
    # `X | None`: None only says that the default depends on other options.
    if isinstance(hint, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is not tuple:
        return hint, 1
    kind, last = get_args(hint)
    return kind, 0 if last is ... else 2


TABLES: dict[str, Any] = {table: _kind_and_count(hint)[0] for table, hint in get_type_hints(Recipe).items()}
"""Option classes by table name, in the order of `Recipe`."""


def option_fields(*tables: str) -> Iterator[OptionField]:
    """Yield the options of some tables; without `tables` the options of all tables."""
    for table in tables or TABLES:
        # `from __future__ import annotations` leaves annotations as text, so `fields` alone does not know the types.
        hints = get_type_hints(TABLES[table])
        for each in fields(TABLES[table]):
            yield OptionField(table, each.name, *_kind_and_count(hints[each.name]), each.default, **each.metadata)
