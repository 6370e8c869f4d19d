"""`dsclora eval`, as users type it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import save_network_file
from hub_server import HubServer
from PIL import Image

from dsclora_cli.cli import console
from dsclora_cli.config import ModelOptions
from dsclora_cli.evaluation import evaluate as task
from dsclora_cli.imaging.niqe import niqe
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.catalog import EMBEDDED as EMBEDDED_FOLDER
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.checkpoint import load_network, save_network

EMBEDDED = ("-m", "dsclora-x4", "--device", "cpu")
PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"


@pytest.fixture
def hr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `small set`, with two 48x64 pieces of a photograph, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("small set").mkdir()
    photo = np.array(Image.open(PHOTO).convert("RGB"))
    for name, left in (("a", 0), ("b c", 90)):
        Image.fromarray(photo[60:108, left : left + 64]).save(f"small set/{name}.png")
    return Path("small set")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, hr: Path) -> Iterator[HubServer]:
    """A Hub on this machine, which has the two pieces as Set5."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in sorted(hr.iterdir()):
            archive.add(path, f"Set5_HR/{path.name}")
    with HubServer("datasets/eugenesiow/Set5", {"data/Set5_HR.tar.gz": packed.getvalue()}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def lines_with(text: str, start: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith(start)]


def test_a_table_shows_means_and_the_identity_of_the_set(dsclora, hr: Path) -> None:
    code, out, err = dsclora("eval", "--hr", hr, *EMBEDDED)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].rstrip() == "small set x4, 2 images, paper protocol"
    assert lines[1].split() == ["model", "PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM-RGB"]
    (bicubic,), (model,) = lines_with(out, "bicubic"), lines_with(out, "dsclora-x4")
    assert len(bicubic) == len(model) == 5
    assert 15 < float(bicubic[1]) < 60 and 0 < float(model[2]) < 1
    assert "HR images: unknown copy; border 4" in lines


def test_a_set_by_name_comes_from_the_hub_once(dsclora, hub: HubServer, hr: Path) -> None:
    code, out, err = dsclora("eval", "--dataset", "set5", *EMBEDDED)
    assert (code, err) == (0, "")
    assert out.startswith("Set5 x4, 2 images, paper protocol")
    _, folder, _ = dsclora("eval", "--hr", hr, *EMBEDDED)
    assert lines_with(out, "dsclora-x4")[0] == lines_with(folder, "dsclora-x4")[0]
    asked = len(hub.requests)
    assert asked > 0
    assert dsclora("eval", "--dataset", "Set5", *EMBEDDED, "--offline").out == out
    assert len(hub.requests) == asked


def test_infinity_is_a_string_in_json_and_a_note_in_the_table(dsclora, hr: Path) -> None:
    Image.new("RGB", (64, 48), (9, 99, 199)).save(hr / "flat.png")
    _, out, _ = dsclora("eval", "--hr", hr, *EMBEDDED, "--json")
    bicubic = json.loads(out)["sets"][0]["rows"][0]
    assert bicubic["images"]["flat"]["psnr_y"] == "inf"
    assert bicubic["infinite"] == {"psnr_y": 1, "psnr_rgb": 1}
    assert isinstance(bicubic["mean"]["psnr_y"], float)
    _, out, _ = dsclora("eval", "--hr", hr, *EMBEDDED)
    assert "bicubic: 1 of 3 images has infinite PSNR-Y, not in the mean" in out


@pytest.mark.skipif(os.name == "nt", reason="no such names on Windows")
def test_names_of_files_change_neither_the_terminal_nor_the_table(dsclora, tmp_path: Path, hr: Path) -> None:
    (hr / "a.png").rename(hr / "a\x1b[31m[bold]:dog:[oops].png")
    (hr / "b c.png").rename(hr / "b\nforged 99 99 99 99.png")
    strange = hr.rename("set\x1b[2J")
    code, out, err = dsclora("eval", "--hr", strange, *EMBEDDED, "--worst", "2", "--markdown", "table.md")
    markdown = Path("table.md").read_text(encoding="utf-8")
    assert (code, err) == (0, "")
    for text in (out, markdown):
        assert "\x1b" not in text and "\nforged" not in text
        assert r"a\x1b[31m[bold]:dog:[oops]" in text and r"b\nforged 99" in text and r"set\x1b[2J x4" in text


