"""Weight files at URLs: copied once, again after a change, and found without the internet afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dsclora_cli.errors import WeightsError
from dsclora_cli.storage.places import parse_place
from dsclora_cli.weights.remote import local_weights

URL = "memory://models/mine.safetensors"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_file_at_a_url_is_copied_and_copied_again_after_a_change(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file(URL, b"first")
    copy = local_weights(parse_place(URL), offline=False)
    assert (copy.name, copy.read_bytes()) == ("mine.safetensors", b"first")
    assert local_weights(parse_place(URL), offline=False) == copy
    memory.pipe_file(URL, b"other bytes")
    changed = local_weights(parse_place(URL), offline=False)
    assert changed.read_bytes() == b"other bytes"
    assert not copy.exists()
    memory.rm_file(URL)
    assert local_weights(parse_place(URL), offline=True) == changed


def test_a_file_that_is_absent_or_too_large_is_named(memory: fsspec.AbstractFileSystem, monkeypatch) -> None:
    with pytest.raises(WeightsError, match=r"memory://models/mine\.safetensors does not exist"):
        local_weights(parse_place(URL), offline=False)
    with pytest.raises(WeightsError, match="not on this machine yet"):
        local_weights(parse_place(URL), offline=True)
    memory.pipe_file(URL, b"first")
    with pytest.raises(WeightsError, match="is a folder, not a weight file"):
        local_weights(parse_place("memory://models"), offline=False)
    monkeypatch.setattr("dsclora_cli.weights.remote.MOST_WEIGHT_BYTES", 3)
    with pytest.raises(WeightsError, match="5 bytes are more than 1 GiB"):
        local_weights(parse_place(URL), offline=False)


def test_a_path_is_left_alone() -> None:
    assert local_weights(parse_place("absent.pth"), offline=True) == Path("absent.pth")
