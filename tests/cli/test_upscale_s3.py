"""`dsclora upscale` with a real S3 server: results, records, kills, interrupts, failures, and no secret anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from batches import fill, save_photo
from s3_server import ACCOUNT

from dsclora_cli.cli.app import main

QUICK = ["-m", "dsclora-x2", "-s", "2", "--engine", "torch"]

pytestmark = pytest.mark.slow


def put_tree(client: Any, top: Path, prefix: str) -> None:
    for path in top.rglob("*"):
        if path.is_file():
            client.pipe_file(f"{prefix}/{path.relative_to(top).as_posix()}", path.read_bytes())


def keys(client: Any, prefix: str) -> list[str]:
    return sorted(name.removeprefix(f"{prefix}/") for name in client.find(prefix) if name.startswith(f"{prefix}/"))


def results(client: Any, prefix: str) -> dict[str, bytes]:
    return {name: client.cat_file(f"{prefix}/{name}") for name in keys(client, prefix) if ".dsclora/" not in name}


def reports(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def start(*arguments: str, state: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dsclora_cli", "upscale", *arguments, *QUICK]
    environment = {**os.environ, "DSCLORA_STATE_DIR": str(state), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(client: Any, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written a number of results."""
    deadline = time.monotonic() + 120
    while len(results(client, "bucket/out")) < count and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)


