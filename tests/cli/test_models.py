"""`dsclora models list`."""

from __future__ import annotations

import json


def test_the_table_says_what_is_here(dsclora) -> None:
    code, out, err = dsclora("models", "list")
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["name", "scale", "arch", "size", "where", "auto", "licence"]
    (embedded,) = (row for row in rows if row.startswith("dsclora-x4"))
    assert embedded.split()[:3] == ["dsclora-x4", "x4", "span"]
    assert "embedded" in embedded
    (remote,) = (row for row in rows if row.startswith("dscf-x4"))
    assert "on the Hub" in remote


def test_json_is_one_object_a_line(dsclora) -> None:
    code, out, _ = dsclora("models", "list", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {"dscf-x4", "dsclora-x4"} <= {row["name"] for row in rows}
    assert all(len(row["sha256"]) == 64 and row["scale"] > 1 for row in rows)
