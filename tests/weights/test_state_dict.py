"""Files without weights, and malicious files: one clear error, and no code of the file runs."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import refused, small

from dsclora_cli.errors import WeightsError
from dsclora_cli.weights import state_dict
from dsclora_cli.weights.checkpoint import load_network, save_network


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.pth"


class Malice:
    """A pickle whose code creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("kind", ["pickle", "legacy", "zip"])
def test_a_malicious_file_is_refused_and_its_code_does_not_run(kind: str, file: Path, tmp_path: Path) -> None:
    bomb = {**small().state_dict(), "conv_1.eval_conv.bias": Malice(tmp_path / "owned")}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(bomb["conv_1.eval_conv.bias"], protocol=2))
    else:
        torch.save(bomb, file, _use_new_zipfile_serialization=kind == "zip")
    text = refused(file)
    assert not (tmp_path / "owned").exists()
    assert "refused: loading it would run code (" in text or "damaged" in text
    if kind != "pickle":
        assert "io.open" in text


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x80\x02", b"hello", b"\x89PNG\r\n\x1a\n" * 9, b"\x10" + bytes(7) + b"{" * 16, bytes(99)],
)
def test_other_files_are_refused(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    assert "not a file of weights" in refused(file)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "folder.pth" in refused(tmp_path / "folder.pth")


def test_too_large_files_are_refused_packed_and_unpacked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dict, "MOST_WEIGHT_BYTES", 10_000)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10_001))
    assert file.stat().st_size < 1000
    assert "unpacks to more than 1 GiB" in refused(file)
    file.write_bytes(bytes(10_001))
    assert "larger than 1 GiB" in refused(file)


@pytest.fixture(scope="module")
def three_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = tmp_path_factory.mktemp("net") / "net"
    save_network(small(), path, training="x")
    files = [path.read_bytes()]
    for zipped in (True, False):
        torch.save(small().state_dict(), path, _use_new_zipfile_serialization=zipped)
        files.append(path.read_bytes())
    return files


@pytest.mark.slow
@given(kind=st.integers(0, 2), place=st.floats(0, 1), flips=st.binary(min_size=0, max_size=6))
def test_a_damaged_file_loads_or_is_refused_in_one_line(
    three_files: list[bytes], tmp_path_factory: pytest.TempPathFactory, kind: int, place: float, flips: bytes
) -> None:
    data = bytearray(three_files[kind])
    at = int(place * (len(data) - 7))
    if flips:
        data[at : at + len(flips)] = flips
    else:
        del data[at:]
    path = tmp_path_factory.mktemp("damaged") / "net.pth"
    path.write_bytes(data)
    said = ""
    try:
        load_network(path)
    except WeightsError as error:
        said = str(error)
    assert "\n" not in said