def test_a_bucket_gets_the_results_of_a_folder_and_another_machine_skips_them(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    top = fill(tmp_path / "in")
    save_photo(top / "sub" / "f.png", seed=5)
    put_tree(s3, top, "bucket/in")
    assert main(["upscale", str(top), "-r", "-o", str(tmp_path / "out"), *QUICK]) == 1
    command = ["upscale", "s3://bucket/in/", "-r", "-o", "s3://bucket/out", *QUICK, "--json"]
    assert main(command) == 1
    files = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert results(s3, "bucket/out") == {name: path.read_bytes() for name, path in files.items()}
    records = sorted(name for name in keys(s3, "bucket/out") if ".dsclora/" in name)
    assert records == sorted(f"{path.rpartition('/')[0]}/.dsclora/{Path(path).name}.json".lstrip("/") for path in files)
    assert s3.info("bucket/out/b_x2.png")["ContentType"] == "image/png"
    capsys.readouterr()
    monkeypatch.setenv("DSCLORA_STATE_DIR", str(tmp_path / "another machine"))
    assert main(command) == 1
    statuses = sorted(each["status"] for each in reports(capsys))
    assert statuses == ["failed", "left-out", *["skipped"] * 5]


def test_after_a_kill_nothing_is_half_and_the_next_run_completes(tmp_path: Path, s3: Any) -> None:
    for number in range(12):
        s3.pipe_file(f"bucket/in/{number:02}.png", save_photo(tmp_path / "a.png", (80, 60), seed=number).read_bytes())
    command = ("s3://bucket/in", "-o", "s3://bucket/out")
    killed = start(*command, state=tmp_path / "first")
    wait_for(s3, 2, killed)
    killed.kill()
    killed.communicate()
    finished = results(s3, "bucket/out")
    assert 2 <= len(finished) < 12
    again = start(*command, "--json", state=tmp_path / "second")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    statuses = {Path(line["input"]).stem: line["status"] for line in map(json.loads, out.splitlines())}
    assert set(statuses.values()) == {"done", "skipped"}
    assert main(["upscale", "s3://bucket/in", "-o", "s3://bucket/whole", *QUICK, "-q"]) == 0
    assert results(s3, "bucket/out") == results(s3, "bucket/whole")
    assert {name: results(s3, "bucket/out")[name] for name in finished} == finished
    assert {status for name, status in statuses.items() if f"{name}_x2.png" in finished} == {"skipped"}


def test_ctrl_c_ends_the_run_and_leaves_no_temporary_files(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    for number in range(12):
        s3.pipe_file(f"bucket/in/{number:02}.png", save_photo(tmp_path / "a.png", (80, 60), seed=number).read_bytes())
    stopped = start("s3://bucket/in", "-o", "s3://bucket/out", "--json", state=tmp_path / "state")
    wait_for(s3, 2, stopped)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 130, err
    assert "Traceback" not in err
    statuses = [json.loads(line) for line in out.splitlines()]
    done = sorted(Path(each["output"]).name for each in statuses if each.get("status") == "done")
    assert done == sorted(results(s3, "bucket/out"))
    assert len([each for each in statuses if "status" in each]) == 12
    assert not [path for path in (tmp_path / "temporary").iterdir() if path.name.startswith("dsclora-")]


def test_a_signed_address_is_read_and_never_shown(
    tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCLORA_DEBUG", "1")
    s3.pipe_file("bucket/a.png", save_photo(tmp_path / "a.png").read_bytes())
    address = s3.sign("bucket/a.png", expiration=100)
    assert "Signature=" in address
    absent = address.replace("a.png", "absent.png")
    (tmp_path / "list.txt").write_text(f"{address}\n{absent}\n")
    assert main(["upscale", f"@{tmp_path / 'list.txt'}", "-o", "s3://bucket/out/", *QUICK, "--json", "-v"]) == 1
    assert list(results(s3, "bucket/out")) == ["a_x2.png"]
    shown = capsys.readouterr()
    record = s3.cat_file("bucket/out/.dsclora/a_x2.png.json").decode()
    state = "".join(path.read_text() for path in Path(os.environ["DSCLORA_STATE_DIR"]).rglob("*") if path.is_file())
    for text in (shown.out, shown.err, record, state):
        assert "Signature" not in text
        assert ACCOUNT["AWS_SECRET_ACCESS_KEY"] not in text
        assert ACCOUNT["AWS_ACCESS_KEY_ID"] not in text
    assert "absent.png?..." in shown.out


def test_weights_come_from_a_bucket_once(tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from dsclora_cli.weights.resolve import find_named_weights

    file = find_named_weights("dsclora-x2").path
    s3.put_file(str(file), f"bucket/models/mine{file.suffix}")
    url = f"s3://bucket/models/mine{file.suffix}"
    photo = str(save_photo(tmp_path / "a.png"))
    assert main(["upscale", photo, "-o", str(tmp_path / "by model.png"), "-s", "2", "-m", "dsclora-x2"]) == 0
    assert main(["upscale", photo, "-o", str(tmp_path / "by url.png"), "-s", "2", "--weights", url]) == 0
    assert (tmp_path / "by url.png").read_bytes() == (tmp_path / "by model.png").read_bytes()
    s3.rm_file(f"bucket/models/mine{file.suffix}")
    capsys.readouterr()
    assert main(["upscale", photo, "-o", str(tmp_path / "kept.png"), "-s", "2", "-m", url, "--offline"]) == 0
    assert main(["upscale", photo, "-o", str(tmp_path / "gone.png"), "-s", "2", "-m", url]) == 3
    assert f"error: {url} does not exist (check the URL)" in capsys.readouterr().err


def error_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(("failed: ", "error: "))]


def check_rights(server: str, after: str) -> None:
    """Let the server check the rights of an account after a number of requests; the test's account has no right."""
    headers = {"Content-Type": "text/plain"}
    asked = urllib.request.Request(f"{server}/moto-api/reset-auth", after.encode(), headers, method="POST")
    with urllib.request.urlopen(asked):
        pass


def test_failures_of_the_storage_are_one_line_each(
    tmp_path: Path, s3: Any, s3_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import s3fs

    photo = str(save_photo(tmp_path / "a.png"))
    s3.put_file(photo, "bucket/a.png")
    for arguments, line in (
        (["s3://bucket/absent.png"], "s3://bucket/absent.png does not exist (check the URL)"),
        (["s3://none/a.png"], "s3://none/a.png: the bucket does not exist (check the URL)"),
        ([photo, "-o", "s3://none/x.png"], "s3://none/x.png: the bucket does not exist (check the URL)"),
        (["s3://bucket/none/"], "s3://bucket/none/ does not exist (check the URL)"),
        (["s3://bucket/*.tif"], "no object matches s3://bucket/*.tif (check the pattern)"),
    ):
        assert main(["upscale", *arguments, *QUICK]) == 1
        # The place of all results concerns the whole run.
        assert error_lines(capsys) == [f"error: {line}" if arguments[0] == photo else f"failed: {line}"]
    check_rights(s3_address, "0")
    try:
        assert main(["upscale", "s3://bucket/a.png", *QUICK]) == 1
        (line,) = error_lines(capsys)
        assert line.startswith("failed: s3://bucket/a.png: access denied (")
        assert line.endswith("(check the credentials and the rights of the account)")
    finally:
        check_rights(s3_address, "inf")
    for name in ACCOUNT:
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["upscale", "s3://bucket/a.png", *QUICK]) == 1
    hint = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    assert error_lines(capsys) == [f"failed: s3://bucket/a.png: no credentials were found ({hint})"]


def test_a_server_that_is_away_is_one_line(
    s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert main(["upscale", "s3://bucket/a.png", *QUICK]) == 1
    (line,) = error_lines(capsys)
    assert line.startswith("failed: s3://bucket/a.png: cannot be reached (")
    assert line.endswith("(check the connection and AWS_ENDPOINT_URL, and run again)")
