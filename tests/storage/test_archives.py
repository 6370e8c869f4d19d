"""Archives behind `zip://`: what is refused before memory or disk is spent, and what is read at all."""

from __future__ import annotations

import io
import lzma
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import pytest
from hostile_zips import end, pack, raw
from sets import noise, png

from dsclora_cli.cli.app import main
from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.storage import objects
from dsclora_cli.storage.archives import check_entry, check_folders, check_names
from dsclora_cli.storage.objects import find_object, list_folder, local_copy, require_object
from dsclora_cli.storage.places import RemotePlace

PLACE = RemotePlace("zip://a.png::x.zip")
GOOD = png(noise(1))


def save(folder: Path, data: bytes) -> str:
    (folder / "x.zip").write_bytes(data)
    return f"{folder / 'x.zip'}"


@pytest.mark.parametrize("entries", [0, 1, 2000])
def test_a_list_of_entries_of_usual_length_passes(entries: int) -> None:
    archive = io.BytesIO(pack([(f"{number}.png", b"x") for number in range(entries)]))
    check_names(archive, PLACE)
    assert archive.tell() == 0


def test_a_long_list_of_entries_is_refused_by_its_length() -> None:
    with pytest.raises(ImageUnreadable, match=r"the archive lists entries in 17 MiB, and 16 MiB are read at most"):
        check_names(io.BytesIO(end(1, 17 << 20, 0)), PLACE)


def test_a_list_in_the_long_form_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(9):
            archive.writestr(f"{number}.png", b"")
    assert b"PK\x06\x06" in packed.getvalue()
    check_names(packed, PLACE)
    monkeypatch.setattr("dsclora_cli.storage.archives._MOST_NAMES", 100)
    with pytest.raises(ImageUnreadable, match="lists entries"):
        check_names(packed, PLACE)


LONG = (1 << 32) - 1
"""Number in the end of an archive that stands for a number in the long form."""


