"""What a training run is told: every field with its default, its help and its range, once; no torch.

Each group is a table of a `recipe.toml` and a panel of `dsclora train --help`; each field is a key of that table and an
option of its own (`learning_rate` is `--learning-rate`), so field names are unique over all groups. From
`recipefields` the command line and `recipefile`, which reads, writes and checks recipes, learn what there is.

The fields of a recipe as data, for those who make options, tables and checks of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

ARCHITECTURES = {"dsclora": (26, 6), "span": (48, 6), "edsr": (64, 16), "rcan": (64, 20)}
"""Channels and blocks that a network has unless told otherwise."""

GROUPS = 10
"""Groups of blocks of an RCAN, likewise."""

OPTIMISERS = {"adam": (1e-3, (0.9, 0.99)), "adamw": (1e-3, (0.9, 0.99)), "soap": (0.05, (0.95, 0.97))}
"""Learning rate and decays of the moments of each, unless told otherwise."""

METHODS = ("dsclora", "logits", "fd", "fakd", "facd", "none")
"""Of distillation."""

FEATURE_WEIGHTS = {"fd": 0.01, "fakd": 0.04, "facd": 10.0}
"""Weight of each method's own term unless told otherwise; FAKD's is 10 beside distances of images in [0, 255]."""

DISTANCES = {"fd": "l2", "facd": "l1"}
"""Distance between feature maps, likewise."""

_WEIGHTS = "FILE|NAME"
_INF = math.inf


def explained(
    default: Any,  # noqa: ANN401 - as dataclasses.field is typed
    text: str,
    form: str = "",
    least: float = -_INF,
    most: float = _INF,
    decides: bool = True,
) -> Any:  # noqa: ANN401
    """A field with its default and its help.

    `form` is how a value is written, "adam|adamw" or "DIR". Numbers lie in [`least`, `most`]. `decides` is False where
    another value leads to the same weights, but for rounding.
    """
    return field(
        default=default, metadata={"help": text, "form": form, "least": least, "most": most, "decides": decides}
    )


@dataclass(frozen=True)
class NetworkOptions:
    """The network that is trained."""

    arch: str = explained("dsclora", "The DSCLoRA student, a SPAN of any width, EDSR or RCAN.", "|".join(ARCHITECTURES))
    scale: int = explained(4, "Factor of the sides, 2 to 4.", "2|3|4", least=2, most=4)
    channels: int | None = explained(None, "Width; 26 for dsclora, 48 for span, 64 for edsr and rcan.", "N", least=1)
    blocks: int | None = explained(None, "Blocks; 6, for edsr 16, for rcan 20 in each group.", "N", least=1)
    groups: int | None = explained(None, "Groups of blocks of rcan; 10.", "N", least=1)
    expanded: bool = explained(False, "SPAN: train three convolutions for each 3x3 (Conv3XC), merged in every pass.")
    init: str | None = explained(
        None, "Weights to start from; of another scale, all but the upsampler are taken.", _WEIGHTS
    )


@dataclass(frozen=True)
class DataOptions:
    """Where patches come from. `data` holds folders or names of sets; LR is MATLAB's bicubic of whole pictures."""

    data: tuple[str, ...] = explained((), "Folder of HR pictures, or a set such as DIV2K; may be repeated.", "DIR|SET")
    lr: Path | None = explained(None, "Folder of real LR pictures, paired with HR by name.", "DIR")  # noqa: RUF009
    val: Path | None = explained(None, "Folder of held-out HR pictures, not a share of the data.", "DIR")  # noqa: RUF009
    val_share: float = explained(
        0.04, "Share of the pictures that is held out, chosen by the seed.", "X", least=0, most=0.9
    )
    batch: int = explained(16, "Patches a step, over all workers.", "N", least=1)
    patch: int = explained(48, "Edge of a patch in LR pixels.", "N", least=4)


