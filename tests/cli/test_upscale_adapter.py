"""`dsclora upscale --adapter`, and `Upscaler(adapter=...)`, which does the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import QuietServer
from networks import small
from PIL import Image

from dsclora_cli import Upscaler
from dsclora_cli.models.lora import Adapters, parse_ranks
from dsclora_cli.paths import config_dir, sha256_of
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.checkpoint import save_network

BASE, ADAPTER = Path("base.safetensors"), Path("mine.safetensors")
OVER_BASE = ("--weights", BASE, "--adapter", ADAPTER, "--device", "cpu", "-s", 2)


@pytest.fixture(autouse=True)
def _files(photo: Path) -> None:
    """A small network and an adapter for it, in the current folder."""
    save_network(small(blocks=1), BASE, "test")
    _save_adapter(ADAPTER)


def _save_adapter(path: Path, seed: int = 0) -> None:
    """Save an adapter for the base."""
    network = small(blocks=1)
    adapters = Adapters(network, parse_ranks(network, "upsampler.0:2"))
    torch.manual_seed(seed)
    torch.nn.init.normal_(adapters.get_parameter("upsampler.0.B"))
    save_adapters(adapters, path, sha256_of(BASE), "test")


class _QuietFiles(SimpleHTTPRequestHandler):
    """Serve the current folder without a log."""

    def log_message(self, *arguments: object) -> None:
        """Write no log."""


@pytest.fixture
def site() -> Iterator[str]:
    """Yield the address of a server of the files in the current folder."""
    with QuietServer(("127.0.0.1", 0), _QuietFiles) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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


def _write_catalog(address: str, base_is_pinned: bool) -> None:
    """Write a catalog with a base and two adapters at addresses; nobody stated the sha256s of the adapters."""
    table = 'arch = "span"\nscale = 2\nchannels = 4\nlicence = "MIT"\nsource = "me"\n'
    pin = f'sha256 = "{sha256_of(BASE)}"\n' if base_is_pinned else ""
    text = "".join(
        f'[weights.{name}]\n{table}url = "{address}/{name}.safetensors"\n{more}'
        for name, more in (("base", pin), ("first", 'base = "base"\n'), ("second", 'base = "base"\n'))
    )
    config_dir().mkdir(parents=True)
    (config_dir() / "weights.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("base_is_pinned", [True, False])
@pytest.mark.usefixtures("native")
def test_adapters_at_addresses_without_a_pin_are_different_networks(
    dsclora, photo: Path, site: str, base_is_pinned: bool
) -> None:
    _write_catalog(site, base_is_pinned)
    for seed, name in enumerate(("first", "second")):
        _save_adapter(Path(f"{name}.safetensors"), seed)
    for name in ("base", "first", "second"):
        assert dsclora("models", "fetch", name, "--trust-unpinned").code == 0

    on_cpu = ("--device", "cpu", "-s", 2)
    for name in ("first", "second"):
        adapter = f"{name}.safetensors"
        dsclora("upscale", photo, *OVER_BASE[:2], "--adapter", adapter, *on_cpu, "-o", f"{name}.png")
        if name == "second":  # the result of the first adapter
            assert "1 kept" in dsclora("upscale", photo, "-m", name, *on_cpu).err
        # The native engine keeps the tensors of networks with adapters for later runs.
        ran = dsclora("upscale", photo, "-m", name, *on_cpu, "--engine", "native", "--overwrite", "--json")
        result = json.loads(ran.out)
        assert result.get("weights_sha256") == f"{sha256_of(BASE)}/{sha256_of(Path(adapter))}"
        found, wanted = (np.asarray(Image.open(path), np.int16) for path in ("photo_x2.png", f"{name}.png"))
        assert abs(found - wanted).max() <= 1  # two engines round differently


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
