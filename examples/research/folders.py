"""Pictures in folders, for the scripts in this folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dsclora_cli.datasets.benchmarks import list_pictures


def pictures_in(*folders: Path) -> list[Path]:
    """Return the pictures directly in folders, sorted by folder and name; other files are left out.

    Scripts name what they make after the picture, so two pictures of one name would give one file. Raises SystemExit
    for two pictures whose names differ in the suffix or in the folder alone.
    """
    paths = [path for folder in folders for path in list_pictures(folder, "HR")]
    twice = [stem for stem, times in Counter(path.stem for path in paths).items() if times > 1]
    if twice:
        named = [str(path) for path in paths if path.stem == twice[0]]
        raise SystemExit(f"{' and '.join(named)} have one name: rename one of them")
    return paths


def put_link(link: Path, target: Path) -> None:
    """Make a link to a file, in place of an earlier link of that name; the folder is made where absent.

    Raises FileExistsError where a file has the name.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.resolve())