@dataclass(frozen=True)
class DegradeOptions:
    """What happens to LR patches on the fly, in a camera's order: blur, noise, JPEG. Each range is drawn evenly."""

    degrade: bool = explained(False, "Train for inputs as they are in the world: blurred, noisy, compressed.")
    blur: tuple[float, float] = explained(
        (0.0, 0.6), "Standard deviation of a Gaussian blur in LR pixels.", "LOW HIGH", least=0, most=10
    )
    noise: tuple[float, float] = explained(
        (0.0, 2.0), "Standard deviation of sensor noise in 8-bit levels.", "LOW HIGH", least=0, most=255
    )
    quality: tuple[int, int] = explained((30, 100), "JPEG quality, 1 to 100.", "LOW HIGH", least=1, most=100)
    subsampled: float = explained(0.8, "Share of the JPEGs with 4:2:0 chroma, the rest 4:4:4.", "X", least=0, most=1)
    clean: float = explained(0.1, "Share of the patches left as they are.", "X", least=0, most=1)


@dataclass(frozen=True)
class LossOptions:
    """The distance between the network's output and HR."""

    loss: str = explained("l1", "Distance to HR.", "l1|l2|charbonnier|psnr")
    fft: float = explained(0.0, "Weight of an L1 distance between the spectra of output and HR.", "X", least=0)


@dataclass(frozen=True)
class OptimiserOptions:
    """How weights follow gradients."""

    optimiser: str | None = explained(None, "Optimiser; soap, for adapters adam.", "adam|adamw|soap")
    learning_rate: float | None = explained(
        None, "Peak learning rate; 0.001, for soap 0.05 as a share of each weight's size.", "X", least=0
    )
    betas: tuple[float, float] | None = explained(
        None, "Decays of its averages; 0.9 0.99, for soap 0.95 0.97.", "FIRST SECOND", least=0, most=1
    )
    weight_decay: float = explained(0.0, "Decoupled decay of AdamW, or L2 of Adam.", "X", least=0)
    warmup: float = explained(0.02, "Share of the steps over which the rate rises from zero.", "X", least=0, most=1)
    schedule: str = explained("cosine", "How the rate falls.", "cosine|multistep|constant")
    final: float = explained(0.01, "Cosine: the last rate as a share of the peak.", "X", least=0, most=1)
    milestones: tuple[float, ...] = explained(
        (0.5, 0.75, 0.9), "Multistep: share of the steps after which it falls; may be repeated.", "X", least=0, most=1
    )
    gamma: float = explained(0.5, "Multistep: factor of each fall.", "X", least=0, most=1)
    clip: float = explained(1.0, "Largest norm of the gradient; 0 for none.", "X", least=0)
    accumulate: int = explained(
        1, "Parts that each batch is cut into, to save memory; the result is the same.", "N", least=1, decides=False
    )
    ema: float = explained(
        0.995, "Decay of the moving average of the weights, which is what is kept; 0 for none.", "X", least=0, most=1
    )


@dataclass(frozen=True)
class RunOptions:
    """The run itself."""

    steps: int = explained(20000, "Optimiser steps.", "N", least=1)
    seed: int = explained(1, "Seed of the weights, the split, the patches and the degradations.", "N", least=0)
    validate: int = explained(250, "Steps between scores on the held-out pictures.", "N", least=1)
    checkpoint_minutes: float = explained(3.0, "Minutes between checkpoints.", "X", least=0, decides=False)
    most_skips: int = explained(
        20, "Stop after so many steps in a row whose loss or gradient is not finite.", "N", least=1, decides=False
    )
    device: str = explained("auto", "Where to train.", "auto|cpu|cuda|cuda:N|mps", decides=False)
    threads: int | None = explained(None, "CPU threads; PyTorch's choice.", "N", least=1, decides=False)
    compile: str = explained(
        "auto", "Compile the network; auto: where a compiler is there.", "auto|on|off", decides=False
    )
    amp: str = explained("auto", "Mixed precision; auto: on CUDA only.", "auto|bfloat16|float16|off")


