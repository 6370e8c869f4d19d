"""A network of the library spandrel as a `Network`, with measured facts for tiles. Nothing here imports spandrel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from dsclora_cli.errors import UsageError
from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.network import FeatureCallback, Network

_PROBES = (64, 128, 256)
"""Edges of the pictures that the reach is measured on, in LR pixels."""

_SECONDS = 20.0
"""Time after which no larger picture is tried."""

_PHASES = (0, 3, 7, 12)
"""Places of the changed pixel relative to the center: windows of attention reach differently far from each place."""

_STEPS = (1, 2, 4, 8, 16)
"""Factors of the stated size multiple that are tried as the grid of tiles: attention has windows of a power of 2."""

_EQUAL = 1e-4
"""Largest difference, for white = 1, that float32 makes between a tile and the whole: 1/40 of an 8-bit level."""

_VISIBLE = 4e-5
"""Change of an output pixel, for white = 1, below which the reach of a changed pixel does not count any more."""

_HALOS = (16, 64)
"""Smallest and largest halo of networks whose outputs depend on pixels everywhere."""


@dataclass(frozen=True)
class TileFacts:
    """Measured facts on a network; the field names are keys of the record in the cache."""

    halo: int
    """Distance in LR pixels that a changed input pixel reaches."""
    multiple: int
    """Number of LR pixels that the places and sizes of tiles are multiples of."""
    exact: bool
    """Whether a tile with this halo, on this grid, equals the whole picture."""
    floats_per_pixel: int
    """Activation values alive at the same time for each LR pixel, estimated from the largest layer."""


@dataclass(frozen=True)
class SpandrelConfig:
    """Sizes of a network of spandrel. Its widths and depths are spandrel's own affair."""

    arch: str
    """Name of the architecture in spandrel, in lower case."""
    scale: int
    """Factor by which the network enlarges the sides in one pass."""
    supports_half: bool
    """Whether the network may run in float16."""
    facts: TileFacts
    """How tiles of the network must be cut."""
    channels: int = 0
    """Always 0: the number of channels is unknown."""
    blocks: int = 0
    """Always 0: the number of blocks is unknown."""

    @property
    def descriptor(self) -> Descriptor:
        """Return the facts for engines."""
        return Descriptor(
            arch=self.arch,
            scale=self.scale,
            halo=self.facts.halo,
            floats_per_pixel=self.facts.floats_per_pixel,
            supports_half=self.supports_half,
            exact_tiles=self.facts.exact,
            multiple=self.facts.multiple,
            traceable=False,
        )


