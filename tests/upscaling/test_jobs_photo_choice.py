"""`--model auto` uses other weights for heavily compressed JPEGs, and gives the reason."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsclora_cli import Upscaler
from dsclora_cli.config import EngineOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.inference.engine import Engine
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.dry_run import plan_files
from dsclora_cli.upscaling.engines import load_engine
from dsclora_cli.upscaling.types import FileResult
from dsclora_cli.weights import catalog
from dsclora_cli.weights.checkpoint import save_network
from dsclora_cli.weights.resolve import FoundWeights

X2 = UpscaleOptions(size=SizeOptions(scale=2))


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A packaged catalog of two small networks, `plain` and `photo`, with the crossover at 80."""
    text = '[auto]\n2 = ["plain"]\n[photo.2]\nmodel = "photo"\njpeg = 80\n'
    for seed, name in enumerate(("plain", "photo")):
        torch.manual_seed(seed)
        path = tmp_path / f"{name}.safetensors"
        save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=2)), path, "test")
        text += (
            f"[weights.{name}]\narch = \"span\"\nscale = 2\nchannels = 4\nfile = '{path}'\n"
            f'size = {path.stat().st_size}\nsha256 = "{sha256_of(path)}"\nlicence = "MIT"\nsource = "me"\n'
        )
    file = tmp_path / "weights.toml"
    file.write_text(text)
    monkeypatch.setattr(catalog, "packaged_file", lambda: file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8))
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "a-low.jpg", quality=50)
    picture.save(tmp_path / "in" / "b-high.jpg", quality=95)
    picture.save(tmp_path / "in" / "c-edge.jpg", quality=80)
    picture.save(tmp_path / "in" / "d-plain.png")
    return tmp_path / "in"


def _run(folder: Path, options: UpscaleOptions = X2) -> list[FileResult]:
    options = replace(options, batch=replace(options.batch, output=str(folder.parent / "out")))
    return sorted(upscale_files([str(folder)], options), key=lambda result: result.input)


