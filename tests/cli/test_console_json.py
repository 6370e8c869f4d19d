"""The JSON output, version 1: whole objects of every command, so that no key comes or goes unseen."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from unittest.mock import ANY

import pytest
from PIL import Image

from dsclora_cli import __version__
from dsclora_cli.cli import console
from dsclora_cli.errors import ErrorCode
from dsclora_cli.weights import listing
from dsclora_cli.weights.catalog import load_catalog

PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"
EMBEDDED = ("-m", "dsclora-x4", "--device", "cpu")
ABSENT = {"code": "image-unreadable", "message": "absent.png does not exist", "hint": "check the path"}


def objects(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def sha256() -> str:
    return load_catalog().entry("dsclora-x4").sha256


def test_upscale_writes_an_object_for_each_picture(dsclora, photo: Path) -> None:
    code, out, _ = dsclora("upscale", photo, "absent.png", *EMBEDDED, "--engine", "torch", "--json", "-o", "out")
    done, failed = sorted(objects(out), key=lambda result: str(result["status"]))
    assert code == 1
    assert done == {
        "version": 1,
        "input": "photo.png",
        "status": "done",
        "output": str(Path("out/photo_x4.png")),
        "input_size": [12, 9],
        "output_size": [48, 36],
        "frames": 1,
        "scale": 4.0,
        "model": "dsclora-x4",
        "choice": None,
        "weights_sha256": sha256(),
        "device": "cpu",
        "dtype": "float32",
        "engine": "torch",
        "tile": 0,
        "seconds": {"decode": ANY, "network": ANY, "encode": ANY},
        "faithfulness": None,
        "warnings": [],
        "error": None,
        "attempts": 1,
    }
    assert failed == {
        "version": 1,
        "input": "absent.png",
        "status": "failed",
        "output": None,
        "input_size": None,
        "output_size": None,
        "frames": 1,
        "scale": None,
        "model": None,
        "choice": None,
        "weights_sha256": None,
        "device": None,
        "dtype": None,
        "engine": None,
        "tile": None,
        "seconds": {"decode": 0, "network": 0, "encode": 0},
        "faithfulness": None,
        "warnings": [],
        "error": ABSENT,
        "attempts": 1,
    }


def test_a_dry_run_writes_an_object_for_each_picture(dsclora, photo: Path) -> None:
    code, out, err = dsclora("upscale", photo, "absent.png", *EMBEDDED, "--dry-run", "--json")
    planned, failed = objects(out)
    assert (code, err) == (1, "")
    assert planned == {
        "version": 1,
        "input": "photo.png",
        "action": "upscale",
        "output": "photo_x4.png",
        "input_size": [12, 9],
        "output_size": [48, 36],
        "frames": 1,
        "passes": [4],
        "model": "dsclora-x4",
        "choice": None,
        "tile": 0,
        "tiles": 1,
        "memory_bytes": ANY,
        "seconds": ANY,
        "disk_bytes": ANY,
        "notes": [],
        "error": None,
    }
    unknown = dict.fromkeys(planned) | {"version": 1, "frames": 1, "passes": [], "notes": []}
    assert failed == unknown | {"input": "absent.png", "action": "fail", "error": ABSENT}


def test_eval_writes_one_object(dsclora, photo: Path) -> None:
    Path("originals").mkdir()
    Image.open(PHOTO).convert("RGB").crop((0, 60, 64, 108)).save("originals/a.png")
    code, out, err = dsclora("eval", "--hr", "originals", *EMBEDDED, "--json")
    (report,) = objects(out)
    metrics = ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"]
    scores = dict.fromkeys(metrics, ANY)
    assert (code, err) == (0, "")
    assert report == {
        "version": 1,
        "scale": 4,
        "protocol": {"name": "paper", "border": 4, "metrics": metrics},
        "metrics": metrics,
        "rows": [
            {
                "name": "bicubic",
                "weights_sha256": None,
                "device": None,
                "dtype": None,
                "ensemble": False,
                "tile": None,
                "engine": None,
                "notes": [],
                "cost": None,
            },
            {
                "name": "dsclora-x4",
                "weights_sha256": sha256(),
                "device": "cpu",
                "dtype": "float32",
                "ensemble": False,
                "tile": None,
                "engine": "torch",
                "notes": [],
                "cost": None,
            },
        ],
        "sets": [
            {
                "name": "originals",
                "images": 1,
                "fingerprint": ANY,
                "verdict": "unknown copy",
                "warning": None,
                "rows": [
                    {"name": name, "mean": scores, "infinite": {}, "images": {"a": scores}, "claims": []}
                    for name in ("bicubic", "dsclora-x4")
                ],
                "comparisons": [],
                "worst": [],
                "hr": None,
            }
        ],
        "versions": {
            "dsclora": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy", "pillow")},
        },
        "jpeg": None,
    }


@pytest.mark.slow
def test_train_writes_an_object_for_each_score_and_one_for_the_result(dsclora, photos: Path) -> None:
    size = ("--channels", 4, "--blocks", 1, "-s", 2, "--patch", 8, "--batch", 4, "--steps", 2, "--validate", 2)
    here = ("--device", "cpu", "--compile", "off", "--threads", 1)
    code, out, err = dsclora("train", "--data", photos, "--out", "run", *size, *here, "--json", "-q")
    score, result = objects(out)
    assert (code, err) == (0, "")
    assert score == {
        "version": 1,
        "step": 2,
        "loss": ANY,
        "terms": {"pixel": score["loss"]},
        "facts": {},
        "psnr_y": ANY,
        "rate": ANY,
        "images_per_second": ANY,
        "waiting": ANY,
        "seconds": ANY,
    }
    assert result == {
        "version": 1,
        "run": "run",
        "file": str(Path("run/best.safetensors")),
        "steps": 2,
        "best_step": 2,
        "best_psnr_y": score["psnr_y"],
        "floor_psnr_y": None,
        "skipped": 0,
        "seconds": ANY,
        "reached_psnr_y": score["psnr_y"],
    }


def test_models_list_writes_an_object_for_each_entry(dsclora) -> None:
    code, out, _ = dsclora("models", "list", "--json")
    (embedded,) = (row for row in objects(out) if row["name"] == "dsclora-x4")
    entry = load_catalog().entry("dsclora-x4")
    assert code == 0
    assert embedded == {
        "version": 1,
        "name": "dsclora-x4",
        "arch": "span",
        "scale": 4,
        "channels": 26,
        "size": entry.size,
        "licence": "MIT",
        "source": entry.source,
        "place": "embedded",
        "auto": 2,
        "photo": None,
        "photo_webp": None,
        "photo_avif": None,
        "sharp": None,
        "base": None,
        "repo": None,
        "sha256": entry.sha256,
        "published": {},
        "reference": json.loads(json.dumps(entry.reference)),
    }


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "message"),
    [
        (["upscale", "photo.png", "-m", "nobody"], 2, "usage", "no model is called 'nobody'"),
        (["upscale", "photo.png", "-s", "x"], 2, "usage", "'x' is not a valid number"),
        (["upscale", "photo.png", "--no-such-option"], 2, "usage", "No such option: --no-such-option"),
        (["upscale", "photo.png", "--weights", "absent.pth"], 3, "weights-unusable", "cannot read absent.pth"),
        (["eval", "--hr", "absent"], 2, "usage", "absent"),
    ],
)
def test_an_error_that_ends_a_command_is_an_object(
    dsclora, photo: Path, arguments: list[str], exit_code: int, code: str, message: str
) -> None:
    ran = dsclora(*arguments, "--json")
    (error,) = objects(ran.out)
    assert ran.code == exit_code
    assert error == {"version": 1, "error": {"code": code, "message": ANY, "hint": ANY}}
    assert message in ran.out and message in ran.err
    assert dsclora(*arguments) == (exit_code, "", ran.err)


@pytest.mark.parametrize(
    ("raised", "exit_code", "error"),
    [
        (
            KeyboardInterrupt(),
            130,
            {"code": "interrupted", "message": "interrupted by Ctrl-C, SIGTERM or SIGHUP", "hint": ""},
        ),
        (
            ZeroDivisionError("first line\nsecond line"),
            1,
            {
                "code": "bug",
                "message": "this is a bug in dsclora: ZeroDivisionError: first line",
                "hint": "run again with DSCLORA_DEBUG=1 and report what it shows",
            },
        ),
    ],
)
def test_an_interrupt_and_a_bug_are_objects(
    dsclora, monkeypatch: pytest.MonkeyPatch, raised: BaseException, exit_code: int, error: dict[str, str]
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(listing, "list_models", fail)
    ran = dsclora("models", "list", "--json")
    assert (ran.code, objects(ran.out)) == (exit_code, [{"version": 1, "error": error}])


def test_every_error_code_and_the_version_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    table = page.partition("| error code |")[2].partition("\n\n")[0]
    documented = [line.split("`")[1] for line in table.splitlines()[2:]]
    assert documented == [code.value for code in ErrorCode]
    assert f'"version": {console.JSON_VERSION}' in page