def test_weights_whose_result_is_infinite_are_an_error_with_the_picture(dsclora, hr: Path) -> None:
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=4))
    with torch.no_grad():
        for values in network.parameters():
            values.fill_(1e15)
    save_network(network, Path("huge.safetensors"), training="")
    code, _, err = dsclora("eval", "--hr", hr, "--weights", "huge.safetensors", "--device", "cpu", "--engine", "torch")
    assert code == 1
    message = f"{hr / 'a.png'}: the result of the network holds NaN or infinity in float32"
    assert err == f"error: {message} (check the weights file; it may be damaged)\n"


def test_csv_has_a_line_for_each_image_and_row(dsclora, hr: Path) -> None:
    _, out, _ = dsclora("eval", "--hr", hr, *EMBEDDED, "--csv", "-")
    header, *lines = csv.reader(io.StringIO(out))
    assert header == ["set", "row", "image", "psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"]
    assert [line[:3] for line in lines] == [
        ["small set", row, image] for row in ("bicubic", "dsclora-x4") for image in ("a", "b c")
    ]
    (saved,) = json.loads(dsclora("eval", "--hr", hr, *EMBEDDED, "--json").out)["sets"]
    assert float(lines[0][3]) == saved["rows"][0]["images"]["a"]["psnr_y"]


@pytest.mark.slow
def test_niqe_scores_hr_itself_and_compares_models(dsclora, tmp_path: Path) -> None:
    photo = Image.open(PHOTO).convert("RGB").resize((400, 300), Image.Resampling.BICUBIC)
    (tmp_path / "large").mkdir()
    photo.crop((0, 0, 208, 208)).save(tmp_path / "large" / "a.png")
    photo.crop((100, 60, 400, 268)).save(tmp_path / "large" / "b.png")
    photo.crop((0, 0, 104, 104)).save(tmp_path / "large" / "small.png")  # one block: no score
    run = ("eval", "--hr", tmp_path / "large", "-s", 2, "-m", "dsclora-x2", "--weights", save_network_file(
        tmp_path / "gray.safetensors", scale=2), "--metric", "niqe", "--device", "cpu", "--offline")  # fmt: skip
    report = json.loads(dsclora(*run, "--json").out)
    (result,) = report["sets"]
    rows = {row["name"]: row for row in (*result["rows"], result["hr"])}

    assert report["metrics"][-1] == "niqe"
    assert list(rows) == ["bicubic", "dsclora-x2", "gray", "HR"]
    hr = np.array(Image.open(tmp_path / "large" / "a.png"))
    assert rows["HR"]["images"]["a"] == {"niqe": niqe(hr[2:-2, 2:-2])}
    assert rows["HR"]["infinite"] == rows["gray"]["infinite"] == {"niqe": 1}
    both = [each for each in result["comparisons"] if each["metric"] == "niqe"]
    assert [(each["row"], each["against"], each["losses"], each["ties"]) for each in both] == [
        ("gray", "dsclora-x2", 2, 1)
    ]
    assert [each["metric"] for each in result["comparisons"]] == ["psnr_y", "niqe"]

    out = dsclora(*run, "--csv", tmp_path / "scores.csv").out
    assert re.search(r"model +PSNR-Y +SSIM-Y +PSNR-RGB +SSIM-RGB +NIQE\n", out)
    assert re.search(rf"\nHR +{rows['HR']['mean']['niqe']:.5f} *\n", out)
    assert "NIQE against dsclora-x2 (lower is better)" in out
    assert "HR: 1 of 3 images has infinite NIQE, not in the mean" in out
    lines = list(csv.DictReader((tmp_path / "scores.csv").open()))
    first = next(line for line in lines if line["row"] == "HR")
    assert (first["psnr_y"], float(first["niqe"])) == ("", rows["HR"]["images"]["a"]["niqe"])


def test_two_reports_do_not_share_a_file(dsclora, hr: Path) -> None:
    ran = dsclora("eval", "--hr", hr, "-m", "bicubic", "--csv", "scores", "--markdown", "./scores")
    assert (ran.code, Path("scores").exists()) == (2, False)
    assert "--csv and --markdown both name scores" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize(("option", "kind"), [("--csv", "CSV"), ("--markdown", "Markdown")])
