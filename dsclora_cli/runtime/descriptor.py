"""What the rest of the program must know of a network, stated by the network itself, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Descriptor:
    """A network as its callers see it.

    `halo` is the receptive-field radius in LR pixels: an output pixel depends on no LR pixel further away, so a
    tile that carries this many pixels of context on each side is upscaled exactly as the whole picture would be.
    `floats_per_pixel` is the number of activation values alive at once per LR pixel, from which memory is planned.
    Where a part of the network sees the whole picture, `exact_tiles` is False: tiles differ a little from the whole.
    """

    arch: str
    scale: int
    channels: int
    blocks: int
    halo: int
    floats_per_pixel: int
    supports_half: bool = True
    exact_tiles: bool = True