def long_form(listed: int, at: int, further: bytes = b"") -> bytes:
    """Return the long form of the end with bytes behind the record, and the locator; the record stands at `at`."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44 + len(further), 45, 45, 0, 0, 1, 1, listed, 0)
    return record + further + struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)


@pytest.mark.parametrize(
    "data",
    [
        end(1, 17 << 20, 0) + b"x" * 2**16,
        long_form(17 << 20, 0) + end(1, 100, 0, b"x" * 65535),
        long_form(17 << 20, 0, long_form(100, 0)[:56]) + end(1, LONG, LONG),
        b"data" + long_form(17 << 20, 0) + end(1, 100, 0),
        long_form(100, 0, b"x" * 100) + end(1, 17 << 20, 0),
    ],
    ids=["behind the longest comment", "before a comment", "where the locator points", "behind data", "not long"],
)
def test_every_list_that_a_version_of_python_reads_is_measured(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="lists entries in 17 MiB"):
        check_names(io.BytesIO(data), PLACE)


@pytest.mark.parametrize("at", [0, 2**64 - 1])
def test_a_short_list_in_the_long_form_passes(at: int) -> None:
    check_names(io.BytesIO(long_form(100, at) + end(1, LONG, LONG)), PLACE)


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"hello" * 100, pack([("a", b"")])[:-3]])
def test_what_is_no_archive_is_left_to_the_reader(data: bytes) -> None:
    check_names(io.BytesIO(data), PLACE)


def test_deep_folders_are_refused() -> None:
    check_folders(["a/b/c.png", "a/d.png", "e.png"] * 1000, PLACE)
    with pytest.raises(ImageUnreadable, match="the folders in the archive are nested too deep"):
        check_folders(["a/" * 101 + "/a.png"], PLACE)


def test_long_names_of_folders_are_refused() -> None:
    with pytest.raises(ImageUnreadable, match="the folders in the archive have names of more than 16 MiB"):
        check_folders([f"{number}/{'x' * 900}/b/c/a.png" for number in range(9000)], PLACE)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"flag_bits": 1}, "is encrypted"),
        ({"compress_type": zipfile.ZIP_LZMA}, "is packed by another method than deflate"),
        ({"size": 2**30, "compress_size": 2**20}, "unpacks to 1024 MiB, more than 100 times its size in the archive"),
    ],
)
def test_an_entry_that_nobody_should_unpack_is_refused(facts: dict[str, int], words: str) -> None:
    with pytest.raises(ImageUnreadable, match=words):
        check_entry(facts, PLACE)


@pytest.mark.parametrize("facts", [{}, {"size": 2**26, "compress_size": 100}, {"size": 2**30, "compress_size": 2**24}])
def test_other_entries_pass(facts: dict[str, int]) -> None:
    check_entry(facts, PLACE)


def test_a_folder_with_the_name_of_a_dot_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = save(tmp_path, pack([("./a.png", GOOD), ("b/../c.png", GOOD), ("../d.png", GOOD)]))
    folders, files = list_folder(RemotePlace(f"zip://::{archive}"))
    assert ([facts.place.name for facts in folders], files) == ([".", "..", "b"], [])
    assert main(["upscale", "-r", f"zip://::{archive}", "-o", f"{tmp_path}/out", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("a hidden folder") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_the_pictures_of_an_archive_are_read_from_one_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(objects, "check_names", lambda file, place: opened.append(place))
    archive = save(tmp_path, pack([("a.png", GOOD), ("b.png", GOOD)]))
    for name in ("a.png", "b.png"):
        with local_copy(require_object(RemotePlace(f"zip://{name}::{archive}"))) as data:
            assert data == GOOD
    assert len(opened) == 1
    save(tmp_path, pack([("c.png", GOOD)]))
    os.utime(archive, (1e9, 1e9))
    assert find_object(RemotePlace(f"zip://a.png::{archive}")) is None
    assert find_object(RemotePlace(f"zip://c.png::{archive}")) is not None
    assert len(opened) == 2


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, uncollected: None) -> list[IO[bytes]]:
    """Archives that were opened so far; nothing but the program closes them."""
    files = []
    real = Path.open

    def recorded(path: Path, *arguments: Any, **named: Any) -> IO[Any]:
        file = real(path, *arguments, **named)
        if path.suffix == ".zip" and arguments == ("rb",):
            files.append(file)
        return file

    objects._OPENED.clear()
    monkeypatch.setattr(Path, "open", recorded)
    return files


def deep_names() -> bytes:
    return pack([("a/" * 200 + "b.png", GOOD)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"no archive", "File is not a zip file"), (end(1, 17 << 20, 0), "lists entries"), (deep_names(), "nested")],
)
def test_an_archive_that_is_refused_is_closed(
    tmp_path: Path, opened: list[IO[bytes]], capsys: pytest.CaptureFixture[str], data: bytes, reason: str
) -> None:
    assert main(["upscale", f"zip://a.png::{save(tmp_path, data)}", "-o", f"{tmp_path}/out"]) == 1
    assert reason in capsys.readouterr().err
    assert opened and all(file.closed for file in opened)


def test_an_archive_is_closed_after_the_last_reader(tmp_path: Path, opened: list[IO[bytes]]) -> None:
    archive = save(tmp_path, pack([("a.png", GOOD)]))
    other = tmp_path / "other.zip"
    other.write_bytes(pack([("b.png", GOOD)]))
    storage, path = objects._open_storage(RemotePlace(f"zip://a.png::{archive}"))
    assert find_object(RemotePlace(f"zip://b.png::{other}")) is not None
    assert storage.cat_file(path) == GOOD  # by another thread, for example
    del storage
    assert [file.closed for file in opened] == [True, False]


def test_the_pictures_of_a_large_archive_in_an_archive_are_read_from_one_list(
    tmp_path: Path, opened: list[IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr(objects, "check_names", lambda file, place: listed.append(place))
    # Behind more bytes than any reader holds in memory.
    inner = pack([("notes.bin", os.urandom(1 << 20)), ("a.png", GOOD), ("b.png", GOOD)])
    archive = save(tmp_path, pack([("inner.zip", inner)]))
    for name in ("a.png", "b.png"):
        with local_copy(require_object(RemotePlace(f"zip://{name}::zip://inner.zip::{archive}"))) as data:
            assert data == GOOD
    assert len(listed) == 2
    save(tmp_path, pack([("inner.zip", pack([("a.png", GOOD[:-1])]))]))
    os.utime(archive, (1e9, 1e9))
    with local_copy(require_object(RemotePlace(f"zip://a.png::zip://inner.zip::{archive}"))) as data:
        assert data == GOOD[:-1]
    assert [file.closed for file in opened] == [True, False]


def test_an_archive_in_an_archive_is_checked_too(tmp_path: Path) -> None:
    inner = pack([("a.png", GOOD)])
    archive = save(tmp_path, pack([("inner.zip", inner), ("long.zip", end(1, 17 << 20, 0))]))
    with local_copy(require_object(RemotePlace(f"zip://a.png::zip://inner.zip::{archive}"))) as data:
        assert data == GOOD
    with pytest.raises(ImageUnreadable, match="lists entries in 17 MiB"):
        find_object(RemotePlace(f"zip://a.png::zip://long.zip::{archive}"))


def test_an_archive_in_an_archive_is_an_entry_that_is_checked(tmp_path: Path) -> None:
    archive = save(tmp_path, raw([("inner.zip", 0, 0, lzma.compress(bytes(9)), 9, zipfile.ZIP_LZMA)]))
    with pytest.raises(ImageUnreadable, match="is packed by another method than deflate"):
        find_object(RemotePlace(f"zip://a.png::zip://inner.zip::{archive}"))


def test_an_archive_may_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, pack([("a.png", GOOD)]))
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    with local_copy(require_object(RemotePlace("zip://a.png::~/x.zip"))) as data:
        assert data == GOOD


def test_an_encrypted_picture_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = save(
        tmp_path, raw([("a.png", 1, 0, GOOD, len(GOOD), 8), ("b.png", 0, zlib.crc32(GOOD), GOOD, len(GOOD), 8)])
    )
    assert main(["upscale", f"zip://::{archive}", "-o", f"{tmp_path}/out", "--dry-run"]) == 1
    assert f"zip://a.png::{archive}: is encrypted (unpack the archive, and name the folder)" in capsys.readouterr().out