def test_only_reports_and_empty_files_are_replaced(dsclora, hr: Path, option: str, kind: str) -> None:
    run = ("eval", "--hr", hr, *EMBEDDED, "--jpeg", 90, option)
    for foreign in (PHOTO.read_bytes(), b"set,row\n", b"### My notes\n", b"\n"):
        Path("scores").write_bytes(foreign)
        message = f"scores exists, and is no {kind} report of dsclora eval (choose another file, or - for stdout)"
        assert dsclora(*run, "scores") == (2, "", f"error: {message}\n")
        assert Path("scores").read_bytes() == foreign
    Path("scores").write_bytes(b"")
    assert dsclora(*run, "scores").code == 0
    assert dsclora(*run, "scores", "--metric", "niqe", "--protocol", "ntire").code == 0
    written = Path("scores").read_text()
    assert dsclora(*run, "-").out.splitlines()[0] != written.splitlines()[0]
    assert dsclora(*run, os.devnull).code == 0
    (hr / "b c.png").unlink()
    assert [dsclora(*run, "scores").code for _ in range(2)] == [0, 0]


def test_markdown_goes_to_a_file_and_the_table_still_to_the_terminal(dsclora, hr: Path) -> None:
    code, out, _ = dsclora(
        "eval", "--hr", hr, *EMBEDDED, "--markdown", "scores.md", "--csv", "scores.csv", "--worst", 1
    )
    assert code == 0 and "PSNR-Y" in out
    text = Path("scores.md").read_text()
    assert "### small set x4, 2 images, paper protocol\n\n| model | PSNR-Y |" in text
    assert "\n| --- | ---: | ---: | ---: | ---: |\n| bicubic | " in text
    assert "### small set: least gain over bicubic" in text
    assert len(Path("scores.csv").read_text().splitlines()) == 5
    assert "| dsclora-x4 | b c |" in dsclora("eval", "--hr", hr, *EMBEDDED, "--markdown", "-", "--worst", 2).out


def test_scores_of_jpeg_lr_are_lower_and_the_title_names_the_quality(dsclora, hr: Path) -> None:
    clean = json.loads(dsclora("eval", "--hr", hr, "--json", *EMBEDDED).out)
    code, out, _ = dsclora("eval", "--hr", hr, "--json", "--jpeg", 30, *EMBEDDED)
    dirty = json.loads(out)
    assert code == 0 and clean["jpeg"] is None and dirty["jpeg"] == 30
    for before, after in zip(clean["sets"][0]["rows"], dirty["sets"][0]["rows"], strict=True):
        assert after["mean"]["psnr_y"] < before["mean"]["psnr_y"] - 0.3
    assert "small set x4 from JPEG of quality 30, 2 images" in dsclora("eval", "--hr", hr, "--jpeg", 30, *EMBEDDED).out


def test_an_adapter_is_a_row_next_to_the_model(dsclora, hr: Path) -> None:
    torch.manual_seed(0)
    base = load_catalog().entry("dsclora-x4")
    network = load_network(EMBEDDED_FOLDER / base.file)
    adapters = Adapters(network, parse_ranks(network, "small"))
    torch.nn.init.normal_(adapters.get_parameter("upsampler.0.B"), std=0.001)
    save_adapters(adapters, Path("mine.safetensors"), base.sha256, "test")
    code, out, _ = dsclora("eval", "--hr", hr, *EMBEDDED, "--adapter", "mine.safetensors")

    (plain, *_), (adapted, *_) = lines_with(out, "dsclora-x4 "), lines_with(out, "dsclora-x4-mine")
    assert code == 0
    assert plain[1] != adapted[1]


@pytest.mark.slow
def test_comparison_ensemble_cost_and_images(dsclora, hr: Path) -> None:
    arguments = ("--ensemble", "--cost", "--save", "out", "--worst", "1")
    code, out, _ = dsclora("eval", "--hr", hr, *EMBEDDED, *arguments)
    assert code == 0
    assert "small set: PSNR-Y against dsclora-x4" in out
    (difference,) = [line for line in lines_with(out, "dsclora-x4 + ensemble") if "to" in line]
    assert sum(map(int, difference[-3:])) == 2
    (cost,) = [line for line in lines_with(out, "dsclora-x4 ") if "M" in line]
    assert cost[1:8] == ["0.131", "M", "8.54", "G", "38.93", "M", "22"]
    names = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.png")}
    rows = ("bicubic", "dsclora-x4", "dsclora-x4_+_ensemble")
    results = {f"small set/{row}/{image}.png" for row in rows for image in ("a", "b c")}
    assert names == results | {f"small set/worst-{row}.png" for row in rows[1:]}


