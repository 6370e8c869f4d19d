"""Lists of files for a cluster: the files of one machine, in groups that compete for a name, in bounded memory."""

from __future__ import annotations

import ntpath
import os
import shutil
import tracemalloc
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsclora_cli.cluster import listing as listing_module
from dsclora_cli.cluster.listing import Listing
from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import parse_place
from dsclora_cli.upscaling import types as types_module
from dsclora_cli.upscaling.inputs import expand_list, find_inputs, find_listed
from dsclora_cli.upscaling.types import folder_key

BATCH = BatchOptions(output="out", recursive=True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders with names that compete, hidden files, links, and the folder of results inside."""
    monkeypatch.chdir(tmp_path)
    names = ["b.png", "a.png", "A.jpg", "a-2.bmp", "a-2-3.png", "notes.txt", ".hidden.png", "Thumbs.db", "sub/a.png"]
    for name in (*names, "sub/deep/c.tif", ".cache/d.png", "out/a_x4.png", "z.d/e.webp"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "in" / "sub")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "bare" / "below").mkdir(parents=True)
    (tmp_path / "bare" / "below" / "notes.txt").touch()
    shutil.make_archive("scans", "zip", "in")
    return Path("in")


def found_by(arguments: list[str], batch: BatchOptions) -> tuple[set[tuple[str, str]], set[tuple[str, str, str]]]:
    """Inputs with their folders, and what is left out with the reasons, as workers and driver find both."""
    listing = Listing(arguments, batch)
    files = find_listed(chain.from_iterable(listing.groups()), batch)
    assert files.many
    left_out = {(each.name, each.reason, each.kind) for each in (*files.left_out, *listing.left_out)}
    inputs = {(file.name, str(file.folder)) for file in files.inputs}
    return inputs | {(each.input, str(None)) for each in listing.failed}, left_out


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        ["in"],
        ["in/sub", "in/z.d", "in/b.png"],
        ["in/*.png", "in/sub"],
        ["absent.png"],
        ["bare"],
        ["bare/below", "in/b.png"],
        ["x" * 300, "in/b.png"],
        ["zip://::scans.zip"],
        ["zip://sub/*.png::scans.zip", "zip://absent::scans.zip", "zip://b.png::scans.zip"],
        ["zip://::absent.zip"],
    ],
)
def test_the_files_are_those_of_one_machine(tree: Path, arguments: list[str], recursive: bool) -> None:
    batch = BatchOptions(output="in/out" if arguments == ["in"] else "out", recursive=recursive)
    here = find_inputs(arguments, batch)
    inputs, left_out = found_by(arguments, batch)
    assert inputs == {(file.name, str(file.folder)) for file in here.inputs}
    assert left_out == {(each.name, each.reason, each.kind) for each in here.left_out}


def test_an_archive_has_the_same_place_for_workers_in_other_folders(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = Listing(["zip://sub/deep/c.tif::scans.zip"], BATCH).groups()
    monkeypatch.chdir("bare")
    assert group[0].path == f"zip://sub/deep/c.tif::{tmp_path}/scans.zip"
    (file,) = find_listed(group, BATCH).inputs
    assert file.name == "zip://sub/deep/c.tif::scans.zip" and file.problem is None


def test_the_driver_looks_once_which_objects_have_a_record(tree: Path) -> None:
    record = Path("in/sub/.dsclora/a.png.json")
    record.parent.mkdir()
    record.touch()
    shutil.make_archive("scans", "zip", "in")
    files = chain.from_iterable(Listing(["zip://::scans.zip"], BATCH).groups())
    assert [file.name for file in files if file.has_record] == ["zip://sub/a.png::scans.zip"]


def test_files_that_may_compete_for_a_name_are_in_one_group_and_in_order(tree: Path) -> None:
    groups = [[Path(file.name).name for file in group] for group in Listing(["in"], BATCH).groups()]
    assert ["A.jpg", "a.png"] in groups and ["a-2.bmp"] in groups
    assert ["a.png"] in groups, "of another folder"
    assert len(list(chain.from_iterable(groups))) == 13


def test_a_list_keeps_the_order_of_the_user(tree: Path) -> None:
    Path("list.txt").write_text("in/a.png\n\nin/A.jpg\nin/sub\n", encoding="utf-16")
    groups = [[file.name for file in group] for group in Listing(["@list.txt"], BATCH).groups()]
    assert groups == [["in/a.png", "in/A.jpg", "in/sub/a.png"], ["in/sub/deep/c.tif"]], (
        "folders and files share the folder of results"
    )


def test_a_list_may_be_longer_than_on_one_machine(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("in/a.png\nzip://b.png::scans.zip\n", encoding="utf-8")
    shutil.make_archive("lists", "zip", ".", "list.txt")
    monkeypatch.setattr("dsclora_cli.paths._CHUNK", 4)
    for name in ("@list.txt", "@zip://list.txt::lists.zip"):
        assert list(expand_list(name)) == ["in/a.png", "zip://b.png::scans.zip"]
        with pytest.raises(UsageError, match=r"cannot be read: larger than 0 MiB"):
            list(expand_list(name, limit=10))
        groups = list(Listing([name], BATCH).groups())
        assert [file.name for group in groups for file in group] == ["in/a.png", "zip://b.png::scans.zip"]


def test_many_files_are_sorted_in_temporary_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(Listing(["in"], BATCH).groups())
    monkeypatch.setattr(listing_module, "_IN_MEMORY", 2)
    monkeypatch.setattr(listing_module, "_BLOCK", 1)
    assert list(Listing(["in"], BATCH).groups()) == whole


@pytest.mark.slow
def test_memory_does_not_grow_with_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "_IN_MEMORY", 500)
    monkeypatch.setattr(listing_module, "_BLOCK", 50)
    names = (listing_module.ListedInput(f"/in/{number}.png", f"in/{number}.png", "", False) for number in range(20_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in listing_module._sorted_groups(map(partial(listing_module._keyed, 0), names)))
        assert (count, tracemalloc.get_traced_memory()[1] < 6_000_000) == (20_000, True)
    finally:
        tracemalloc.stop()


def test_a_folder_that_may_not_be_entered_is_a_failure_and_no_end(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refused(path: str | Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    listing = Listing(["in"], BATCH)
    names = [file.name for group in listing.groups() for file in group]
    assert "in/z.d/e.webp" in names and listing.count == len(names)
    assert [(each.input, each.error and each.error.message) for each in listing.failed] == [
        ("in/sub", "in/sub cannot be listed: Permission denied")
    ]


def test_inputs_in_the_folder_of_results_are_refused_on_windows_too(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key_on_windows(path: Path) -> str:
        return f"c:{ntpath.normcase(os.path.realpath(path))}"

    monkeypatch.setattr(types_module, "local_key", key_on_windows)
    monkeypatch.setattr(types_module, "os", SimpleNamespace(sep="\\"))
    for given, output in (("in", "in"), ("in/sub", "in"), ("in/B.png", "in"), ("in/../in/sub/a.png", "in/sub")):
        with pytest.raises(UsageError, match="lies in the folder of results"):
            Listing([given], BatchOptions(output=output))
    Listing(["in/sub"], BatchOptions(output="in/su"))


@pytest.mark.parametrize(
    ("place", "folder", "expected"),
    [
        ("in", "in", True),
        ("in/sub/a.png", "in/", True),
        ("in", "in/sub", False),
        ("inner/a.png", "in", False),
        ("in", "/", True),
        ("in/a.png", "memory://in", False),
        ("memory://in/a.png", "memory://in/", True),
        ("memory://in/a.png", "memory://", True),
        ("s3://bucket/in/a.png?versionId=1", "s3://bucket", True),
        ("s3://bucket/inner/a.png", "s3://bucket/in", False),
        ("s3://bucket/in/a.png", "gs://bucket/in", False),
    ],
)
def test_a_place_is_inside_a_folder_that_holds_the_place(place: str, folder: str, expected: bool) -> None:
    assert folder_key(parse_place(place)).startswith(folder_key(parse_place(folder))) is expected


@pytest.mark.parametrize(
    ("arguments", "batch", "words"),
    [
        (["-"], BATCH, "not standard input"),
        (["in"], BatchOptions(output="in"), "in lies in the folder of results"),
        (["in/sub"], BatchOptions(output="in"), "in/sub lies in the folder of results"),
        (["in/b.png"], BatchOptions(output="in"), "in/b.png lies in the folder of results"),
        (["in"], BatchOptions(output="out", name="{width}.{ext}"), "could give two results one name"),
        (["@absent.txt"], BATCH, "the list absent.txt cannot be read"),
        (
            ["@zip://absent.txt::scans.zip"],
            BATCH,
            "the list cannot be read: zip://absent.txt::scans.zip does not exist",
        ),
        (["memory://in", "in"], BATCH, "memory://in lies in the memory of one process"),
        (["@in/b.png", "in"], BATCH, "is not text"),
    ],
)
def test_refusals(tree: Path, arguments: list[str], batch: BatchOptions, words: str) -> None:
    Path("in/b.png").write_bytes(b"\x89PNG\xff\xff")
    with pytest.raises(UsageError, match=words):
        list(Listing(arguments, batch).groups())
