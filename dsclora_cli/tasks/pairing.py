"""HR and LR pictures of two folders, paired by name and never by order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.reader import is_picture_name

_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """One picture of a set. `name` is the HR file's, without suffix and `_HR`; without `lr` it is made from the HR."""

    name: str
    hr: Path
    lr: Path | None


def pair_folders(hr: Path, lr: Path | None, scale: int) -> tuple[Pair, ...]:
    """Pairs of the pictures directly in two folders, sorted by name.

    An LR picture belongs to the HR picture of its own name, or of its name without what says that it is LR: `x4` or
    `_x4` for the scale, `_LR` (also `_LRx4`), `_SRF_4_LR`, and the m, w or d of DIV2K's `x4m`. The HR name may end in
    `_HR` or `_SRF_4_HR`. Raises UsageError where a folder is missing or empty, or naming what does not pair.
    """
    truths: dict[str, list[Path]] = {}
    for path in _pictures(hr, "HR"):
        truths.setdefault(_hr_name(path), []).append(path)
    _refuse([path for paths in truths.values() for path in paths[1:]], f"named like another picture of {hr}")
    if lr is None:
        return tuple(Pair(name, paths[0], None) for name, paths in sorted(truths.items()))
    partners: dict[str, list[Path]] = {}
    strays = []
    exact = {path.stem: name for name, paths in truths.items() for path in paths}
    for path in _pictures(lr, "LR"):
        plain = _lr_name(path, scale)
        name = exact.get(path.stem) or exact.get(plain) or (plain if plain in truths else None)
        if name is None:
            strays.append(path)
        else:
            partners.setdefault(name, []).append(path)
    alone = [paths[0] for name, paths in truths.items() if name not in partners]
    _refuse(alone, f"without an LR picture in {lr}, such as {alone[0].stem}x{scale}.png" if alone else "")
    _refuse(strays, f"in {lr} without an HR picture in {hr}")
    _refuse([path for paths in partners.values() for path in paths[1:]], "a second LR picture of one HR picture")
    return tuple(Pair(name, paths[0], partners[name][0]) for name, paths in sorted(truths.items()))


def _pictures(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", f"put the {what} pictures there, or give another folder")
    paths = sorted(path for path in folder.iterdir() if is_picture_name(path) and path.is_file())
    visible = [path for path in paths if not path.name.startswith(".")]
    if not visible:
        raise UsageError(f"{folder} holds no pictures", f"give the folder that the {what} pictures are directly in")
    return visible


def _hr_name(path: Path) -> str:
    return re.sub(r"(?<=.)(_SRF_\d+)?(_HR)?$", "", path.stem, count=1, flags=re.IGNORECASE)


def _lr_name(path: Path, scale: int) -> str:
    marks = rf"(?<=.)(_SRF_{scale})?(_LR)?(_?x{scale}[mwd]?)?(_LR)?$"
    return re.sub(marks, "", path.stem, count=1, flags=re.IGNORECASE)


def _refuse(paths: Sequence[Path], problem: str) -> None:
    if paths:
        shown = ", ".join(path.name for path in paths[:_SHOWN])
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        raise UsageError(f"{shown}{more}: {problem}", "HR and LR are paired by name: add, rename or remove files")
