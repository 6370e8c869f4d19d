"""Runs on a real Ray cluster of this machine from and to a real S3 server: the results of one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batches import save_photo
from clusters import ENGINE, local_cluster, require_ray

from dsclora_cli.cli.app import main

pytestmark = pytest.mark.slow

QUICK = ("-m", "dsclora-x4", "--engine", ENGINE, "--threads", "1", "--json")


def reports(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, results by the name of the input, and standard error of a command."""
    code = main(["upscale", *arguments, *QUICK])
    out, err = capsys.readouterr()
    objects = [json.loads(line) for line in out.splitlines()]
    assert [each for each in objects if "error" in each and "input" not in each] == [], err
    return code, {each["input"]: each for each in objects}, err


def objects(client: Any, prefix: str) -> dict[str, bytes]:
    """Results at a prefix, without the records."""
    names = [name for name in client.find(prefix) if "/.dsclora/" not in name]
    return {name.removeprefix(prefix): client.cat_file(name) for name in names}


def test_objects_become_the_results_of_one_machine(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_ray()
    for seed, name in enumerate(("a.png", "b.png", "sub/a.png", "sub/deep/c.png")):
        path = save_photo(tmp_path / "in" / name, seed=seed)
        s3.put_file(str(path), f"bucket/in/{name}")
    s3.pipe_file("bucket/list.txt", b"s3://bucket/in/a.png\ns3://bucket/in/absent.png\ns3://bucket/in/sub\n")
    assert main(["upscale", "s3://bucket/in", "-r", "-o", "s3://bucket/here", *QUICK]) == 0
    capsys.readouterr()
    # Started here, not by a fixture: the processes of the cluster need the account of the server.
    with local_cluster() as address:
        cluster = ("--executor", "ray", "--ray-address", address, "--ray-workers", "2", "--ray-cpus", "1")
        tree = ("s3://bucket/in", "-r", "-o", "s3://bucket/there/", *cluster)
        code, results, _ = reports(capsys, *tree)
        assert (code, {each["status"] for each in results.values()}) == (0, {"done"})
        assert results["s3://bucket/in/sub/a.png"]["output"] == "s3://bucket/there/sub/a_x4.png"
        assert objects(s3, "bucket/there/") == objects(s3, "bucket/here/")

        before = {name: s3.info(name)["LastModified"] for name in s3.find("bucket/there")}
        monkeypatch.setenv("DSCLORA_STATE_DIR", str(tmp_path / "another machine"))
        code, results, _ = reports(capsys, *tree)
        assert (code, {each["status"] for each in results.values()}) == (0, {"skipped"})
        assert {name: s3.info(name)["LastModified"] for name in s3.find("bucket/there")} == before

        out = tmp_path / "out"
        code, results, err = reports(capsys, "@s3://bucket/list.txt", "-r", "-o", f"file://{out}", *cluster)
        absent = results.pop("s3://bucket/in/absent.png")
        assert (code, absent["status"], absent["attempts"]) == (1, "failed", 1)
        assert absent["error"]["message"] == "s3://bucket/in/absent.png does not exist"
        assert len([line for line in err.splitlines() if "absent" in line]) == 1
        assert {each["status"] for each in results.values()} == {"done"} and len(results) == 3
        # In a list, `a.png` and `sub/a.png` compete for one name.
        assert (out / "a_x4.png").read_bytes() == objects(s3, "bucket/here/")["a_x4.png"]
        names = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
        assert names == ["a_x4-2.png", "a_x4.png", "deep/c_x4.png"]

        # Results of another run among the inputs are no inputs, as on one machine.
        code, results, _ = reports(capsys, "s3://bucket", "-r", "-o", "s3://bucket/again", "--dry-run")
        planned = {name for name, each in results.items() if each.get("action") == "upscale"}
        code, results, _ = reports(capsys, "s3://bucket", "-r", "-o", "s3://bucket/again", *cluster)
        assert (code, {name for name, each in results.items() if each["status"] == "done"}) == (0, planned)
        assert len(planned) == 4
        code, results, _ = reports(capsys, "s3://nobucket/in", "s3://bucket/in/a.png", "-o", "s3://bucket/a/", *cluster)
        assert (code, results["s3://nobucket/in"]["error"]["message"]) == (
            1,
            "s3://nobucket/in: the bucket does not exist",
        )
        assert results["s3://bucket/in/a.png"]["status"] == "done"
