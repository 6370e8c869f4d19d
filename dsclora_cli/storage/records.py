"""Records of results in the place of the results: one small object for each, in `.dsclora/` next to the result.

Any machine that sees the results sees the records. `upscaling/manifest.py` decides what a record says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.paths import MOST_TEXT
from dsclora_cli.storage.objects import list_folder, read_object, write_object
from dsclora_cli.storage.places import RemotePlace

RECORDS = ".dsclora"
"""Name of the folder of records. The name is hidden, so no run takes the folder for pictures."""


def record_place(result: RemotePlace) -> RemotePlace:
    """Return the place of the record of a result. A copied or renamed folder keeps the records of the results."""
    return result.parent / RECORDS / f"{result.name}.json"


def read_remote_record(result: RemotePlace) -> dict[str, Any]:
    """Return the record of a result, or an empty dict where there is no record that can be read."""
    try:
        record = json.loads(read_object(record_place(result), MOST_TEXT))
    except (ImageUnreadable, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def write_remote_record(result: RemotePlace, record: Mapping[str, Any]) -> None:
    """Write the record of a result. Raises ImageUnwritable."""
    write_object(record_place(result), json.dumps(record, indent=1).encode())


def recorded_places(folder: RemotePlace) -> set[str]:
    """Return the keys of the places in a folder that have a record. Raises ImageUnreadable."""
    names = [facts.place.name for facts in list_folder(folder / RECORDS)[1]]
    return {(folder / name.removesuffix(".json")).key for name in names if name.endswith(".json")}
