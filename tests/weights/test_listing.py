"""`dsclora models list`: every entry, where its file is, and what `auto` tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

from dsclora_cli.weights.listing import FetchStatus, fetch_model, list_models


@pytest.fixture
def server(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    student = (shared / "weights/team23_DSCF.pth").read_bytes()
    with HubServer("sssefe/DSCLoRA", {"model_zoo/team23_DSCF.pth": student}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_the_list_of_models_shows_where_files_are(server: HubServer) -> None:
    rows = {row.name: row for row in list_models()}
    assert {name: (row.place, row.auto) for name, row in rows.items() if row.arch == "span"} == {
        "dscf-x4": ("on the Hub", None),
        "dsclora-x4": ("embedded", 2),
        "dsclora-x4-photo": ("embedded", 3),
        "dsclora-x4-sharp": ("embedded", None),
        "dsclora-x3-photo": ("embedded", None),
        "dsclora-x2-photo": ("embedded", None),
        "dsclora-x3": ("embedded", 1),
        "dsclora-x2": ("embedded", 1),
        "dscf-x4-plus": ("embedded", 1),
        "spantiny-x4": ("on the web", None),
        "spantiny-x4-dsclora": ("embedded", None),
        "nomosuni-span-x4": ("on the web", None),
    }
    assert server.requests == []
    # The adapter is in the package, and its base is not.
    assert fetch_model("dscf-x4-plus", trust=False).status == FetchStatus.FETCHED
    assert fetch_model("dscf-x4-plus", trust=False).status == FetchStatus.HERE
    student = next(row for row in list_models() if row.name == "dscf-x4")
    assert (student.place, student.scale, student.licence, student.size) == ("cached", 4, "MIT", 535137)
    assert student.published["Manga109"]["psnr_y"] == 29.6
