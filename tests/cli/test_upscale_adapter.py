"""`dsclora upscale --adapter`, and `Upscaler(adapter=...)`, which does the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small
from PIL import Image

from dsclora_cli import Upscaler
from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import save_network

BASE, ADAPTER = Path("base.safetensors"), Path("mine.safetensors")
OVER_BASE = ("--weights", BASE, "--adapter", ADAPTER, "--device", "cpu", "-s", 2)


@pytest.fixture(autouse=True)
def _files(photo: Path) -> None:
    """A small network and an adapter for it, in the current folder."""
    network = small(blocks=1)
    save_network(network, BASE, "test")
    adapters = Adapters(network, parse_ranks(network, "upsampler.0:2"))
    torch.nn.init.normal_(adapters.get_parameter("upsampler.0.B"))
    save_adapters(adapters, ADAPTER, sha256_of(BASE), "test")


def test_an_adapter_changes_the_pixels_and_appears_in_the_report(dsclora, photo: Path) -> None:
    (adapted,) = map(json.loads, dsclora("upscale", photo, *OVER_BASE, "--json", "-o", "adapted.png").out.splitlines())
    dsclora("upscale", photo, "--weights", BASE, "--device", "cpu", "-s", 2, "-o", "plain.png")

    assert (adapted["status"], adapted["model"], adapted["choice"]) == ("done", "base-mine", None)
    assert adapted["weights_sha256"] == f"{sha256_of(BASE)}/{sha256_of(ADAPTER)}"
    assert not np.array_equal(np.asarray(Image.open("adapted.png")), np.asarray(Image.open("plain.png")))
    written = Upscaler(device="cpu", scale=2, weights=BASE, adapter=str(ADAPTER))(photo, "from_python.png")
    assert written.read_bytes() == Path("adapted.png").read_bytes()


def test_a_result_of_another_adapter_is_not_skipped(dsclora, photo: Path) -> None:
    dsclora("upscale", photo, *OVER_BASE)
    assert dsclora("upscale", photo, *OVER_BASE).err == "nothing to do: 1 already done\n"
    assert "1 kept" in dsclora("upscale", photo, "--weights", BASE, "--device", "cpu", "-s", 2).err
    assert "1 done in " in dsclora("upscale", photo, "--weights", BASE, "-s", 2, "--overwrite").err
    assert "1 kept" in dsclora("upscale", photo, *OVER_BASE).err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_adapter_for_another_base_is_a_one_line_usage_error(dsclora, photo: Path, dry: list[str]) -> None:
    code, out, err = dsclora("upscale", photo, "-m", "dsclora-x4", "--adapter", ADAPTER, *dry)
    wanted = f"weights with sha256 {sha256_of(BASE)[:12]}..."
    assert (code, out) == (2, "")
    expected = f"error: mine.safetensors is an adapter for {wanted}, not for dsclora-x4"
    assert err.splitlines()[0] == f"{expected} (give its base as the model)"
    assert not Path("photo_x4.png").exists()


def test_an_unknown_base_must_be_given(dsclora, photo: Path) -> None:
    code, _, err = dsclora("upscale", photo, "--adapter", ADAPTER)
    assert code == 3
    assert "is an adapter for weights that are not in the catalogue" in err
    assert "(give the file of these weights as the model)" in err


@pytest.mark.parametrize("adapter", [BASE, Path("absent.safetensors")])
def test_a_file_that_is_no_adapter_gives_exit_code_3(dsclora, photo: Path, adapter: Path) -> None:
    code, out, err = dsclora("upscale", photo, "--weights", BASE, "--adapter", adapter)
    assert (code, out) == (3, "")
    assert str(adapter) in err
