"""Weights of any repository on the Hub: the real client against a server on this machine, through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, HubServer
from PIL import Image

from dsclora_cli import hub
from dsclora_cli.cli.app import main
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of, state_dir
from dsclora_cli.weights import hub_models
from dsclora_cli.weights.checkpoint import save_network

REPO, FILE = "someone/2xPhotos", "models/2xPhotos.safetensors"
REFERENCE = f"hf://{REPO}/{FILE}"
HERE = ("--engine", "torch", "--device", "cpu", "--overwrite")


def weights(seed: int, folder: Path) -> bytes:
    torch.manual_seed(seed)
    path = folder / f"{seed}.safetensors"
    save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=2)), path, "")
    return path.read_bytes()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with one repository that holds one weight file, and `photo.png` in the current folder."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 7), (200, 100, 50)).save("photo.png")
    files = {FILE: weights(0, tmp_path), "README.md": b"hello"}
    with HubServer(REPO, files, card={"license": "cc-by-4.0"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def upscale(capsys: pytest.CaptureFixture[str], model: str, *more: str) -> tuple[int, str]:
    """Upscale the photo in a fresh process, as far as the memory of earlier uses goes; return exit code and stderr."""
    hub_models._obtain.cache_clear()
    code = main(["upscale", "photo.png", "-m", model, *HERE, *more])
    return code, capsys.readouterr().err


def forget_cache() -> None:
    """Remove all downloaded files."""
    for path in sorted(hub.cache_folder().rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("model", [REFERENCE, f"{REFERENCE}@main", f"{REFERENCE}@{COMMIT}", REPO, f"hf://{REPO}"])
def test_the_first_use_names_licence_and_sha256_and_later_uses_ask_nothing(
    server: HubServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str
) -> None:
    sha256 = sha256_of(tmp_path / "0.safetensors")
    code, err = upscale(capsys, model)
    assert code == 0, err
    note = f"{model}: {FILE} (licence cc-by-4.0) is used for the first time; from now on only these bytes are accepted"
    assert err.count(f"note: {note}, sha256 {sha256}") == 1
    assert Image.open("photo_x4.png").size == (36, 28)  # the usual factor, in two passes
    server.requests.clear()
    code, err = upscale(capsys, model)
    assert (code, server.requests) == (0, [])
    assert "first time" not in err


def test_offline_uses_what_was_trusted_before(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = upscale(capsys, REPO, "--offline")
    assert code == 3
    assert f"{REPO} was never used before, and the program is offline" in err
    assert server.requests == []
    assert upscale(capsys, REPO)[0] == 0
    server.requests.clear()
    assert upscale(capsys, REPO, "--offline")[0] == 0
    forget_cache()
    code, err = upscale(capsys, REPO, "--offline")
    assert code == 3 and "is not in the cache, and the program is offline" in err
    assert server.requests == []


def test_the_trusted_bytes_are_downloaded_again(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale(capsys, REFERENCE)[0] == 0
    forget_cache()
    code, err = upscale(capsys, REFERENCE)
    assert code == 0
    assert "first time" not in err


def test_a_replaced_file_is_refused(server: HubServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert upscale(capsys, REFERENCE)[0] == 0
    server.files[FILE] = weights(1, tmp_path)
    # The trusted file in the cache stays good.
    assert upscale(capsys, REFERENCE)[0] == 0
    forget_cache()
    code, err = upscale(capsys, REFERENCE)
    assert code == 3
    assert f"{REFERENCE} was replaced since its first use: no file there has the sha256" in err
    (record,) = (state_dir() / "hub-models").iterdir()
    assert f"if you trust the new file, remove {record}" in err
    record.unlink()
    assert "is used for the first time" in upscale(capsys, REFERENCE)[1]


def test_other_bytes_than_the_listing_promises_are_refused(
    server: HubServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.served[FILE] = weights(1, tmp_path)
    code, err = upscale(capsys, REFERENCE)
    assert code == 3 and "does not have the pinned sha256" in err
    assert not (state_dir() / "hub-models").exists()


def test_a_damaged_record_is_never_trusted_again_without_a_word(
    server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upscale(capsys, REFERENCE)[0] == 0
    (record,) = (state_dir() / "hub-models").iterdir()
    whole = json.loads(record.read_text())
    wrong = {"sha256": "no", "reference": ["a"], "repo": ["a/b"], "file": None, "size": -1, "licence": 7, "revision": 1}
    for text in ("{", *(json.dumps({**whole, key: value}) for key, value in wrong.items())):
        record.write_text(text)
        code, err = upscale(capsys, REFERENCE)
        assert (code, err.count("\n")) == (3, 1)
        assert str(record) in err
        assert hub_models.list_trusted() == ()


def test_a_weight_file_of_this_machine_is_no_reference(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    Path("models").mkdir()
    Path("models/mine.safetensors").write_bytes(server.files[FILE])
    assert upscale(capsys, "models/mine.safetensors")[0] == 0
    assert not server.requests
    assert main(["upscale", "photo.png", "-m", "models/mine.safetensors", "--weights", "models/mine.safetensors"]) == 2
    assert "give only one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        (f"hf://{REPO}/absent.pth", 3, ""),
        (f"hf://{REPO}/README.md", 2, "README.md of someone/2xPhotos is no weight file (expected .pt, .pth, .safe"),
        (f"hf://{REPO}/../up.pth", 2, "../up.pth of someone/2xPhotos is no weight file"),
        ("hf://someone", 2, "'hf://someone' is no model on the Hub (write hf://USER/REPO/FILE"),
        ("a/b/c d.txt", 2, "is no weight file"),
        ("na\udcea/C", 2, "is no model on the Hub"),
        (f"{REPO}@absent", 3, f"{REPO} at http://127.0.0.1:"),
        ("nobody/nothing", 3, "has no repository nobody/nothing"),
    ],
)
def test_a_wrong_reference_is_one_line(
    server: HubServer, capsys: pytest.CaptureFixture[str], model: str, code: int, message: str
) -> None:
    found, err = upscale(capsys, model)
    assert (found, err.count("\n")) == (code, 1), err
    assert message in err
    assert not (state_dir() / "hub-models").exists()


def test_several_weight_files_are_listed(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["other.pth"] = b"x"
    code, err = upscale(capsys, REPO)
    assert code == 2
    assert f"{REPO} holds 2 weight files: {FILE}, other.pth (choose one: hf://{REPO}/{FILE})" in err
    server.files.clear()
    assert f"{REPO} holds no weight file" in upscale(capsys, REPO)[1]


def test_a_size_of_another_scale_is_reached_in_passes(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale(capsys, REPO, "-s", "3")[0] == 0
    assert Image.open("photo_x3.png").size == (27, 21)


def test_other_commands_take_references_as_well(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    hub_models._obtain.cache_clear()
    assert main(["export", REFERENCE, "-o", "copy.safetensors"]) == 0
    assert "licence cc-by-4.0" in capsys.readouterr().out