@dataclass(frozen=True)
class DistillOptions:
    """What a teacher adds. With `method` dsclora, adapters over `base` are trained, with others the network itself.

    The loss is `rec * distance(output, HR) + ts * L1(output, teacher's output)`, and what the method adds: dsclora `ad`
    times the affinity distance over taps, fd, fakd and facd `feature_weight` times theirs, logits and none nothing.
    """

    method: str = explained(
        "dsclora",
        "dsclora: adapters over a base. All others train a network: by the teacher's output alone (logits), with its"
        " features (fd, fakd, facd), or without a teacher (none).",
        "|".join(METHODS),
    )
    base: str | None = explained(None, "Weights that the adapters are for.", _WEIGHTS)
    teacher: str | None = explained(None, "Weights of the teacher; for dsclora the base itself.", _WEIGHTS)
    adapters: str = explained("paper", "Ranks of the adapters; none trains every weight.", "paper|small|none|RULES")
    rec: float = explained(1.0, "Weight of the distance to HR.", "X", least=0)
    ts: float = explained(1.0, "Weight of the L1 distance to the teacher's output.", "X", least=0)
    ad: float = explained(1.0, "Weight of the spatial-affinity distance.", "X", least=0)
    taps: tuple[str, ...] = explained(
        (),
        "Feature maps that are compared, by pattern; for dsclora those of three blocks, else one after each third of"
        " the body; may be repeated.",
        "PATTERN",
    )
    teacher_taps: tuple[str, ...] = explained(
        (), "Those of the teacher, where they have other names; may be repeated.", "PATTERN"
    )
    feature_weight: float | None = explained(
        None, "Weight of the term of fd, fakd or facd; a number of each method's own.", "X", least=0
    )
    feature_distance: str | None = explained(
        None, "Distance between feature maps; for fd l2, for facd l1.", "l1|l2|cosine"
    )
    contrast: str = explained(
        "sums",
        "facd: distance to the positive over the sum or the mean of those to negatives, or InfoNCE.",
        "sums|means|infonce",
    )
    negatives: str = explained("teacher", "facd: whose maps of the other patches are the negatives.", "teacher|student")
    condition: str = explained(
        "better",
        "facd: patches that count: where the teacher is better, better by a margin, or all.",
        "better|margin|always",
    )
    margin: float = explained(0.0, "facd: that margin, as a mean absolute error in [0, 1].", "X", least=0, most=1)
    temperature: float = explained(1.0, "facd with infonce: divides distances.", "X", least=1e-6)
    positions: int = explained(
        0, "Positions of each map that are compared, drawn anew each step; 0 for all.", "N", least=0
    )
    teacher_images: str = explained(
        "patch",
        "The teacher sees each patch, or whole pictures once, or these in 8 flips and turns.",
        "patch|whole|ensemble",
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that `dsclora train` is told; with `distill`, everything that `dsclora distill` is told."""

    network: NetworkOptions = NetworkOptions()
    data: DataOptions = DataOptions()
    degrade: DegradeOptions = DegradeOptions()
    loss: LossOptions = LossOptions()
    optimiser: OptimiserOptions = OptimiserOptions()
    run: RunOptions = RunOptions()
    distill: DistillOptions | None = None


@dataclass(frozen=True)
class Setting:
    """One field of one group. `kind` is the type of a value, and `count` how many it holds: 1, 2, or 0 for any number.

    The rest is as `explained` has it.
    """

    table: str
    name: str
    kind: type[bool | int | float | str | Path]
    count: int
    default: Any
    help: str
    form: str
    least: float
    most: float
    decides: bool

    @property
    def flag(self) -> str:
        """Its option."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a text may be; empty for any text. Capitals in `form` stand for something, as in "FILE"."""
        return tuple(self.form.split("|")) if self.kind is str and self.form == self.form.lower() else ()


def _kind(hint: Any) -> tuple[Any, int]:  # noqa: ANN401 - a type, or what `X | None` and `tuple[X, ...]` are
    """What one value is, and how many there are: of `int | None` (int, 1), of `tuple[float, ...]` (float, 0)."""
    if isinstance(hint, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is not tuple:
        return hint, 1
    kind, last = get_args(hint)
    return kind, 0 if last is ... else 2


TABLES: dict[str, Any] = {table: _kind(hint)[0] for table, hint in get_type_hints(Recipe).items()}
"""The groups by the names of their tables, in the order of `Recipe`."""


def settings(*tables: str) -> Iterator[Setting]:
    """The fields of these tables, of all of them without any."""
    for table in tables or TABLES:
        hints = get_type_hints(TABLES[table])
        for each in fields(TABLES[table]):
            yield Setting(table, each.name, *_kind(hints[each.name]), each.default, **each.metadata)
