"""Networks that the library spandrel opens: results, tiles, and files that are refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import refused
from PIL import Image

from dsclora_cli.cli.app import main
from dsclora_cli.errors import WeightsError
from dsclora_cli.models.spandrel_network import measure_tiles
from dsclora_cli.paths import engines_dir
from dsclora_cli.weights.checkpoint import describe_file, load_network

SWIN = {"img_size": 16, "num_heads": [2], "window_size": 8, "upscale": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "ESRGAN": {"in_nc": 3, "out_nc": 3, "num_filters": 8, "num_blocks": 1, "scale": 2},
    "SwinIR": {**SWIN, "embed_dim": 12, "depths": [2], "mlp_ratio": 2.0, "upsampler": "pixelshuffledirect"},
    "PLKSR": {"dim": 8, "n_blocks": 2, "upscaling_factor": 2},
    "SAFMN": {"dim": 8, "n_blocks": 1, "upscaling_factor": 2},
    "DITN": {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "UFONE_blocks": 1, "upscale": 2, "patch_size": 8},
    "NAFNet": {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "DAT": {**SWIN, "embed_dim": 16, "depth": [2], "split_size": [4, 8], "expansion_factor": 2.0},
}
"""Small networks of spandrel's classes; `SWIN` has `window_size`, which DAT does not know."""

EXACT = {"ESRGAN", "SwinIR", "PLKSR", "SAFMN", "DITN"}
"""Networks without means over the whole picture: on the right grid, tiles equal the whole."""

GRIDS = {"SwinIR": 8, "DITN": 8}
"""Windows of attention: tiles begin at multiples."""


def save(name: str, path: Path) -> None:
    """Write random weights that no layer begins with zeros in, as some do."""
    sizes = {key: value for key, value in NETWORKS[name].items() if name != "DAT" or key != "window_size"}
    torch.manual_seed(0)
    network = getattr(import_module(f"spandrel.architectures.{name}"), name)(**sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    torch.save({"params_ema": network.state_dict()}, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photo.png`, 75x58, in the current folder."""
    monkeypatch.chdir(tmp_path)
    corners = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(corners).resize((75, 58), Image.Resampling.BICUBIC).save("photo.png")
    return tmp_path


def upscaled(tile: int) -> np.ndarray:
    size = ["--engine", "torch", "--device", "cpu", "--tile", str(tile), "-o", f"{tile}.png", "--overwrite"]
    scale = describe_file(Path("net.pth")).scale
    assert main(["upscale", "photo.png", "--weights", "net.pth", "-s", str(scale), *size]) == 0
    return np.asarray(Image.open(f"{tile}.png")).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_result_is_spandrels_and_tiles_equal_the_whole_or_say_so(
    spandrel: Any, folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    save(name, Path("net.pth"))
    facts = describe_file(Path("net.pth"))
    assert (facts.arch, facts.exact_tiles) == (name.lower(), name in EXACT)
    assert facts.multiple % GRIDS.get(name, 1) == 0
    whole = upscaled(0)
    model = spandrel.ModelLoader().load_from_file("net.pth").eval()
    assert facts.supports_half == model.supports_half
    x = torch.from_numpy(np.array(Image.open("photo.png"))).permute(2, 0, 1)[None] / 255
    expected = (model(x)[0].permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(whole - expected).max() <= 1
    capsys.readouterr()
    tiles = upscaled(24)
    warned = "looks at the whole picture" in capsys.readouterr().err
    assert warned != (name in EXACT)
    if name in EXACT:
        assert np.abs(whole - tiles).max() <= 1


@pytest.mark.slow
def test_facts_are_measured_once(spandrel: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("PLKSR", Path("net.pth"))
    facts = describe_file(Path("net.pth"))
    # Two large kernels of 17x17 (one a block), and the 3x3 convolutions around.
    assert facts.halo >= 2 * 8
    (record,) = engines_dir().glob("*-spandrel-*.json")

    def fail(model: object) -> None:
        raise AssertionError

    monkeypatch.setattr("dsclora_cli.weights.foreign.measure_tiles", fail)
    assert load_network(Path("net.pth")).config.descriptor == facts
    monkeypatch.setattr("dsclora_cli.weights.foreign.measure_tiles", measure_tiles)
    record.write_text("damaged")
    assert describe_file(Path("net.pth")) == facts


@pytest.mark.slow
def test_other_engines_decline_or_leave_the_network_to_torch(
    spandrel: Any, openvino: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save("PLKSR", Path("net.pth"))
    arguments = ["upscale", "photo.png", "--weights", "net.pth", "-s", "2", "-o", "large.png"]
    assert main([*arguments, "--engine", "openvino"]) == 2
    assert "OpenVINO cannot convert net (leave --engine out)" in capsys.readouterr().err
    assert main([*arguments[:-1], "other.png"]) == 0
    assert Image.open("other.png").size == (150, 116)
    assert main(["export", "net.pth", "-o", "net.onnx"]) == 2
    assert "net is a network of spandrel (plksr)" in capsys.readouterr().err
    assert main(["models", "info", "net.pth"]) == 0


@pytest.mark.slow
def test_networks_of_other_kinds_are_refused(spandrel: Any, folder: Path) -> None:
    gray = import_module("spandrel.architectures.ESRGAN").ESRGAN(
        in_nc=4, out_nc=4, num_filters=4, num_blocks=1, scale=2
    )
    torch.save(gray.state_dict(), "net.pth")
    assert "for 4 channels in and 4 out" in refused(Path("net.pth"))
    state = gray.state_dict()
    state.pop("model.1.sub.0.RDB1.conv2.0.weight")
    torch.save(state, "net.pth")
    assert "spandrel cannot open net.pth" in refused(Path("net.pth"))


@pytest.mark.slow
def test_old_names_and_gray_networks_are_opened(spandrel: Any, folder: Path) -> None:
    gray = import_module("spandrel.architectures.ESRGAN").ESRGAN(
        in_nc=1, out_nc=1, num_filters=4, num_blocks=1, scale=2
    )
    torch.save(gray.state_dict(), "net.pth")  # every name begins with `model.`
    network = load_network(Path("net.pth"))
    x = torch.rand(2, 3, 12, 14)
    result = network(x)
    assert result.shape == (2, 3, 24, 28) and not result.is_inference()
    with torch.inference_mode():
        expected = torch.cat([gray.eval()(each[None, None]) for each in x[1]])[:, 0].clamp(0, 1)
    torch.testing.assert_close(result[1], expected)


def test_without_spandrel_the_hint_names_the_extra(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "net.pth")
    text = refused(tmp_path / "net.pth")
    assert "unsupported model file" in text
    assert '`pip install "dsclora[spandrel]"` opens more architectures' in text


def test_a_spandrel_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "net.pth")
    monkeypatch.setattr("dsclora_cli.weights.foreign.find_spec", lambda name: name)
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(WeightsError, match="unsupported model file") as caught:
        load_network(tmp_path / "net.pth")
    assert "does torchvision fit torch?" in caught.value.hint


@pytest.mark.slow
def test_spandrel_does_not_know_everything(spandrel: Any, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "net.pth")
    assert "unsupported model file" in refused(tmp_path / "net.pth")


@pytest.mark.slow
def test_info_describes_a_network_of_spandrel(spandrel: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save("ESRGAN", folder / "net.pth")
    assert main(["models", "info", "net.pth"]) == 0
    facts = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert (facts["architecture"].strip(), facts["scale"].strip(), facts["where"].strip()) == ("esrgan", "x2", "file")
    assert "channels" not in facts and "multiply-adds" not in facts
    assert facts["tiles"].strip() == "equal to the whole picture"
