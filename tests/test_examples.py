"""The examples run, through the public API, and make what they say."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from example_scripts import EXAMPLES, PHOTO, example, save_corner
from PIL import Image, ImageFilter

from dsclora_cli.models.lora import Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.network import interpolate
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import build_adapters, load_adapters, save_adapters
from dsclora_cli.weights.catalog import EMBEDDED
from dsclora_cli.weights.checkpoint import load_network, save_network


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save_corner(tmp_path)


def test_every_example_is_run_here() -> None:
    names = {path.relative_to(EXAMPLES).with_suffix("").as_posix() for path in EXAMPLES.rglob("*.py")}
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_examples*.py"))
    assert {name for name in names if f'example("{name}")' not in tests} == set()


def test_before_after_puts_both_enlargements_side_by_side(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "both.png"
    example("before_after").main([str(small), str(target), "--box", "4,4,20,24"])
    both = Image.open(target)
    assert both.size == (2 * 64 + 8, 80)
    before, after = (np.asarray(both.crop(box), float) for box in ((0, 0, 64, 80), (72, 0, 136, 80)))
    assert np.abs(np.diff(after, axis=1)).mean() > np.abs(np.diff(before, axis=1)).mean()


def test_before_after_shows_the_photo_network_with_each_sharpness(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "sharp.png"
    example("before_after").main([str(small), str(target), "--sharp", "0", "0.5", "1"])
    sheet, width = np.asarray(Image.open(target), float), 4 * Image.open(small).width
    assert sheet.shape[1] == 3 * width + 2 * 8
    panels = [sheet[:, index * (width + 8) : index * (width + 8) + width] for index in range(3)]
    detail = [np.abs(np.diff(panel, axis=1)).mean() for panel in panels]
    assert detail == sorted(detail) and detail[2] > 1.1 * detail[0]


def test_upscale_in_python_writes_two_pictures(small: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    example("upscale_in_python").main([str(small), str(results)])
    sizes = {path.name: Image.open(path).size for path in results.iterdir()}
    assert sizes == {"photo_x4.png": (200, 200), "small_600x600.jpg": (600, 600)}


@pytest.mark.slow
def test_make_photo_renders_the_example_photograph(tmp_path: Path) -> None:
    example("make_photo").main([str(tmp_path / "photo.png")])
    shipped, made = (np.asarray(Image.open(path), int) for path in (PHOTO, tmp_path / "photo.png"))
    assert made.shape == (160, 240, 3) and np.abs(made - shipped).mean() < 0.5
    assert PHOTO.stat().st_size < 100_000


@pytest.mark.slow
def test_train_sharp_trains_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = example("research/train_sharp")
    photo = Image.open(PHOTO).convert("RGB").resize((480, 320), Image.Resampling.BICUBIC)
    for folder, name, left in (("hr", "a", 0), ("hr", "b", 100), ("val", "c", 200)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "sharp").mkdir(exist_ok=True)
        piece = photo.crop((left, 0, left + 240, 240))
        piece.save(tmp_path / folder / f"{name}.png")
        piece.filter(ImageFilter.UnsharpMask(1, 100)).save(tmp_path / "sharp" / f"{name}.png")
    recipe = (EXAMPLES / "recipes" / "dsclora-x4-sharp.toml").read_text()
    for old, new in (
        ("= 500", '= 2\ncompile = "off"'),
        ('amp = "bfloat16"', 'amp = "off"'),
        ("batch = 8", "batch = 2"),
    ):
        recipe = recipe.replace(old, new)
    (tmp_path / "recipe.toml").write_text(recipe)
    monkeypatch.setattr(tool, "PARTS", [tool.Part(end, 1.0, 1.0, 0.01, 1e-4) for end in (2, 4)])
    monkeypatch.setattr(tool, "_RAMP", (0, 1))

    def train(out: str, *more: str) -> Path:
        folders = ("--data", tmp_path / "hr", "--val", tmp_path / "val", "--teacher-images", tmp_path / "sharp")
        arguments = ("--config", tmp_path / "recipe.toml", *folders, "--out", tmp_path / out, *more)
        tool.main([str(each) for each in arguments])
        return tmp_path / out

    def score_and_stop(run: Any, *arguments: object) -> None:
        score(run, *arguments)
        raise KeyboardInterrupt

    whole, score = train("whole"), tool.Run._score
    monkeypatch.setattr(tool.Run, "_score", score_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train("resumed")
    monkeypatch.setattr(tool.Run, "_score", score)
    resumed = train("resumed", "--resume")

    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for kind in ("", "_jpeg"):
        assert all(line[f"niqe{kind}"] > 0 and 15 < line[f"psnr_y{kind}"] < 60 for line in lines)
    assert set(lines[0]["terms"]) == {"l1", "discriminator", "adversarial", "matching"}
    assert {path.name for path in whole.glob("*.png")} == {"result-000002.png", "result-000004.png"}
    first, second = (load_network(folder / "last.safetensors").state_dict() for folder in (whole, resumed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    start = load_network(EMBEDDED / "dsclora-x4-photo.safetensors").state_dict()
    assert not torch.equal(first["conv_1.eval_conv.weight"], start["conv_1.eval_conv.weight"])


@pytest.mark.slow
def test_keep_flat_mends_flat_colors_and_keeps_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = example("research/keep_flat")
    photo = Image.open(PHOTO).convert("RGB")
    (tmp_path / "hr").mkdir()
    for name, left in (("a", 0), ("b", 100)):
        photo.crop((left, 0, left + 120, 120)).save(tmp_path / "hr" / f"{name}.png")
    recipe = (EXAMPLES / "recipes" / "dsclora-x4-sharp.toml").read_text()
    recipe = recipe.replace("patch = 32", "patch = 16").replace("batch = 8", "batch = 2").replace("0.999", "0.5")
    (tmp_path / "recipe.toml").write_text(recipe)
    network = load_network(EMBEDDED / "dsclora-x4-photo.safetensors")
    with torch.no_grad():
        network.state_dict()["upsampler.0.bias"] += 0.02 * torch.rand(48, generator=torch.Generator().manual_seed(0))
    save_network(network, tmp_path / "patterned.safetensors", "{}")

    files = [str(tmp_path / name) for name in ("patterned.safetensors", "flat.safetensors")]
    where = ["--config", str(tmp_path / "recipe.toml"), "--data", str(tmp_path / "hr")]
    tool.main([*files, *where, "--steps", "60", "--rate", "0.005", "--weight", "3"])
    before, *_, after = (line for line in capsys.readouterr().out.splitlines() if ": pattern" in line)
    levels = [float(line.split()[2]) for line in (before, after)]
    assert levels[0] > 4 > 2 * levels[1]
    assert load_network(tmp_path / "flat.safetensors").config == network.config


def test_the_loss_of_the_example_method_equals_independent_code() -> None:
    maps = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = np.array([[np.mean(m[:, y, x] ** 2) for y in range(4) for x in range(6)] for m in maps.numpy()])
    expected /= np.sqrt((expected**2).sum(1, keepdims=True))
    attention = example("method_plugin/dsclora_attention").attention(maps)
    assert np.allclose(attention.numpy(), expected, atol=1e-6)


@pytest.mark.slow
def test_compare_distillation_writes_a_table_of_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    for folder, corners in (("photos", range(0, 80, 20)), ("held-out", (100,))):
        (tmp_path / folder).mkdir()
        for left in corners:
            photo.crop((left, 0, left + 48, 40)).save(tmp_path / folder / f"{left}.png")
    for name in ("Set5", "Set14", "BSD100"):
        (tmp_path / "sets" / name / "HR").mkdir(parents=True)
        photo.crop((0, 60, 48, 100)).save(tmp_path / "sets" / name / "HR" / "a.png")
    tool = example("research/compare_distillation")
    shape = tool.NetworkOptions("edsr", 4, 4, 1)
    monkeypatch.setattr(tool, "SHAPES", {"edsr": (shape, shape)})
    places = ["--data", "photos", "--val", "held-out", "--benchmarks", "sets", "--out", "runs", "--page", "table.md"]
    quick = ["--teacher-steps", "2", "--steps", "2", "--validate", "1", "--batch", "2", "--patch", "8", "--seeds", "1"]
    here = ["--threads", "1", "--device", "cpu", "--compile", "off", "--advantage", "-99"]
    monkeypatch.chdir(tmp_path)
    both = [*places, *quick, "2", *here]

    tool.main(both)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in Path("table.md").read_text().splitlines()]
    assert rows[0][-2:] == ["over fd, held-out", "over fd, all images of the sets"]
    assert [row[0] for row in rows[2:]] == ["teacher", "none", "logits", "fd", "fakd", "facd-l1", "facd-l2"]
    assert [" to " in row[-1] for row in rows[2:]] == [False, True, True, False, True, True, True]
    assert Path("table.png").stat().st_size > 1000
    assert len(list(Path("runs").iterdir())) == 1 + 6 * 2
    before = Path("table.md").read_text()
    with monkeypatch.context() as still:
        still.setattr(tool, "distill", None)  # finished runs are not trained again
        tool.main(both)
        assert Path("table.md").read_text() == before
        for recipe in Path("runs").glob("*/recipe.toml"):  # as an earlier version wrote
            recipe.write_text(recipe.read_text().replace('amp = "off"', 'amp = "auto"'))
        tool.main([*both, "--methods", "none", "fd"])
        assert Path("table.md").read_text().splitlines() == before.splitlines()[:4] + before.splitlines()[5:6]
    # A comparison that was cut short: the table has what is finished.
    shutil.rmtree("runs/x4-edsr-facd-l2-1")
    shutil.rmtree("runs/x4-edsr-facd-l2-2")
    shutil.rmtree("runs/x4-edsr-fakd-2")
    tool.main([*both, "--finished"])
    text = Path("table.md").read_text()
    assert "| fakd |" in text and "(one seed)" in text and "facd-l2" not in text
    tool.main([*both, "--finished", "--held-out-only", "--baseline", "logits"])
    text = Path("table.md").read_text()
    assert text.startswith("|  | held-out | hours | over logits, held-out |\n") and "(one seed)" in text
    # Weights of a loss: a row and a folder for each, in the order of the methods.
    tool.main([*both, "--methods", "fd", "facd-infonce:0.1", "facd-infonce", "none", "--held-out-only"])
    rows = [line.split("|")[1].strip() for line in Path("table.md").read_text().splitlines()[3:]]
    assert rows == ["none", "fd", "facd-infonce:0.1", "facd-infonce"]
    weights = [
        tomllib.loads(Path(f"runs/x4-edsr-facd-infonce{each}-1/recipe.toml").read_text())["distill"].get(
            "feature_weight"
        )
        for each in ("", "-w0.1")
    ]
    assert weights == [None, 0.1]
    with pytest.raises(SystemExit):
        tool.main([*both, "--methods", "facd:low"])
    other = ["--patch", "6", "--teacher", "runs/x4-edsr-teacher", "--held-out-only"]
    with pytest.raises(SystemExit, match="x4-edsr-none-1 is a run with other patch: give another --out"):
        tool.main([*both, *other])
    tool.main([*both, *other, "--out", "smaller", "--methods", "none", "fd", "--seeds", "1"])
    assert {path.name for path in Path("smaller").iterdir()} == {"x4-edsr-none-1", "x4-edsr-fd-1"}
    with pytest.raises(SystemExit, match="raise --teacher-steps"):
        tool.main([*both[:-1], "99"])
    with pytest.raises(SystemExit, match="holds no finished run of --scale 2"):
        tool.main([*both, "--finished", "--scale", "2"])


@pytest.mark.slow
def test_compare_adapters_writes_a_table_of_gains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for name, channels in (("base", 4), ("wide", 6)):
        save_network(SPAN(SpanConfig(channels=channels, blocks=4)), tmp_path / f"{name}.safetensors", training="{}")
    photo = Image.open(PHOTO).convert("RGB")
    for folder, corners in (("photos", range(0, 80, 20)), ("held-out", (100,)), ("answers", range(0, 80, 20))):
        (tmp_path / folder).mkdir()
        for left in corners:
            photo.crop((left, 0, left + 64, 64)).save(tmp_path / folder / f"{left}.png")
    for name in ("Set5", "Set14", "BSD100"):
        (tmp_path / "sets" / name / "HR").mkdir(parents=True)
        photo.crop((0, 60, 48, 100)).save(tmp_path / "sets" / name / "HR" / "a.png")
    monkeypatch.chdir(tmp_path)
    tool = example("research/compare_adapters")
    monkeypatch.setattr(tool, "SECOND_PATCH", 12)
    config = tool.RECIPE.read_text().replace("patch = 48", "patch = 8")
    Path("quick.toml").write_text(config)
    places = ["--base", "base.safetensors", "--data", "photos", "--val", "held-out", "--benchmarks", "sets"]
    chosen = ["--teachers", "base", "wide.safetensors", "--pictures", "answers", "--ranks", "paper", "2"]
    chosen += ["--taps", "figure", "none", "--positions", "16"]
    quick = ["--config", "quick.toml", "--steps", "2", "--second-stage", "1", "--validate", "1", "--seeds", "1", "2"]
    here = ["--threads", "1", "--device", "cpu", "--compile", "off", "--out", "runs", "--page", "table.md"]

    tool.main([*places, *chosen, *quick, *here])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in Path("table.md").read_text().splitlines()]
    taught = [f"{teacher} {taps} paper" for teacher in ("base", "wide", "pictures") for taps in ("figure", "none")]
    stages = [f"{each}{stage}" for each in (*taught, "base figure 2") for stage in ("", " second")]
    assert [row[0] for row in rows[2:]] == stages
    assert rows[0][-2:] == ["over base none paper, held-out", "over base none paper, all images of the sets"]
    compared = [cell for row in rows[2:] for cell in row[1:] if row[0] != "base none paper" or cell]
    assert all(" to " in cell for cell in compared) and len(compared) == 14 * 7 - 2
    second = tomllib.loads(Path("runs/pictures-figure-paper-2-second/recipe.toml").read_text())
    assert second["data"]["patch"] == 12 and "pictures-figure-paper-2/" in second["distill"]["init_adapter"]
    assert second["distill"]["teacher_images"] == "answers" and second["run"]["seed"] == 2
    assert second["distill"]["positions"] == 16
    assert tomllib.loads(Path("runs/base-none-paper-1/recipe.toml").read_text())["distill"]["ad"] == 0
    before = Path("table.md").read_text()
    monkeypatch.setattr(tool, "distill", None)  # finished runs are not trained again
    tool.main([*places, *chosen, *quick, *here])
    assert Path("table.md").read_text() == before
    tool.main([*places, *chosen, *quick, *here, "--held-out-only"])
    shorter = [line.split("|")[:3] for line in before.splitlines()]
    assert [line.split("|")[:3] for line in Path("table.md").read_text().splitlines()] == shorter


def test_the_difference_of_two_methods_has_the_interval_of_students_t() -> None:
    tool = example("research/compare_distillation")
    own, other = {1: 30.3, 2: 30.1, 3: 30.5, 4: 99.0}, {1: 30.0, 2: 30.0, 3: 30.0}
    mean, half = tool.difference(own, other)
    assert mean == pytest.approx(0.3) and half == pytest.approx(4.303 * 0.2 / 3**0.5)
    assert tool.difference_text(own, other) == "+0.300 (-0.197 to +0.797)"
    assert tool.difference_text({1: 30.29, 2: 30.3, 3: 30.31}, other) == "**+0.300 (+0.275 to +0.325)**"
    assert tool.difference_text({3: 30.0}, other) == "+0.000 (one seed)"
    assert tool.difference({5: 30.0}, other) is None


def test_make_pages_renders_pages_of_text(tmp_path: Path) -> None:
    example("make_pages").main([str(tmp_path / "pages"), "2", "1"])
    first, second = (Image.open(tmp_path / "pages" / name) for name in ("000.png", "001.png"))
    assert first.size == second.size == (384, 384)
    assert first.tobytes() != second.tobytes() and np.asarray(first).std() > 30


def test_mix_weights_writes_a_mixture_of_two_networks(tmp_path: Path) -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = SPAN(SpanConfig(channels=4, blocks=1, scale=2))
        save_network(network, tmp_path / f"{seed}.safetensors", training="{}")
        states.append(network.state_dict())
    example("research/mix_weights").main(*(tmp_path / f"{seed}.safetensors" for seed in (1, 2)), 0.25, tmp_path / "out")
    mixed = load_network(tmp_path / "out").state_dict()
    for name, value in mixed.items():
        assert torch.allclose(value, 0.75 * states[0][name] + 0.25 * states[1][name], atol=1e-6)


def test_mix_weights_writes_a_mixture_of_two_adapters_of_one_base(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2))
    states = []
    for name, base in (("first", "a" * 64), ("second", "a" * 64), ("foreign", "b" * 64)):
        adapters = Adapters(network, parse_ranks(network, "small"))
        for parameter in adapters.parameters():
            torch.nn.init.normal_(parameter)
        save_adapters(adapters, tmp_path / name, base, "{}")
        states.append(adapters.state_dict())
    mix = example("research/mix_weights").main
    mix(tmp_path / "first", tmp_path / "second", 0.25, tmp_path / "out")
    mixed = load_adapters(tmp_path / "out")
    assert mixed.base_sha256 == "a" * 64
    for name, value in mixed.tensors.items():
        assert torch.allclose(value, 0.75 * states[0][name] + 0.25 * states[1][name], atol=1e-6)
    with pytest.raises(SystemExit, match="other bases"):
        mix(tmp_path / "first", tmp_path / "foreign", 0.25, tmp_path / "out")


def test_strength_measures_and_writes_a_share_of_an_adapter(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2)).eval()
    adapters = Adapters(network, parse_ranks(network, "small"))
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    base, run, weaker, photos = (tmp_path / name for name in ("base.safetensors", "run", "weaker", "photos"))
    save_network(network, base, "")
    for folder in (run, photos):
        folder.mkdir()
    save_adapters(adapters, run / "adapter.safetensors", sha256_of(base), "{}")
    (run / "log.jsonl").write_text("{}\n")
    Image.open(small).save(photos / "a.png")
    Image.open(PHOTO).crop((0, 0, 40, 30)).save(photos / "b.png")

    tool = example("research/strength")
    tool.main([str(base), str(run), "--write", "0.3", str(weaker)])
    assert (weaker / "log.jsonl").read_text() == "{}\n"
    written = load_adapters(weaker / "adapter.safetensors")
    part = merge_adapters(network, build_adapters(load_network(base), sha256_of(base), written)).state_dict()
    expected = interpolate(network, merge_adapters(network, adapters), 0.3).state_dict()
    assert all(torch.allclose(part[name], tensor, atol=1e-6) for name, tensor in expected.items())

    tool.main([str(base), str(run), str(photos)])
    tool.main([str(base), str(weaker), str(photos)])
    gains = [float(gain) for gain in re.findall(r"([+-]\d+\.\d+) dB, ", capsys.readouterr().out)]
    assert len(gains) == 2 * len(tool.STRENGTHS)
    assert gains[1] == pytest.approx(gains[7], abs=2e-4)  # 0.3 of the adapter, the whole of the weaker one


def test_embed_writes_weights_log_golden_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = example("research/embed")
    run, package = tmp_path / "run", tmp_path / "embedded"
    for folder in (run, package, tmp_path / "docs" / "training", tmp_path / "tests" / "golden"):
        folder.mkdir(parents=True)
    (tmp_path / "weights.toml").write_text((EXAMPLES.parent / "weights.toml").read_text(encoding="utf-8"))
    (tmp_path / "examples").mkdir()
    shutil.copy(PHOTO, tmp_path / "examples")
    (run / "best.safetensors").write_bytes(b"new weights")
    line = {"step": 5, "loss": 0.12345678, "terms": {"rec": 0.1}, "psnr_y": 30.123456, "rate": 0.001, "seconds": 9.7}
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")
    scored = [SimpleNamespace(name=name, rows=[SimpleNamespace(mean={"psnr_y": 31.5, "ssim_y": 0.9})])
              for name in ("Set5", "Set14", "BSD100")]  # fmt: skip
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "CATALOG", tmp_path / "weights.toml")
    monkeypatch.setattr(tool, "EMBEDDED", package)
    monkeypatch.setattr(tool, "evaluate", lambda _: SimpleNamespace(sets=scored))
    monkeypatch.setattr(sys, "argv", ["embed.py", "dsclora-x4", str(run)])

    tool.main()
    assert (package / "dsclora-x4.safetensors").read_bytes() == b"new weights"
    entry = tomllib.loads((tmp_path / "weights.toml").read_text(encoding="utf-8"))["weights"]["dsclora-x4"]
    assert (entry["size"], entry["sha256"]) == (11, sha256_of(run / "best.safetensors"))
    assert entry["reference"]["BSD100"] == {"psnr_y": 31.5, "ssim_y": 0.9}
    logged = json.loads((tmp_path / "docs" / "training" / "dsclora-x4.jsonl").read_text())
    assert (logged["part"], logged["psnr_y"], logged["loss"]) == (1, 30.1235, 0.123457)
    golden = np.load(tmp_path / "tests" / "golden" / "dsclora-x4.npz")
    assert (golden["lr"].shape, golden["sr"].shape) == ((10, 16, 3), (40, 64, 3))
    (run / "last.safetensors").write_bytes(b"the last weights")
    monkeypatch.setattr(sys, "argv", ["embed.py", "dsclora-x4", str(run), "--last"])
    tool.main()
    assert (package / "dsclora-x4.safetensors").read_bytes() == b"the last weights"


class EnlargingNcnn:
    """The part of ncnn that the script uses; the network looks one pixel around and repeats each pixel."""

    class Net:
        def __init__(self) -> None:
            self.opt = SimpleNamespace()
            self.given: dict[str, np.ndarray] = {}

        def load_param(self, path: str) -> int:
            return 0 if Path(path).is_file() else -1

        load_model = load_param

        def create_extractor(self) -> EnlargingNcnn.Net:
            return self

        def input(self, name: str, picture: EnlargingNcnn.Mat) -> int:
            assert picture.is_copy and picture.values.dtype == np.float32
            self.given[name] = picture.values
            return 0 if name == "data" else -1

        def extract(self, name: str) -> tuple[int, np.ndarray]:
            padded = np.pad(self.given["data"], ((0, 0), (1, 1), (1, 1)), mode="edge")
            mean = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4
            return 0, mean.repeat(2, axis=1).repeat(2, axis=2)

    class Mat:
        def __init__(self, values: np.ndarray, is_copy: bool = False) -> None:
            self.values, self.is_copy = values, is_copy

        def clone(self) -> EnlargingNcnn.Mat:
            return EnlargingNcnn.Mat(self.values.copy(), is_copy=True)


def test_label_ncnn_writes_the_same_pictures_by_tiles_and_resumes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", EnlargingNcnn)  # type: ignore[arg-type]
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        Image.open(small).crop((0, 0, 45, 41 + number)).save(photos / f"{number}.png")
    (tmp_path / "teacher.param").touch()
    tool = example("research/label_ncnn")
    line = [str(tmp_path / "teacher.param"), str(photos)]
    with pytest.raises(SystemExit, match=r"teacher\.param and teacher\.bin cannot be loaded"):
        tool.main([*line, str(tmp_path / "none")])
    (tmp_path / "teacher.bin").touch()
    tool.main([*line, str(tmp_path / "whole"), "--scale", "2"])
    tool.main([*line, str(tmp_path / "tiled"), "--scale", "2", "--tile", "7", "--overlap", "1"])
    whole, tiled = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "tiled")
    )
    assert whole == tiled and sorted(whole) == ["0.png", "1.png"]
    assert [Image.open(tmp_path / "whole" / name).size for name in sorted(whole)] == [(44, 40), (44, 42)]
    capsys.readouterr()
    (tmp_path / "whole" / "1.png").unlink()
    tool.main([*line, str(tmp_path / "whole"), "--scale", "2"])
    assert re.fullmatch(r"2 of 2: 1\.png, \d+\.\d s of CPU for a megapixel of LR\n", capsys.readouterr().out)
    with pytest.raises(SystemExit, match="no input 'image'"):
        tool.main([*line, str(tmp_path / "none"), "--blobs", "image", "output"])


@pytest.mark.slow
def test_gpu_training_trains_by_the_clock_and_resumes(tmp_path: Path) -> None:
    photographs, run = tmp_path / "photographs", tmp_path / "run"
    photographs.mkdir()
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize((576, 520)).save(photographs / "large.png")
    arguments = ["--data", photographs, "--val", photographs, "--out", run, "--batch", 8, "--patch", 16, "--resume"]
    line = [str(argument) for argument in (*arguments, "--device", "cpu", "--no-compile")]
    train = example("research/gpu_training").main
    train([*line, "--minutes", "0.02"])
    train([*line, "--minutes", "0.04"])
    with pytest.raises(SystemExit, match="holds a run: add --resume"):
        train([*line[: line.index("--resume")], *line[line.index("--resume") + 1 :]])
    first, second = (json.loads(text) for text in (run / "log.jsonl").read_text().splitlines())
    assert 1.2 <= first["seconds"] < second["seconds"] and first["step"] < second["step"]
    assert load_network(run / "best.safetensors").config == SpanConfig(channels=26, blocks=6, scale=4)
    assert max(first["psnr_y"], second["psnr_y"]) > 20


def test_gpu_training_writes_weights_of_pytorch_where_safetensors_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = example("research/gpu_training")
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=4)).eval()
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    tool.save_weights(network, tmp_path, "a test")
    assert [path.name for path in tmp_path.iterdir()] == ["best.pth"]
    loaded = load_network(tmp_path / "best.pth").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in network.state_dict().items())
