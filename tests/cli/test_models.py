"""`dsclora models list` and `dsclora models fetch`."""

from __future__ import annotations

import json

from dsclora_cli.weights import catalog


def test_the_table_shows_where_weights_are(dsclora) -> None:
    code, out, err = dsclora("models", "list")
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["name", "scale", "arch", "size", "where", "auto", "licence"]
    (embedded,) = (row for row in rows if row.split()[0] == "dsclora-x4")
    assert embedded.split()[:3] == ["dsclora-x4", "x4", "span"]
    assert "embedded" in embedded
    (remote,) = (row for row in rows if row.split()[0] == "dscf-x4")
    assert "on the Hub" in remote


def test_json_has_every_entry_with_its_sha256(dsclora) -> None:
    code, out, _ = dsclora("models", "list", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {"dscf-x4", "dsclora-x4"} <= {row["name"] for row in rows}
    assert all(len(row["sha256"]) == 64 or (row["sha256"], row["place"]) == ("", "on the web") for row in rows)


def test_the_table_marks_adapters_and_models_for_photographs(dsclora, tmp_path, monkeypatch) -> None:
    entry = 'arch = "span"\nscale = 2\nchannels = 4\nsize = 1\nlicence = "MIT"\nsource = "me"\n'
    text = '[auto]\n2 = ["plain"]\n[photo]\nbelow = 82.5\n2 = "photo"\n'
    for index, (name, more) in enumerate({"plain": 'repo = "a/b"\n', "photo": "", "plus": 'base = "plain"\n'}.items()):
        text += f'[weights.{name}]\nfile = "{name}.pth"\nsha256 = "{index:064}"\n{more}{entry}'
    packaged = tmp_path / "weights.toml"
    packaged.write_text(text)
    monkeypatch.setattr(catalog, "packaged_file", lambda: packaged)

    rows = {line.split()[0]: line for line in dsclora("models", "list").out.splitlines()}
    assert rows["plain"].split()[-5:] == ["on", "the", "Hub", "1.", "MIT"]
    assert "JPEG < 82.5" in rows["photo"]
    assert "missing, over plain" in rows["plus"]
    found = [json.loads(line) for line in dsclora("models", "list", "--json").out.splitlines()]
    assert [(row["photo"], row["base"]) for row in found] == [(None, None), (82.5, None), (None, "plain")]


def test_fetch_prints_the_path_and_the_sha256(dsclora) -> None:
    code, out, err = dsclora("models", "fetch", "dsclora-x4")
    assert (code, err) == (0, "")
    assert out.startswith("dsclora-x4: ") and "dsclora-x4.safetensors, sha256 " in out
    code, _, err = dsclora("models", "fetch", "nobody")
    assert code == 2 and "no model is called 'nobody'" in err
