"""Run the scripts that make, change and judge pictures for training."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from example_scripts import PHOTO, example, save_corner
from PIL import Image

from dsclora_cli.config import ModelOptions
from dsclora_cli.datasets.benchmarks import pair_folders
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.weights.catalog import EMBEDDED, load_catalog
from dsclora_cli.weights.checkpoint import save_network
from dsclora_cli.weights.resolve import find_weights, open_network


def test_vary_makes_other_pictures_the_same_every_time(tmp_path: Path) -> None:
    small = save_corner(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abcd":
        Image.open(small).save(photos / f"{name}.png")
    results = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        example("research/vary").main([photos], folder)
        results.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert results[0] == results[1]
    assert results[0].keys() == {f"{name}_v.png" for name in "abcd"}
    assert len(set(results[0].values())) == 4


def test_halve_makes_two_sizes_of_large_photographs(tmp_path: Path) -> None:
    photos, halved = tmp_path / "photos", tmp_path / "halved"
    photos.mkdir()
    for name, size in {"large": (1400, 1000), "middle": (500, 400), "small": (380, 500)}.items():
        Image.new("RGB", size, (9, 99, 199)).save(photos / f"{name}.png")
    example("research/halve").main(photos, halved)
    sizes = {path.stem: Image.open(path).size for path in halved.iterdir()}
    assert sizes == {"large_d2": (700, 500), "large_d3": (466, 333), "middle_d2": (250, 200)}


def test_folders_give_their_pictures_and_no_name_twice(tmp_path: Path) -> None:
    tool, small = example("research/folders"), save_corner(tmp_path)
    for name in ("a/1.png", "a/.hidden.png", "b/2.png", "b/notes.txt", "c/1.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(small).save(tmp_path / name, "PNG")
    a, b, c = (tmp_path / name for name in "abc")
    assert tool.pictures_in(a, b) == [a / "1.png", b / "2.png"]
    with pytest.raises(SystemExit, match=r"a/1.png and .*c/1.bmp have one name: rename one of them"):
        example("research/vary").main([a, b, c], tmp_path / "out")
    tool.put_link(tmp_path / "new" / "1.png", a / "1.png")
    tool.put_link(tmp_path / "new" / "1.png", b / "2.png")
    assert (tmp_path / "new" / "1.png").resolve() == (b / "2.png").resolve()
    with pytest.raises(FileExistsError):
        tool.put_link(a / "1.png", b / "2.png")


def test_draw_graphics_draws_every_kind_the_same_way_twice(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    for folder in ("first", "second"):
        example("research/draw_graphics").main(tmp_path / folder, 6, 3, [answers])
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert first == {path.name: path.read_bytes() for path in answers.iterdir()}
    pictures = [np.asarray(Image.open(path)) for path in sorted(answers.iterdir())]
    assert [picture.shape for picture in pictures] == [(480, 480, 3)] * 6
    assert all(picture.min() == 0 and picture.max() == 255 for picture in pictures)  # pure colors in each


def test_cut_graphics_cuts_the_same_pieces_twice_and_leaves_out_what_cannot_be_brought_back(tmp_path: Path) -> None:
    example("research/draw_graphics").main(tmp_path / "drawn", 6, 3, [])
    checks = np.indices((480, 480)).sum(0) % 2 * 255
    Image.fromarray(np.stack([checks.astype(np.uint8)] * 3, -1)).save(tmp_path / "drawn" / "drawn_0006.png")
    answers = tmp_path / "answers"
    answers.mkdir()
    for folder in ("first", "second"):
        example("research/cut_graphics").main(tmp_path / "drawn", tmp_path / folder, 7, [answers])
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert first == {path.name: path.read_bytes() for path in answers.iterdir()}
    assert {Image.open(path).size for path in answers.iterdir()} == {(160, 160)}
    assert "drawnr_0000.png" in first and "drawnr_0006.png" not in first


def test_draw_screens_makes_hr_whose_reduction_comes_near_to_what_was_drawn(tmp_path: Path) -> None:
    module = example("research/draw_screens")
    answers, photos = tmp_path / "answers", tmp_path / "photos"
    for folder in (answers, photos):
        folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 41, 3), np.uint8)).save(photos / "photo.png")
    for folder in ("first", "second"):
        arguments = [tmp_path / folder, tmp_path / f"{folder} lr", "--pair", photos, "--links", answers]
        module.main(
            module.options_of([*map(str, arguments), *["--model", "dsclora-x2", "--count", "2", "--seed", "3"]])
        )
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert sorted(first) == ["photo.png", "screen3_0000.png", "screen3_0001.png"]
    assert {path.name for path in answers.iterdir()} == {"screen3_0000.png", "screen3_0001.png"}
    pairs = pair_folders(tmp_path / "first", tmp_path / "first lr", 2)
    assert [Image.open(pair.lr).size for pair in pairs] == [(20, 16), (64, 64), (64, 64)]
    for index in (1, 2):
        drawn = module.draw_screen(random.Random(index), index)
        # A model that turns everything into noise: bicubic takes its place.
        for upscale in (lambda lr: lr.repeat(2, 0).repeat(2, 1), lambda lr: 255 - lr.repeat(2, 0).repeat(2, 1)):
            away = np.abs(downscale(module.enlarge(drawn, 2, upscale), 2).astype(int) - drawn)
            assert away.mean() < 8


def test_find_faults_sees_noise_in_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("research/find_faults")
    lr = np.zeros((24, 24, 3), np.uint8)
    large = np.zeros((48, 48, 3), np.uint8)
    assert module.worst_block(lr, large, 2) == 0
    large[16:32, 16:32] = 255
    assert module.worst_block(lr, large, 2) > 200
    module.main(["dsclora-x2"], texts=2, drawn=1)
    row = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert row[0] == "| dsclora-x2" and row[1] == row[3] == "0" and float(row[2]) < 30


@pytest.mark.slow
def test_networks_in_the_package_keep_the_small_text_of_screens(capsys: pytest.CaptureFixture[str]) -> None:
    example("research/find_faults").main(["dsclora-x4", "dsclora-x3", "dsclora-x2", "dsclora-x4-photo"], drawn=1)
    assert [row.split(" | ")[1] for row in capsys.readouterr().out.splitlines()[2:]] == ["0"] * 4


@pytest.mark.slow
def test_the_first_choice_at_x4_keeps_the_small_text_of_screens(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = load_catalog().entry(load_catalog().auto[4][0])
    options = ModelOptions(weights=shared / "weights/team23_DSCF.pth", adapter=EMBEDDED / entry.file)
    save_network(open_network(find_weights(options, None)), tmp_path / "merged.safetensors", "{}")
    example("research/find_faults").main([str(tmp_path / "merged.safetensors")], drawn=1)
    assert capsys.readouterr().out.splitlines()[-1].split(" | ")[1] == "0"


def test_saved_pictures_scores_models_by_the_way_of_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = example("research/saved_pictures")
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    for number, left in enumerate((0, 40)):
        Image.open(PHOTO).convert("RGB").crop((left, 0, left + 200, 104)).save(held_out / f"{number}.png")
    monkeypatch.setattr(tool, "CHAINS", {name: tool.CHAINS[name] for name in ("clean", "JPEG 30", "WebP 50")})
    run = [str(held_out), "dsclora-x4", "dsclora-x4-photo"]

    tool.main([*run, "--camera", str(held_out)])
    header, _, *rows = [line.strip("| \n").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert header == [
        "LR",
        "dsclora-x4, PSNR-Y",
        "dsclora-x4, NIQE",
        "dsclora-x4-photo, PSNR-Y",
        "dsclora-x4-photo, NIQE",
    ]
    scores = {row[0]: [float(cell) for cell in row[1:] if cell.strip()] for row in rows}
    assert list(scores) == ["clean", "JPEG 30", "WebP 50", "as the camera saved"]
    assert scores["clean"][0] > scores["JPEG 30"][0] and scores["JPEG 30"][2] > scores["JPEG 30"][0]

    for format, quality in (("jpeg", 10), ("avif", 40)):
        monkeypatch.setattr(tool, "QUALITIES", (quality, 100))
        tool.main([*run, "--crossover", format])
        out = capsys.readouterr().out
        assert re.search(rf"\| {quality} \| \+\d", out) and out.endswith("\nbelow = 100\n")
    with pytest.raises(SystemExit, match="upscales by 2, not by 4"):
        tool.main([str(held_out), "dsclora-x2"])


@pytest.mark.parametrize("factor", [1.0, 2.0, 2 / 3])
def test_saved_pictures_chains_keep_the_size_and_repeat(factor: float) -> None:
    tool = example("research/saved_pictures")
    lr = np.asarray(Image.open(PHOTO).convert("RGB"))[:37, :50]
    for chain in (*tool.CHAINS.values(), tool.twice(50, 90, factor)):
        saved = chain(lr)
        assert saved.shape == lr.shape and saved.dtype == np.uint8
        assert np.array_equal(saved, chain(lr)) and np.abs(saved.astype(int) - lr).mean() < 20
