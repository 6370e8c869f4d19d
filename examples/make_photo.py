"""Render `photo.png`, the example photograph: a mountain lake in the last light, made only of noise and geometry.

    python examples/make_photo.py [OUTPUT.png]

The land is a height field. Along a column of the picture, nearer land hides farther land, so the slope to the visible
land never falls with the distance, and a binary search finds the land in each pixel. The lake mirrors the rows above
the lake. Everything is drawn at four times the size and then reduced.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

WIDTH, HEIGHT, OVERSAMPLE = 240, 160, 4
FOCAL = 1.05  # in picture widths
HORIZON = 0.56  # in picture heights, from the top
EYE = 3.4  # meters above the water
NEAR, FAR, STEPS = 9.0, 9000.0, 1400
BEACH = 30.0  # meters; nearer land is stones
SUN = np.array([-0.741, 0.300, -0.601])  # unit vector, x right, y up, z into the picture; behind the left shoulder
SKY_LOW, SKY_HIGH, GLOW = np.array([0.98, 0.72, 0.50]), np.array([0.34, 0.47, 0.68]), np.array([1.0, 0.52, 0.34])


def hash_unit(ix: NDArray[np.int64], iy: NDArray[np.int64], seed: int) -> Array:
    """Return a number in [0, 1) for each lattice point, the same on every machine."""
    mixed = (ix * 374761393 + iy * 668265263 + seed * 982451653) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFF) / float(1 << 24)


def noise(x: Array, y: Array, seed: int) -> Array:
    """Return smooth value noise in [-1, 1] with a period of about one unit."""
    ix, iy = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (t * t * t * (t * (t * 6 - 15) + 10) for t in (x - ix, y - iy))
    low = hash_unit(ix, iy, seed) * (1 - fx) + hash_unit(ix + 1, iy, seed) * fx
    high = hash_unit(ix, iy + 1, seed) * (1 - fx) + hash_unit(ix + 1, iy + 1, seed) * fx
    return 2 * (low * (1 - fy) + high * fy) - 1


def fractal(x: Array, y: Array, seed: int, octaves: int, ridged: bool = False) -> Array:
    """Return a sum of octaves of noise, about in [-1, 1]; every octave is half as high and twice as fine as the last.

    `ridged` folds the noise into crests.
    """
    total, weight = np.zeros_like(x), 0.5
    for octave in range(octaves):
        layer = noise(x, y, seed + octave)
        total += weight * (1 - 2.2 * np.abs(layer) if ridged else layer)
        x, y, weight = 1.62 * x - 1.22 * y + 7.3, 1.22 * x + 1.62 * y - 3.1, weight / 2
    return total


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Return 0 below `low`, 1 above `high`, and a smooth rise between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def spruces(x: Array, z: Array, spacing: float) -> tuple[Array, Array]:
    """Return the height of the trees at a place, in meters, and a random number in [0, 1) for each tree."""
    cx, cz = np.floor(x / spacing).astype(np.int64), np.floor(z / spacing).astype(np.int64)
    best, which = np.zeros_like(x), np.zeros_like(x)
    for dx in (-1, 0, 1):
        for dz in (-1, 0, 1):
            ix, iz = cx + dx, cz + dz
            lot = hash_unit(ix, iz, 3)
            tx, tz = ((i + hash_unit(ix, iz, seed)) * spacing for i, seed in ((ix, 1), (iz, 2)))
            tall = np.where(lot > 0.2, 6 + 15 * lot * lot, 0.0)
            away = np.hypot(x - tx, z - tz) / (0.2 * tall + 0.4)
            ragged = 0.8 * np.abs((away * 5.0) % 1 - 0.5)
            crown = tall * np.clip(1 - away, 0, 1) * (1 + 0.25 * ragged)
            which = np.where(crown > best, lot * 7 % 1, which)
            best = np.maximum(best, crown)
    return best, which


def shoreline(x: Array) -> Array:
    """Return the distance from the eye to the far shore in meters: a bay with a headland on the left."""
    bay = 420 - 250 * smoothstep(-30, -120, x) - 150 * smoothstep(120, 230, x)
    return bay + 45 * fractal(x / 120, 0 * x, 40, 3)


def mountains(x: Array, z: Array) -> Array:
    """Return the height of the far land in meters."""
    crests = fractal(x / 2300 + 3.7, z / 2300, 11, 8, ridged=True)
    rise = smoothstep(700, 5200, z) * (0.30 + 0.70 * smoothstep(300, 2600, np.abs(x - 250)))
    peak = 900 * np.exp(-(((x + 900) / 1300) ** 2) - ((z - 5600) / 1500) ** 2)
    return rise * (330 + 900 * crests) + peak * (1 + 0.6 * crests)


def land(x: Array, z: Array) -> tuple[Array, Array, Array]:
    """Return the heights of ground and trees, in meters above the water, and the random number of each tree."""
    inland = z - shoreline(x)
    ground, trees, which = np.full_like(x, -1.0), np.zeros_like(x), np.zeros_like(x)
    dry = inland > 0
    xd, zd, far = x[dry], z[dry], inland[dry]
    hills = smoothstep(0, 1100, far) * (45 + 45 * fractal(xd / 420, zd / 420, 30, 4))
    ground[dry] = np.maximum(0.035 * np.minimum(far, 2000) + hills + mountains(xd, zd), 0.004 * far)
    wood = dry & (z < 1700) & (inland > 5)
    wood[wood] = fractal(x[wood] / 80, z[wood] / 80, 50, 3) > -0.12 - 0.001 * inland[wood]
    trees[wood], which[wood] = spruces(x[wood], z[wood], 7.5)
    beach = z < BEACH
    xb, zb = x[beach], z[beach]
    stones = 0.9 * np.abs(fractal(xb / 1.7 + 4, zb / 2.4, 60, 5)) + 0.25 * fractal(xb / 0.5, zb / 0.7, 65, 3)
    ground[beach] = stones + 0.30 - 1.3 * smoothstep(-5.5, -1.5, xb + 0.12 * (zb - 12)) - 1.0 * smoothstep(15, 27, zb)
    return ground, trees, which


def sky(across: Array, slope: Array) -> Array:
    """Return the color (..., 3) of the sky in the directions `across` and `slope` (upwards), both tangents."""
    up = np.clip(slope, 0, None)
    color: Array = SKY_HIGH + (SKY_LOW - SKY_HIGH) * np.exp(-up / 0.20)[..., None]
    far = 1 / (up + 0.16)
    streak, lift = across * far * 0.5 + 3.3, far * 1.3
    cloud = fractal(streak, lift, 70, 6)
    cover = smoothstep(-0.05, 0.50, cloud)[..., None]
    lit = smoothstep(-0.10, 0.25, cloud - fractal(streak + 0.06, lift + 0.10, 70, 6))[..., None]
    color += 0.85 * cover * (np.array([0.58, 0.48, 0.55]) + lit * np.array([0.42, 0.24, 0.10]) - color)
    return color


def lit_land(x: Array, z: Array, height: Array) -> Array:
    """Return the color (N, 3) of the land at the places (N,) that the eye sees."""
    step = 0.0035 * z
    ground, trees, which = land(x, z)
    east, north = land(x + step, z), land(x, z + step)
    normal = np.stack([ground - east[0], step, ground - north[0]], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    sun = np.clip(normal @ SUN, 0, 1)[:, None]
    grain = fractal(x / (0.006 * z + 0.02), height / (0.003 * z + 0.02), 80, 4)
    rock = np.array([0.37, 0.33, 0.32]) * (1 + 0.30 * grain[:, None])
    meadow = np.array([0.30, 0.31, 0.13]) * (1 + 0.35 * grain[:, None])
    high = smoothstep(130, 330, ground + 120 * grain)[:, None]
    color: Array = np.where((z < BEACH)[:, None], rock * 0.75, meadow + high * (rock - meadow))
    snow = smoothstep(0.42, 0.70, normal[:, 1] + 0.07 * grain) * smoothstep(520, 900, ground + 160 * grain)
    color = color + snow[:, None] * (np.array([0.90, 0.91, 0.96]) - color)
    color = color * (np.array([0.27, 0.32, 0.42]) + 1.30 * sun * np.array([1.0, 0.70, 0.46]))
    crown = np.clip((height - ground) / np.maximum(trees, 1), 0, 1)[:, None]
    tree = np.array([0.035, 0.065, 0.050]) + which[:, None] ** 3 * np.array([0.15, 0.085, 0.01])
    side = np.clip(0.5 + (trees - east[1]) / (2 * step), 0.0, 1)[:, None]
    color = np.where((trees > 0.4)[:, None], tree * (0.25 + 0.8 * crown + 1.1 * side * SKY_LOW), color)
    color = np.where(((z < BEACH) & (height < 0.10))[:, None], 0.45 * color, color)
    color += (1 - np.exp(-z / 8500))[:, None] * (0.75 * SKY_LOW + 0.25 * SKY_HIGH - color)
    return color


def view() -> tuple[Array, Array]:
    """Return the tangents across and up of every ray, both (rows, columns)."""
    rows, columns = HEIGHT * OVERSAMPLE, WIDTH * OVERSAMPLE
    across = ((np.arange(columns) + 0.5) / columns - 0.5) / FOCAL
    up = (HORIZON - (np.arange(rows) + 0.5) / rows) * HEIGHT / WIDTH / FOCAL
    return np.broadcast_to(across, (rows, columns)), np.broadcast_to(up[:, None], (rows, columns))


def distance(across: Array, up: Array) -> Array:
    """Return the distance to the land along every ray in meters, inf for rays that meet no land."""
    z = NEAR * (FAR / NEAR) ** (np.arange(STEPS) / (STEPS - 1))
    depths = np.full_like(up, np.inf)
    for i, tangent in enumerate(across[0]):
        ground, trees, _ = land(tangent * z, z)
        tops = np.maximum.accumulate(np.where(ground > 0, ground + trees - EYE, -9.0) / z)
        step = np.searchsorted(tops, up[:, i])
        met = (step > 0) & (step < STEPS)
        after, before = step[met], step[met] - 1
        part = (up[met, i] - tops[before]) / (tops[after] - tops[before])
        depths[met, i] = z[before] + part * (z[after] - z[before])
    return depths


def landscape() -> Array:
    """Return sky, land and lake, (rows, columns, 3)."""
    across, up = view()
    depths = distance(across, up)
    solid = np.isfinite(depths)
    picture, z = sky(across, up), depths[solid]
    picture[solid] = lit_land(across[solid] * z, z, EYE + up[solid] * z)
    with np.errstate(divide="ignore"):
        water = np.where(up < 0, EYE / -np.minimum(up, 0), np.inf)
    lake = water < np.minimum(depths, FAR)
    x, z = across[lake] * water[lake], water[lake]
    waves = 0.5 * fractal(x / 0.6, z / 1.2, 90, 4) + fractal(x / 9, z / 30, 95, 3)
    mirrored = -up[lake] + 0.022 * waves * smoothstep(2, 9, z) + 0.004
    rows = (HORIZON - mirrored * FOCAL * WIDTH / HEIGHT) * len(up)
    seen = picture[np.clip(rows, 0, HORIZON * len(up) - 1).astype(int), np.nonzero(lake)[1]]
    mirror = 0.45 + 0.47 * (1 + up[lake]) ** 5
    picture[lake] = seen * mirror[:, None] + np.array([0.02, 0.045, 0.05]) * (1 - mirror)[:, None]
    return picture


def add_jetty(picture: Array) -> None:
    """Draw a jetty into `picture`, in thin level slices from the bottom of the mirror image upwards."""
    across, up = view()
    below = up < -0.02
    pixels = picture[below]
    for level in np.linspace(-0.9, 0.9, 73):
        z = (level - EYE) / up[below]
        x = across[below] * z - 0.9 - 0.10 * z
        post = np.hypot(np.abs(x) - 0.98, (z + 1.1) % 4.2 - 2.1) < 0.11
        deck = (np.abs(x) < 0.96) & (z < 27.5) & (0.52 < abs(level) < 0.64)
        shape = deck | (post & (z < 27.8))
        x, z = x[shape], z[shape]
        board = np.floor(x / 0.32)
        shade = 0.36 + 0.12 * fractal(x / 0.035, z / 0.9, 100, 3) + 0.08 * noise(board, 0 * x, 6)
        shade *= np.where(x / 0.32 - board < 0.07, 0.4, 1.0) * (1.4 if level > 0.88 else 1.0 if level > 0.62 else 0.45)
        seen = 1.0 if level >= 0 else 0.3  # the mirror image is faint
        pixels[shape] += seen * (shade[:, None] * np.array([1.12, 0.94, 0.82]) - pixels[shape])
    picture[below] = pixels


def add_reeds(picture: Array) -> None:
    """Draw blades of grass at the bottom right, as bent strokes that thin towards the tip."""
    rows, columns = picture.shape[:2]
    lots = hash_unit(np.arange(110)[:, None], np.arange(6)[None, :], 110)
    t = np.linspace(0, 1, rows)
    for place, tall, lean, bend, thick, hue in lots:
        height = (0.10 + 0.30 * tall * place) * rows
        x = columns * (0.80 + 0.24 * place**0.7) + height * (0.5 * (lean - 0.55) * t + 0.7 * (bend - 0.6) * t**3)
        y = rows - height * (t - 0.12 * abs(bend - 0.5) * t**3)
        half = OVERSAMPLE * (0.25 + 0.55 * thick) * (1 - t) ** 0.7
        blade = np.array([0.13, 0.15, 0.045]) + hue**2 * np.array([0.30, 0.19, 0.03])
        for xs, ys, w, lit in zip(x, y, half, 0.45 + 0.75 * t, strict=True):
            left, right = np.clip(np.rint([xs - w, xs + w]).astype(int), 0, columns)
            picture[np.clip(int(ys), 0, rows - 1), left:right] = blade * lit


def render() -> Image.Image:
    """Return the photograph after a tone curve, reduced from the oversampled size."""
    light = landscape()
    add_jetty(light)
    add_reeds(light)
    tone = np.clip(1.12 * light, 0, 1) ** 0.8
    tone = 0.65 * tone + 0.35 * smoothstep(0, 1, tone)
    return Image.fromarray((tone * 255 + 0.5).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the photograph to the given path, by default next to this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).with_name("photo.png")
    parser.add_argument("target", type=Path, nargs="?", default=default, metavar="OUTPUT.png")
    target = parser.parse_args(arguments).target
    # Before the minute of rendering.
    if target.suffix.lower() != ".png" or not target.parent.is_dir():
        raise SystemExit(f"{target} cannot be written: name a PNG in a folder that exists")
    try:
        render().save(target, optimize=True)
    except OSError as error:
        raise SystemExit(f"{target} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    main()