def _count_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a name whenever an engine is opened for weights."""
    opened: list[str] = []

    def counted(weights: FoundWeights, device: str, options: EngineOptions) -> Engine:
        opened.append(weights.name)
        return load_engine(weights, device, options)

    monkeypatch.setattr("dsclora_cli.upscaling.picture.load_engine", counted)
    return opened


def test_each_picture_gets_its_weights_and_a_reason(rules: Path, folder: Path) -> None:
    results = _run(folder)

    assert [(result.status, result.model) for result in results] == [
        ("done", "photo"), ("done", "plain"), ("done", "plain"), ("done", "plain"),
    ]  # fmt: skip
    assert [result.choice for result in results] == [
        "a JPEG of quality 50, below 80",
        "a JPEG of quality 95, not below 80",
        "a JPEG of quality 80, not below 80",
        "no JPEG, lossy WebP or lossy AVIF of known quality",
    ]
    assert {result.weights_sha256 for result in results[1:]} != {results[0].weights_sha256}


def test_auto_gives_the_pixels_of_the_chosen_weights(rules: Path, folder: Path) -> None:
    chosen = _run(folder)
    for name, file in (("photo", "a-low"), ("plain", "b-high")):
        asked = replace(X2, model=ModelOptions(name))
        (folder.parent / name).mkdir()
        results = list(
            upscale_files(
                [str(folder / f"{file}.jpg")],
                replace(asked, batch=replace(asked.batch, output=str(folder.parent / name))),
            )
        )
        assert (results[0].model, results[0].choice) == (name, None)
        mine = next(result for result in chosen if file in result.input)
        assert Path(mine.output or "").read_bytes() == Path(results[0].output or "").read_bytes()


def test_a_folder_with_both_kinds_opens_each_network_once(
    rules: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _count_opened(monkeypatch)
    Image.open(folder / "a-low.jpg").save(folder / "e-lower.jpg", quality=20)
    _run(folder)

    assert sorted(opened) == ["photo", "plain"]
    opened.clear()
    Upscaler(options=X2)(folder / "a-low.jpg", folder / "alone.jpg")
    assert opened == ["photo"]


def test_an_unavailable_photo_network_is_replaced_with_a_note_and_loaded_once(
    rules: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, remote = '"photo.safetensors"', 'file = "photo.safetensors"\nrepo = "me/mine"'
    rules.write_text(rules.read_text().replace(f"file = '{folder.parent / 'photo.safetensors'}'", remote))
    assert photo in rules.read_text()
    opened = _count_opened(monkeypatch)
    results = _run(folder, replace(X2, model=ModelOptions(offline=True)))

    assert [result.model for result in results] == ["plain"] * 4
    assert results[0].warnings == ("photo could not be fetched (offline): using the embedded plain",)
    assert opened == ["plain"]


def test_a_dry_run_reports_the_same_choice(rules: Path, folder: Path) -> None:
    plans = sorted(plan_files([str(folder)], X2), key=lambda plan: plan.input)

    assert [plan.model for plan in plans] == ["photo", "plain", "plain", "plain"]
    assert plans[0].choice == "a JPEG of quality 50, below 80"
    assert all(plan.seconds is not None for plan in plans)


def test_finished_pictures_stay_finished_until_the_rule_changes(rules: Path, folder: Path) -> None:
    _run(folder)
    assert [result.status for result in _run(folder)] == ["skipped"] * 4
    rules.write_text(rules.read_text().replace("jpeg = 80", "jpeg = 97"))
    again = _run(folder)

    assert [result.status for result in again] == ["skipped", "kept", "kept", "skipped"]


def test_only_the_first_pass_uses_photo_weights(rules: Path, folder: Path) -> None:
    results = _run(folder, UpscaleOptions(size=SizeOptions(scale=4)))

    assert [result.model for result in results] == ["photo+plain", "plain", "plain", "plain"]


def test_without_photo_weights_of_that_scale_the_reason_says_so(rules: Path, folder: Path) -> None:
    text = rules.read_text().replace("[photo.2]", "[photo.3]").replace('model = "photo"', 'model = "large"')
    rules.write_text(text + rules.read_text()[rules.read_text().index("[weights.photo]") :].replace("photo]", "large]"
        ).replace("scale = 2", "scale = 3"))  # fmt: skip
    result = _run(folder)[0]

    assert result.model == "plain"
    assert result.choice == "a JPEG of quality 50, but no model for photographs upscales by 2"


@pytest.mark.parametrize(
    ("suffix", "size", "saved", "low", "high"),
    [
        (
            "webp",
            (64, 48),
            ({"quality": 50}, {"quality": 95}, {"lossless": True}),
            r"a WebP of quality (4[5-9]|5\d)",
            r"9\d",
        ),
        (
            "avif",
            (16, 12),
            ({"quality": 50}, {"quality": 90}, {"quality": 100}),
            r"an AVIF of quality (49|50|51)",
            r"(89|90|91)",
        ),
    ],
)
def test_other_lossy_formats_get_the_photo_network_below_a_quality_of_their_own(
    suffix: str,
    size: tuple[int, int],
    saved: tuple[dict[str, int], ...],
    low: str,
    high: str,
    rules: Path,
    tmp_path: Path,
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    (tmp_path / "in").mkdir()
    for name, settings in zip("abc", saved, strict=True):
        picture.save(tmp_path / "in" / f"{name}.{suffix}", **settings)
    without = _run(tmp_path / "in")
    assert [result.model for result in without] == ["plain"] * 3
    assert "but no quality is measured for the model for photographs" in str(without[0].choice)
    rules.write_text(rules.read_text().replace("jpeg = 80", f"jpeg = 80\n{suffix} = 70"))
    results = _run(tmp_path / "in", replace(X2, batch=replace(X2.batch, overwrite=True)))

    assert [result.model for result in results] == ["photo", "plain", "plain"]
    assert re.fullmatch(f"{low}, below 70", str(results[0].choice))
    assert re.fullmatch(rf"an? \w+ of quality {high}, not below 70", str(results[1].choice))
    assert results[2].choice == "no JPEG, lossy WebP or lossy AVIF of known quality"
    assert [plan.model for plan in plan_files([str(tmp_path / "in")], X2)] == ["photo", "plain", "plain"]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ('model = "photo"', r"\[photo\.2\] jpeg: missing"),
        ("jpeg = 80", r"\[photo\.2\] model: missing"),
        ("jpeg = 80\nmodel = 7", r"\[photo\.2\] model: 7 is not text"),
        ('jpeg = 102\nmodel = "photo"', r"\[photo\.2\] jpeg: 102\.0 is not a quality, 0 to 101"),
        ('jpeg = 80\nwebp = -1\nmodel = "photo"', r"\[photo\.2\] webp: -1\.0 is not a quality, 0 to 101"),
        ('jpeg = 80\navif = 102\nmodel = "photo"', r"\[photo\.2\] avif: 102\.0 is not a quality, 0 to 101"),
        ('jpeg = 80\nmodel = "nobody"', r"\[photo\.2\] model: 'nobody' is not the name of weights of scale 2"),
        ('jpeg = 80\nmodel = "photo"\nheif = 3', r"\[photo\.2\] heif: unknown key"),
        ('jpeg = 80\nmodel = "photo"\n[photo.most]', r"\[photo\] most: 'most' is not a native scale"),
    ],
)
def test_a_bad_rule_in_the_catalog_is_reported(rules: Path, folder: Path, rule: str, problem: str) -> None:
    rules.write_text(rules.read_text().replace('model = "photo"\njpeg = 80', rule))
    with pytest.raises(UsageError, match=problem):
        _run(folder)