def test_eval_scores_the_pixels_that_upscale_writes(dsclora, hr: Path) -> None:
    lr = downscale(np.array(Image.open(hr / "a.png")), 4)
    Image.fromarray(lr).save("lr.png")
    exact = ("--dtype", "float32", "--engine", "torch", "--tile", "8")
    assert dsclora("upscale", "lr.png", *EMBEDDED, *exact, "-o", "upscaled.png").code == 0
    assert dsclora("eval", "--hr", hr, *EMBEDDED, *exact, "--save", "out").code == 0
    scored = np.array(Image.open("out/small set/dsclora-x4/a.png"))
    np.testing.assert_array_equal(scored, np.array(Image.open("upscaled.png")))


def test_a_folder_of_saved_results_that_cannot_be_made_names_no_option_of_another_command(dsclora, hr: Path) -> None:
    Path("out").mkdir()
    Path("out/small set").touch()
    code, _, err = dsclora("eval", "--hr", hr, *EMBEDDED, "--save", "out")
    assert code == 1
    start = f"error: {hr / 'a.png'}: {Path('out/small set/bicubic')}: the folder cannot be made ("
    assert err.startswith(start) and err.endswith(") (choose another folder)\n")


def test_stated_scores_that_differ_are_marked(dsclora, hr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsclora_cli.evaluation import candidates

    find = candidates.find_weights

    def find_stated(options: ModelOptions, scale: int):
        found = find(options, scale)
        return replace(found, entry=replace(found.entry, published={"small set": {"psnr_y": 99.0}}, reference={}))

    monkeypatch.setattr(candidates, "find_weights", find_stated)
    _, out, _ = dsclora("eval", "--hr", hr, *EMBEDDED)
    assert "small set: measured and stated scores" in out
    (claim,) = [line for line in lines_with(out, "dsclora-x4") if "published" in line]
    assert claim[1] == "PSNR-Y" and claim[3] == "99.0000" and claim[-1] == "DIFFERS"


def test_notes_go_to_stderr_unless_quiet(dsclora, hr: Path) -> None:
    _, out, err = dsclora("eval", "--hr", hr, "--offline", "--device", "cpu", "--protocol", "ntire")
    assert err == "note: dscf-x4 could not be fetched (offline): using the embedded dsclora-x4\n"
    quiet = dsclora("eval", "--hr", hr, "--offline", "--device", "cpu", "--protocol", "ntire", "-q")
    assert (quiet.out, quiet.err) == (out, "")


def test_an_interruption_reports_the_finished_images(dsclora, hr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = task.Scorer.__call__
    second = np.array(Image.open(hr / "b c.png"))

    def stop_at_the_second(scorer: task.Scorer, result: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        if np.array_equal(truth, second):
            raise KeyboardInterrupt
        return score(scorer, result, truth)

    monkeypatch.setattr(task.Scorer, "__call__", stop_at_the_second)
    code, out, err = dsclora("eval", "--hr", hr, *EMBEDDED)
    assert (code, out) == (130, "")
    assert err == "interrupted: 1 of 2 images are scored and kept; the same command resumes from there\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-s", "4"], 2, "there is nothing to evaluate on (name a set, --dataset Set5, or a folder, --hr DIR)"),
        (["--hr", "small set", "--dataset", "Set5"], 2, "both --dataset and --hr are given"),
        (["--hr", "small set", "-s", "0"], 2, "'--scale'"),
        (["--hr", "small set", "-m", "nonsense"], 2, "no model is called 'nonsense'"),
        (["--hr", "small set", "-m", "dsclora-x4", "-s", "3"], 2, "dsclora-x4 upscales by 4, not by 3"),
        (["--hr", "small set", "--weights", "absent.pth"], 3, "cannot read absent.pth"),
        (["--hr", "small set", *EMBEDDED, "--metric", "lpips"], 2, 'pip install "dsclora[metrics]"'),
        (["--hr", "small set", "--protocol", "y"], 2, "'--protocol'"),
        (["--hr", "small set", "--json", "--csv", "-"], 2, "--json and --csv - would all go to stdout"),
        (["--hr", "small set", *EMBEDDED, "--csv", "no/such/file"], 1, "no/such/file cannot be written"),
        (["--hr", "absent", *EMBEDDED], None, "absent"),
        (["--dataset", "Set6", *EMBEDDED], None, "Set6"),
    ],
)
def test_errors_are_one_line_with_the_next_step(
    dsclora, hr: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int | None, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    ran = dsclora("eval", *arguments)
    assert ran.code == code if code else ran.code in {1, 2}
    assert message in ran.err and "Traceback" not in ran.err
    if "Usage:" not in ran.err:
        assert ran.err.count("\n") == 1


def test_a_wide_table_is_never_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    console.show_table(["a" * 30, "b" * 30], [])
    assert "a" * 30 in capsys.readouterr().out