class SpandrelNetwork(Network):
    """A network of spandrel: `(N, 3, H, W)` in [0, 1] to `(N, 3, scale*H, scale*W)`, clamped to [0, 1] by spandrel.

    A network for gray pictures runs on each channel by itself. spandrel pads pictures to the sizes of a network.
    """

    config: SpandrelConfig

    def __init__(self, model: Any, facts: TileFacts) -> None:  # noqa: ANN401 - spandrel's ImageModelDescriptor
        super().__init__()
        # A part of `model`: registered here, so that `to` and `parameters` find the weights.
        self.inner: nn.Module = model.model
        self._model = model
        self.config = SpandrelConfig(model.architecture.id.lower(), model.scale, model.supports_half, facts)

    def forward(self, x: Tensor, features: FeatureCallback | None = None) -> Tensor:  # noqa: ARG002 - no maps
        """Upscale a batch; shapes and ranges stand in `Network.forward`."""
        # `clone` makes a usual tensor of the inference tensor that spandrel returns.
        return run_spandrel(self._model, x).clone()

    def to(self, *args: Any, **settings: Any) -> SpandrelNetwork:  # noqa: ANN401 - as in torch
        """Move or convert the weights, and keep their memory layout: some architectures view maps in the usual one."""
        settings.pop("memory_format", None)
        return super().to(*args, **settings)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return no names: spandrel shows no feature maps."""
        return ()

    @property
    def thirds(self) -> tuple[str, str, str]:
        """Raise UsageError: spandrel shows no feature maps."""
        raise UsageError(f"a {self.config.arch} of spandrel shows no feature maps", "distill with --method logits")


def run_spandrel(model: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    """Return the result `(N, 3, scale*H, scale*W)` of spandrel for `(N, 3, H, W)`, picture by picture."""
    if model.input_channels == 1:
        flat = x.reshape(-1, 1, *x.shape[2:])
        results = torch.cat([model(each[None]) for each in flat])
        return results.reshape(len(x), 3, *results.shape[2:])
    return torch.cat([model(each[None].contiguous()) for each in x])


def measure_tiles(model: Any) -> TileFacts:  # noqa: ANN401
    """Return how tiles of a network must be cut, by running the network on random pictures.

    The reach is the largest distance at which changing one input pixel changes any bit of the result. Comparing a tile
    with the whole then finds a grid for tiles: networks with windows are exact on a grid of the windows only. Where a
    pixel reaches everywhere, the halo ends where changes are invisible, and tiles are approximate.
    """
    with torch.inference_mode(), _unclamped(model) as run, _largest_layer(model) as floats:
        halo, everywhere = _reach(run, model.scale)
        halo = min(max(halo, _HALOS[0]), _HALOS[1]) if everywhere else halo
        base = max(1, model.size_requirements.multiple_of)
        # A small halo is enough to tell the grids apart where no halo makes tiles exact.
        context = _HALOS[0] if everywhere else halo
        errors = {base * step: _tile_error(run, model.scale, context, base * step) for step in _STEPS}
        # The smallest grid with equal results, else the smallest one that is nearly as good as the best.
        enough = max(_EQUAL, 2 * min(errors.values()))
        grid = next(grid for grid, error in errors.items() if error <= enough)
        return TileFacts(halo, grid, not everywhere and errors[grid] <= _EQUAL, max(1, floats()))


_Run = Callable[[Tensor], Tensor]


def _reach(run: _Run, scale: int) -> tuple[int, bool]:
    """Return the reach of a changed pixel in LR pixels, and whether the reach is larger than any picture tried.

    In the second case the reach of visible changes is returned.
    """
    started, visible = perf_counter(), 0
    for side in _PROBES:
        x = _noise(side)
        before, reach, visible, touches = run(x), 0, 0, False
        for phase in _PHASES:
            place = side // 2 + phase
            changed = x.clone()
            changed[..., place, place] = 1 - x[..., place, place].round()
            change = (run(changed) - before).abs().amax((0, 1))
            reach, at_border = _distance(change > 0, place, scale, reach)
            touches |= at_border
            visible, _ = _distance(change > _VISIBLE, place, scale, visible)
        if not touches:
            return reach, False
        if perf_counter() - started > _SECONDS:
            break
    return visible, True


def _distance(changed: Tensor, place: int, scale: int, least: int) -> tuple[int, bool]:
    """Return the largest distance in LR pixels from `place` to a changed pixel, and whether the border is reached."""
    places = torch.cat([changed.any(dimension).nonzero().flatten() for dimension in (0, 1)]) // scale
    if not len(places):
        return least, False
    first, last = int(places.min()), int(places.max())
    return max(least, place - first, last - place), first == 0 or last == len(changed) // scale - 1


def _tile_error(run: _Run, scale: int, halo: int, grid: int) -> float:
    """Return the largest difference between a tile, placed on a grid, and the whole picture."""
    edge = -(-halo // grid) * grid
    side = 2 * (edge + grid) + max(grid, 8 // grid * grid or grid)
    x = _noise(side)
    tile = x[..., grid : side - grid, grid : side - grid]
    inside = slice(edge * scale, (side - 2 * grid - edge) * scale)
    start, stop = (grid + edge) * scale, (side - grid - edge) * scale
    return float((run(tile)[..., inside, inside] - run(x)[..., start:stop, start:stop]).abs().max())


def _noise(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))


@contextmanager
def _unclamped(model: Any) -> Iterator[_Run]:  # noqa: ANN401
    """Yield a function that runs a network without the final clamping, which would hide changes."""
    raw: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: object) -> None:
        # spandrel clamps in place, so the values are copied here.
        if isinstance(output, Tensor):
            raw.append(output.detach().clone())

    def run(x: Tensor) -> Tensor:
        raw.clear()
        clamped = run_spandrel(model, x)
        height, width = clamped.shape[2:]
        kept = [each[..., :height, :width] for each in raw]
        whole = len(kept) > 0 and all(each.ndim == 4 and each.shape[2:] == clamped.shape[2:] for each in kept)
        return torch.cat(kept, 1) if whole else clamped

    hook = model.model.register_forward_hook(keep)
    try:
        yield run
    finally:
        hook.remove()


@contextmanager
def _largest_layer(model: Any) -> Iterator[Callable[[], int]]:  # noqa: ANN401
    """Yield a function that returns the values at the largest layer so far, for each LR pixel of the input."""
    most, pixels = 0.0, 1

    def start(_: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal pixels
        if inputs and isinstance(inputs[0], Tensor):
            pixels = inputs[0].shape[-1] * inputs[0].shape[-2]

    def count(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal most
        values = sum(each.numel() for each in (*inputs, output) if isinstance(each, Tensor))
        most = max(most, values / pixels)

    leaves = [module for module in model.model.modules() if not list(module.children())]
    hooks = [model.model.register_forward_pre_hook(start), *(leaf.register_forward_hook(count) for leaf in leaves)]
    try:
        # Twice: maps of skips and of dense blocks stay alive next to the maps of the largest layer.
        yield lambda: round(2 * most)
    finally:
        for hook in hooks:
            hook.remove()
