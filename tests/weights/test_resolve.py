"""The choice of weights: by name, by file and by `auto`, with every fallback reported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

from dsclora_cli.config import ModelOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.hub_client import HubUnavailable
from dsclora_cli.paths import config_dir, sha256_of
from dsclora_cli.weights.catalog import EMBEDDED, load_catalog
from dsclora_cli.weights.download import WeightPlace, obtain, place_of
from dsclora_cli.weights.resolve import find_weights, native_scales

OURS = EMBEDDED / "dsclora-x4.safetensors"


@pytest.fixture
def student(shared: Path) -> bytes:
    return (shared / "weights/team23_DSCF.pth").read_bytes()


@pytest.fixture
def server(student: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer("sssefe/DSCLoRA", {"model_zoo/team23_DSCF.pth": student}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def own_entry(path: Path, sha256: str | None = None, name: str = "mine") -> None:
    config_dir().mkdir(parents=True, exist_ok=True)
    (config_dir() / "weights.toml").write_text(
        f"[weights.{name}]\narch = \"span\"\nscale = 4\nchannels = 26\nfile = '{path}'\nsize = 527808\n"
        f'sha256 = "{sha256 or sha256_of(OURS)}"\nlicence = "MIT"\nsource = "me"\n',
        encoding="utf-8",
    )


def test_auto_uses_the_student_from_the_hub_then_from_the_cache(server: HubServer, student: bytes) -> None:
    found = find_weights(ModelOptions(), 4)
    assert (found.name, found.note, found.path.read_bytes()) == ("dscf-x4-plus", None, student)
    assert found.entry == load_catalog().entry("dscf-x4-plus")
    assert found.adapter == EMBEDDED / "dscf-x4-plus.safetensors"
    assert found.sha256 == f"{sha256_of(found.path)}/{sha256_of(found.adapter)}"
    server.requests.clear()
    assert find_weights(ModelOptions(), 4) == found
    assert find_weights(ModelOptions(offline=True), None) == found
    assert server.requests == []


@pytest.mark.parametrize(("offline", "reason"), [(False, "no internet"), (True, "offline")])
def test_auto_falls_back_to_the_embedded_network_with_a_note(offline: bool, reason: str) -> None:
    found = find_weights(ModelOptions(offline=offline), 4)
    assert (found.name, found.path) == ("dsclora-x4", OURS)
    assert found.note == f"dscf-x4 could not be fetched ({reason}): using the embedded dsclora-x4"


def test_auto_falls_back_where_the_repository_is_gone(server: HubServer) -> None:
    server.status, server.error_code = 404, "RepoNotFound"
    note = find_weights(ModelOptions(), 4).note
    assert note == "dscf-x4 could not be fetched (repository not found): using the embedded dsclora-x4"


def test_auto_does_not_hide_wrong_bytes(server: HubServer, student: bytes) -> None:
    server.served["model_zoo/team23_DSCF.pth"] = student[::-1]
    with pytest.raises(WeightsError, match="refused, not kept"):
        find_weights(ModelOptions(), 4)


def test_a_named_model_is_never_replaced_by_another() -> None:
    with pytest.raises(HubUnavailable, match=r"cannot reach .* \(check the internet"):
        find_weights(ModelOptions(model="dscf-x4"), 4)
    found = find_weights(ModelOptions(model="dsclora-x4"), None)
    assert (found.name, found.path, found.note) == ("dsclora-x4", OURS, None)


def test_a_scale_without_a_model_is_refused() -> None:
    with pytest.raises(UsageError, match="dsclora-x4 upscales by 4, not by 3"):
        find_weights(ModelOptions(model="dsclora-x4"), 3)
    with pytest.raises(UsageError, match=r"no model upscales by 7 in one pass \(there are models for 2, 3, "):
        find_weights(ModelOptions(), 7)


def test_a_file_is_used_as_given_and_recognized_by_its_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "copy of it.bin"
    copy.write_bytes(OURS.read_bytes())
    found = find_weights(ModelOptions(weights=copy), 4)
    assert (found.path, found.name, found.note) == (copy, "dsclora-x4", None)
    (tmp_path / "other.pth").write_bytes(b"anything")
    found = find_weights(ModelOptions(weights=tmp_path / "other.pth"), None)
    assert (found.name, found.entry, found.sha256) == ("other", None, sha256_of(tmp_path / "other.pth"))
    with pytest.raises(WeightsError, match="No such file"):
        find_weights(ModelOptions(weights=tmp_path / "none.pth"), None)


def test_a_file_and_a_name_together_are_refused(tmp_path: Path) -> None:
    options = ModelOptions(model="dscf-x4", weights=tmp_path / "a.pth")
    for ask in (lambda: find_weights(options, 4), lambda: native_scales(options)):
        with pytest.raises(UsageError, match="both a model"):
            ask()


def test_native_scales_need_no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", None)
    assert native_scales(ModelOptions()) == tuple(sorted(load_catalog().auto))
    assert native_scales(ModelOptions(model="dscf-x4")) == (4,)
    assert native_scales(ModelOptions(weights=OURS)) == (4,)
    with pytest.raises(UsageError, match="no model is called"):
        native_scales(ModelOptions(model="nobody"))


def test_own_weights_lie_next_to_the_own_catalog(tmp_path: Path) -> None:
    own_entry(Path("mine.safetensors"))
    mine = load_catalog().entry("mine")
    assert place_of(mine) is WeightPlace.MISSING
    with pytest.raises(WeightsError, match=r"the file of mine is missing: .*mine\.safetensors \(put the file back"):
        find_weights(ModelOptions(model="mine"), 4)
    (config_dir() / "mine.safetensors").write_bytes(OURS.read_bytes())
    assert place_of(mine) is WeightPlace.LOCAL
    assert find_weights(ModelOptions(model="mine"), 4).path == config_dir() / "mine.safetensors"
    own_entry(OURS)
    assert obtain(load_catalog().entry("mine")) == OURS


def test_own_weights_with_another_sha256_are_refused() -> None:
    own_entry(OURS, sha256="0" * 64)
    assert place_of(load_catalog().entry("mine")) is WeightPlace.MISSING
    with pytest.raises(WeightsError, match="does not have the sha256 pinned for mine"):
        find_weights(ModelOptions(model="mine"), 4)


def test_choosing_weights_imports_no_torch() -> None:
    code = (
        "import sys; from dsclora_cli.config import ModelOptions; from dsclora_cli.weights.resolve import find_weights;"
        "from dsclora_cli.weights.listing import list_models; list_models();"
        "find_weights(ModelOptions(offline=True), 4);"
        "assert not {'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["best.safetensors", "adapter.safetensors"])
def test_the_folder_of_a_run_is_told_the_file_to_give(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(WeightsError) as caught:
        find_weights(ModelOptions(weights=tmp_path), None)
    assert str(caught.value) == f"{tmp_path} is a folder, not a file of weights (give {tmp_path / name})"
