"""Names of the records in which the facts on networks of spandrel are kept. No torch, unlike `foreign`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dsclora_cli.paths import engines_dir

_LAYOUT = 1
"""Version of the measured facts: raise by one when `measure_tiles` changes."""


def record_path(sha256: str) -> Path:
    """Return the place of the record for a file of weights. Raises PackageNotFoundError without spandrel."""
    return engines_dir() / f"{sha256}{_name_end()}"


def is_old_record(name: str) -> bool:
    """Return whether a file in the folder of converted networks is a record that nothing reads any more."""
    if "-spandrel-" not in name:
        return False
    try:
        return not name.endswith(_name_end())
    except PackageNotFoundError:
        return True


def _name_end() -> str:
    # Another version of spandrel may build another network from the same file.
    return f"-spandrel-{version('spandrel')}-{_LAYOUT}.json"
