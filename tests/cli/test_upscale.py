"""`dsclora upscale`, as users type it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from dsclora_cli.cli import upscale as command
from dsclora_cli.config import BatchOptions, EngineOptions, ModelOptions, SaveOptions, SizeOptions, UpscaleOptions
from dsclora_cli.upscaling import batch

EMBEDDED = ("-m", "dsclora-x4")


def test_one_picture(dsclora, photo: Path) -> None:
    code, out, err = dsclora("upscale", photo, *EMBEDDED)
    assert (code, out) == (0, "")
    first, summary = err.splitlines()
    assert first.startswith("photo.png -> photo_x4.png  12x9 -> 48x36  ")
    assert summary.startswith("1 done in ")
    assert Image.open("photo_x4.png").size == (48, 36)


def test_a_second_run_reports_nothing_to_do(dsclora, photo: Path) -> None:
    dsclora("upscale", photo, *EMBEDDED)
    assert dsclora("upscale", photo, *EMBEDDED) == (0, "", "nothing to do: 1 already done\n")
    again = dsclora("upscale", photo, *EMBEDDED, "-v")
    assert again.err == "skipped: photo.png\nnothing to do: 1 already done\n"
    assert dsclora("upscale", photo, *EMBEDDED, "--width", 12).err == "nothing to do: 1 large enough\n"
    kept = dsclora("upscale", photo, *EMBEDDED, "--compression", 9)
    assert kept.code == 0
    assert "warning: photo.png: photo_x4.png is kept: not the result of this picture with these settings" in kept.err
    assert kept.err.endswith("nothing to do: 1 kept\n")


def test_a_result_that_is_kept_warns_with_quiet_too(dsclora, photo: Path) -> None:
    upscale = ("upscale", photo, *EMBEDDED, "-q")
    assert dsclora(*upscale) == (0, "", "")
    assert dsclora(*upscale) == (0, "", "")
    Image.new("RGB", (12, 9), "navy").save(photo)
    reason = "not the result of this picture with these settings; --overwrite replaces the file"
    assert dsclora(*upscale) == (0, "", f"warning: photo.png: photo_x4.png is kept: {reason}\n")
    assert dsclora(*upscale, "--overwrite") == (0, "", "")


def test_failures_are_shown_last_and_give_exit_code_1(dsclora, photo: Path) -> None:
    Path("broken.png").write_bytes(photo.read_bytes()[:50])
    code, out, err = dsclora("upscale", "absent.png", "broken.png", photo, *EMBEDDED)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0].startswith("photo.png -> photo_x4.png")
    assert lines[1] == "failed: absent.png does not exist (check the path)"
    assert lines[2].startswith("failed: broken.png: the ")
    assert lines[3].startswith("1 done, 2 failed in ")
    assert "Traceback" not in err
    quiet = dsclora("upscale", "absent.png", photo, *EMBEDDED, "-q")
    assert quiet == (1, "", "failed: absent.png does not exist (check the path)\n")


def test_from_stdin_to_stdout(dsclora, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["-"], ["-", "-o", "-", "-f", "jpg"]):
        stdout = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
        monkeypatch.setattr(sys, "stdout", stdout)
        assert dsclora("upscale", *arguments, *EMBEDDED).code == 0
        picture = Image.open(io.BytesIO(stdout.buffer.getvalue()))
        assert (picture.format, picture.size) == ("JPEG" if "jpg" in arguments else "PNG", (48, 36))


def test_a_picture_is_not_shown_on_a_terminal(dsclora, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = dsclora("upscale", photo, "-o", "-")
    assert (code, out) == (2, "")
    assert "a picture is not shown on a terminal" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "1"], "--scale 1 is not above 1 and at most 16"),
        (["-s", "x4"], "'--scale'"),
        (["-s", "2", "--width", "9"], "more than one size is given: --scale, --width"),
        (["--megapixels", "-1"], "--megapixels -1 is no area"),
        (["--fit", "100"], "'100' is not WxH, such as 1920x1080"),
        (["--width", "0"], "'--width'"),
        (["--tile", "-3"], "'-3' is not auto, 0 or a number of pixels"),
        (["--quality", "200"], "'--quality'"),
        (["--compression", "10"], "'--compression'"),
        (["--threads", "0"], "'--threads'"),
        (["--device", "gpu"], "'gpu' is not auto, cpu, cuda, cuda:N, mps, several such as cuda:0,cuda:1, or all"),
        (["--dtype", "int8"], "'--dtype'"),
        (["--metadata", "some"], "'--metadata'"),
        (["-f", "doc"], "--format doc: no picture format"),
        (["--name", "{when}"], "there is no field {when}"),
        (["-m", "nonsense"], "no model is called 'nonsense'"),
        (["-m", "dscf-x4", "--weights", "a.pth"], "give only one of them"),
        (["--device", "cuda:99"], "(use --device "),
    ],
)
def test_a_bad_value_is_a_usage_error_with_the_option(dsclora, photo: Path, arguments: list[str], message: str) -> None:
    code, out, err = dsclora("upscale", photo, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(Path().iterdir()) == [photo]


def test_json_and_a_picture_do_not_share_stdout(dsclora, photo: Path) -> None:
    code, _, err = dsclora("upscale", photo, "-o", "-", "--json")
    assert (code, err) == (2, "error: --json and the picture would both go to stdout (name a file with -o)\n")


def test_unavailable_weights_give_exit_code_3(dsclora, photo: Path) -> None:
    code, _, err = dsclora("upscale", photo, "--weights", "absent.pth")
    assert code == 3
    assert err.startswith("error: cannot read absent.pth")
    code, _, err = dsclora("upscale", photo, "-m", "dscf-x4", "--offline")
    assert code == 3
    assert err.count("\n") == 1


def test_a_fallback_is_a_single_line(dsclora, photo: Path) -> None:
    Image.open(photo).save("other.png")
    code, _, err = dsclora("upscale", photo, "other.png", "--offline")
    assert code == 0
    assert err.splitlines()[0] == "note: dscf-x4 could not be fetched (offline): using the embedded dsclora-x4"
    assert err.count("dscf-x4") == 1


def test_a_dry_run_prints_the_plan_and_writes_nothing(dsclora, photo: Path) -> None:
    code, out, err = dsclora("upscale", photo, "absent.png", *EMBEDDED, "-s", 6, "--dry-run")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == "upscale photo.png -> photo_x6.png"
    assert lines[1] == "  12x9 -> 72x54, x4 then x4"
    assert lines[2].startswith("  whole, 2 in all; memory ")
    assert lines[3] == "absent.png does not exist (check the path)"
    assert lines[4].endswith("of disk; nothing was written")
    assert list(Path().iterdir()) == [photo]
    (plan,) = map(json.loads, dsclora("upscale", photo, *EMBEDDED, "--dry-run", "--json").out.splitlines())
    assert (plan["action"], plan["passes"], plan["tiles"]) == ("upscale", [4], 1)


def parsed(dsclora, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> UpscaleOptions:
    caught: list[UpscaleOptions] = []

    def upscale_files(inputs: list[str], options: UpscaleOptions, callbacks: object) -> io.StringIO:
        caught.append(options)
        return io.StringIO()

    monkeypatch.setattr(batch, "upscale_files", upscale_files)
    assert dsclora("upscale", "photo.png", *arguments).code == 0
    return caught[0]


def test_without_options_the_defaults_come_from_the_config(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(dsclora, monkeypatch) == UpscaleOptions()


def test_every_option_reaches_the_config(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(
        dsclora,
        monkeypatch,
        *("--weights", "a.pth", "--adapter", "b.safetensors", "--offline", "--fit", "1920x1080"),
        *("--device", "cuda:1", "--dtype", "float16", "--tile", "128", "--threads", "3", "--ensemble"),
        *("-f", "jpg", "--quality", "80", "--compression", "7", "--metadata", "none", "--strict"),
        *("-o", "out", "--name", "{stem}.{ext}", "-r", "--overwrite", "--fail-fast"),
    )
    assert options == UpscaleOptions(
        model=ModelOptions(weights=Path("a.pth"), offline=True, adapter=Path("b.safetensors")),
        size=SizeOptions(fit=(1920, 1080)),
        engine=EngineOptions(device="cuda:1", dtype="float16", tile=128, threads=3, ensemble=True),
        save=SaveOptions(format="jpg", quality=80, compression=7, metadata="none", strict=True),
        batch=BatchOptions(output="out", name="{stem}.{ext}", recursive=True, overwrite=True, fail_fast=True),
    )


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["-s", "2.5"], SizeOptions(scale=2.5)),
        (["--width", "9", "--height", "8"], SizeOptions(width=9, height=8)),
        (["--long-edge", "9"], SizeOptions(long_edge=9)),
        (["--short-edge", "9"], SizeOptions(short_edge=9)),
        (["--megapixels", "1.5"], SizeOptions(megapixels=1.5)),
    ],
)
def test_each_size_option(dsclora, monkeypatch: pytest.MonkeyPatch, arguments: list[str], size: SizeOptions) -> None:
    assert parsed(dsclora, monkeypatch, *arguments).size == size


def test_the_tile_is_automatic_whole_or_a_number(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = {text: parsed(dsclora, monkeypatch, "--tile", text).engine.tile for text in ("auto", "0", "64")}
    assert tiles == {"auto": None, "0": 0, "64": 64}


def test_every_field_of_the_config_has_an_option() -> None:
    names = set(command.upscale.__annotations__)
    for part in (ModelOptions, SizeOptions, EngineOptions, SaveOptions, BatchOptions):
        assert {field.name for field in fields(part)} <= names


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to one process on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_clean_and_resumes(tmp_path: Path, photo: Path, number: signal.Signals) -> None:
    for index in range(16):
        Image.open(photo).resize((160, 120)).save(f"{index:02}.png")
    command_line = [sys.executable, "-m", "dsclora_cli", "upscale", ".", *EMBEDDED, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(batch.__file__).parents[2])}
    process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert " -> " in first
    assert "interrupted: " in rest
    assert "Traceback" not in rest
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    written = sorted(tmp_path.glob("*_x4.png"))
    assert 0 < len(written) < 17
    for path in written:
        Image.open(path).load()
    again = subprocess.run(command_line, stderr=subprocess.PIPE, text=True, env=environment, check=True)
    assert f"{len(written)} already done" in again.stderr


@pytest.mark.parametrize("options", [["--dry-run", "--watch"], ["--compare-page", "--crop-preview", "0,0,4,4"]])
def test_options_that_exclude_each_other(dsclora, photo: Path, options: list[str]) -> None:
    code, out, err = dsclora("upscale", photo, *options)
    assert (code, out) == (2, "")
    assert "cannot be combined" in err


@pytest.mark.parametrize(
    "arguments", [["photo.png", "-o", "-"], ["-", "-o", "x.png"], ["-"], ["photo.png", "-", "-o", "x/"]]
)
def test_a_page_without_files_to_name_is_refused(dsclora, photo: Path, arguments: list[str]) -> None:
    refused = dsclora("upscale", *arguments, "--compare-page", *EMBEDDED)
    expected = "--compare-page takes files, and neither stdin nor stdout (-) (leave --compare-page out)"
    assert refused == (2, "", f"error: {expected}\n") and not Path("x.png").exists()
