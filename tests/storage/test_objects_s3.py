"""Objects of a real S3 server: large objects in parts, uploads that break off, empty objects, folders, changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsclora_cli.errors import ImageUnreadable, ImageUnwritable
from dsclora_cli.storage import objects
from dsclora_cli.storage.objects import find_object, list_folder, local_copy, read_object, require_object, write_object
from dsclora_cli.storage.places import RemotePlace

pytestmark = pytest.mark.slow

PLACE = RemotePlace("s3://bucket/out/large.tif")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that s3fs sends in parts."""
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.truncate(101 * 2**20)
    return path


def unfinished(client: Any) -> list[object]:
    return client.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads", [])


def test_a_large_object_goes_in_parts_and_comes_back_through_a_file(s3: Any, large: Path) -> None:
    write_object(PLACE, large)
    facts = require_object(PLACE)
    assert facts.size == 101 * 2**20
    assert facts.md5 is None  # the ETag of an object in parts is no MD5
    with local_copy(facts) as copy:
        assert isinstance(copy, Path)
        assert copy.suffix == ".tif"
        assert copy.read_bytes() == large.read_bytes()
    assert not copy.exists()
    assert unfinished(s3) == []


@pytest.mark.parametrize("before", [None, b"an older object"])
def test_an_upload_that_breaks_off_is_aborted(
    s3: Any, large: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    if before:
        s3.pipe_file("bucket/out/large.tif", before)
    real = type(s3)._call_s3

    async def broken(self: Any, method: str, *arguments: Any, **named: Any) -> Any:
        if method == "upload_part" and named["PartNumber"] == 2:
            raise OSError(28, "the storage is full")
        return await real(self, method, *arguments, **named)

    monkeypatch.setattr(type(s3), "_call_s3", broken)
    with pytest.raises(ImageUnwritable, match=r"s3://bucket/out/large\.tif: the storage is full"):
        write_object(PLACE, large)
    monkeypatch.undo()
    assert s3.find("bucket") == (["bucket/out/large.tif"] if before else [])
    if before:
        assert s3.cat_file("bucket/out/large.tif") == before


def test_an_upload_that_breaks_off_leaves_no_parts(s3: Any, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(s3)._call_s3
    calls: list[str] = []

    async def broken(self: Any, method: str, *arguments: Any, **named: Any) -> Any:
        calls.append(method)
        if method == "complete_multipart_upload":
            raise OSError(5, "the connection is gone")
        return await real(self, method, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(type(s3), "_call_s3", broken)
        with pytest.raises(ImageUnwritable, match="the connection is gone"):
            write_object(PLACE, large)
    assert calls[-1] == "abort_multipart_upload"
    assert find_object(PLACE) is None
    assert unfinished(s3) == []


def test_empty_objects_and_marks_of_folders(s3: Any) -> None:
    s3.pipe_file("bucket/in/empty.png", b"")
    s3.call_s3("put_object", Bucket="bucket", Key="in/", Body=b"")
    folders, files = list_folder(RemotePlace("s3://bucket/in"))
    assert (folders, [facts.place.url for facts in files]) == ([], ["s3://bucket/in/empty.png"])
    assert read_object(RemotePlace("s3://bucket/in/empty.png"), 10) == b""
    with local_copy(require_object(RemotePlace("s3://bucket/in/empty.png"))) as copy:
        assert copy == b""
    with pytest.raises(ImageUnreadable, match="is a folder, not a picture"):
        require_object(RemotePlace("s3://bucket/in"))


def test_a_change_changes_the_version(s3: Any) -> None:
    place = RemotePlace("s3://bucket/a.png")
    write_object(place, b"first")
    first = require_object(place)
    assert first.md5 == "8b04d5e3775d298e78455efc5ca404d5"
    (listed,) = list_folder(place.parent)[1]
    assert listed.version == first.version
    write_object(place, b"other")
    assert require_object(place).version != first.version


def test_an_object_larger_than_the_free_space_is_refused(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_object(PLACE, b"12345678")
    monkeypatch.setattr(objects, "_IN_MEMORY", 4)
    monkeypatch.setattr(objects.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 7}))
    with pytest.raises(ImageUnreadable, match="does not fit into"), local_copy(require_object(PLACE)):
        pass
