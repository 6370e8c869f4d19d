"""The cache of decoded pictures: contents, damage, several processes."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sets import noise, save

from dsclora_cli.datasets import cache
from dsclora_cli.datasets.cache import TrainCache, content_hash
from dsclora_cli.errors import DscloraError, ImageError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import cache_dir, sha256_of


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save(tmp_path / "photo.png", noise())


def _files() -> list[str]:
    return sorted(path.name for path in (cache_dir() / "training").iterdir())


def test_hr_and_lr_are_stored_by_content(photo: Path) -> None:
    cache = TrainCache()
    hr = cache.add_picture(photo)
    lr = cache.add_lr(hr, 3)

    assert content_hash(hr) == content_hash(lr) == sha256_of(photo)
    assert _files() == sorted([hr, lr, "index.jsonl"])
    assert np.array_equal(cache.open(hr), noise())
    assert np.array_equal(cache.open(lr), downscale(noise(), 3))
    assert np.array_equal(np.load(cache.folder / hr), noise())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_arrays_are_mapped_read_only(dtype: type) -> None:
    cache = TrainCache()
    array = np.arange(-30, 30).astype(dtype).reshape(4, 5, 3)
    mapped = cache.open(cache.add("some.npy", lambda: array))

    assert mapped.dtype == dtype
    assert np.array_equal(mapped, array)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
def test_no_file_stays_open(photo: Path) -> None:
    cache = TrainCache()
    name = cache.add_picture(photo)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        cache.open(name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_are_hashed_once_unless_they_change(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(cache, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    first = TrainCache().add_picture(photo)
    assert TrainCache().add_picture(photo) == first
    assert hashed == [photo]

    save(photo, noise(1))
    second = TrainCache().add_picture(photo)
    assert second != first
    assert TrainCache().add_picture(photo) == second
    assert hashed == [photo, photo]

    moved = photo.rename(photo.with_name("moved.png"))
    monkeypatch.setattr(cache, "read_rgb", lambda path: pytest.fail("decoded again"))
    assert TrainCache().add_picture(moved) == second


def test_a_line_cut_off_in_the_index_spoils_no_other_line(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = save(photo.with_name("other.png"), noise(1))
    names = [TrainCache().add_picture(photo)]
    with (cache_dir() / "training" / "index.jsonl").open("a") as index:
        index.write('\n["/somewhere", 12, 4')
    names.append(TrainCache().add_picture(other))

    monkeypatch.setattr(cache, "sha256_of", lambda path: pytest.fail("hashed again"))
    assert [TrainCache().add_picture(path) for path in (photo, other)] == names


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01", b"something else, and more of it"])
def test_damaged_arrays_are_decoded_again(photo: Path, damage: bytes) -> None:
    cache = TrainCache()
    path = cache.folder / cache.add_picture(photo)
    for left in (damage, path.read_bytes()[:-1]):
        path.write_bytes(left)
        with pytest.raises(
            DscloraError, match=r"cannot read .*hr.npy: .* \(run again: missing files are decoded again\)"
        ):
            cache.open(path.name)
        assert np.array_equal(cache.open(cache.add_picture(photo)), noise())


def test_old_temporary_files_are_removed_and_new_ones_kept() -> None:
    folder = cache_dir() / "training"
    folder.mkdir(parents=True)
    for name in ("dead", "alive"):
        (folder / f".dsclora-{name}.part").touch()
    os.utime(folder / ".dsclora-dead.part", (0, 0))
    TrainCache()
    assert _files() == [".dsclora-alive.part"]


def test_a_missing_picture_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone.png: No such file"):
        TrainCache().add_picture(tmp_path / "gone.png")


def test_a_full_disk_is_an_error_and_leaves_no_partial_file(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(file: object, array: np.ndarray) -> None:
        file.write(b"some")  # type: ignore[attr-defined]
        raise OSError(f"{array.size} requested and 4 written")  # as numpy says it, without a number

    monkeypatch.setattr(np, "save", fill)
    message = r"cannot write .*hr.npy: 1914 requested and 4 written \(free some space, or set DSCLORA_CACHE_DIR"
    with pytest.raises(DscloraError, match=message):
        TrainCache().add_picture(photo)
    assert _files() == ["index.jsonl"]


def test_a_read_only_cache_serves_the_pictures_it_holds(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = TrainCache().add_picture(photo)
    copy = shutil.copy(photo, photo.with_name("copy.png"))
    monkeypatch.setattr(Path, "open", _only_for_reading(Path.open))
    assert TrainCache().add_picture(copy) == name
    with pytest.raises(DscloraError, match=r"cannot write .*: Read-only file system"):
        TrainCache().add_lr(name, 2)


def _only_for_reading(opened):
    def wrapped(path: Path, mode: str = "r", *args, **options):
        if mode not in {"r", "rb"}:
            raise OSError(30, "Read-only file system")
        return opened(path, mode, *args, **options)

    return wrapped


def test_threads_may_add_the_same_picture(photo: Path) -> None:
    cache = TrainCache()
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: cache.add_lr(cache.add_picture(photo), 2), range(16)))
    assert len(names) == 1
    assert len(_files()) == 3


def test_processes_may_fill_the_cache_at_once(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{seed}.png", noise(seed)) for seed in range(20)]
    script = """
import sys
from pathlib import Path
from dsclora_cli.datasets.cache import TrainCache
cache = TrainCache()
for path in sys.argv[1:]:
    cache.add_lr(cache.add_picture(Path(path)), 2)
"""
    command = [sys.executable, "-c", script, *map(str, paths)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]

    cache = TrainCache()
    assert len(_files()) == 41
    for seed, path in enumerate(paths):
        assert np.array_equal(cache.open(cache.add_picture(path)), noise(seed))


@pytest.mark.parametrize("key", ["../../stolen", "/tmp/stolen", 7, None, ["a"], "A" * 64])
def test_a_hash_in_the_index_that_is_no_hash_counts_for_nothing(photo: Path, key: object) -> None:
    status = photo.stat()
    index = cache_dir() / "training" / "index.jsonl"
    index.parent.mkdir(parents=True)
    index.write_text(json.dumps([str(photo), status.st_size, status.st_mtime_ns, key]) + "\n" + "[" * 100_000)
    assert TrainCache().add_picture(photo) == f"{sha256_of(photo)}.hr.npy"


@pytest.mark.parametrize("descr", ["O", "|O", "|V8", "<U2", "<M8[s]"])
def test_a_file_of_the_cache_holds_numbers_only(descr: str) -> None:
    cache = TrainCache()
    name = cache.add("some.npy", lambda: np.zeros((2, 2, 2), np.int64).astype("<i8"))
    path = cache.folder / name
    path.write_bytes(path.read_bytes().replace(b"'<i8'", f"'{descr}'".encode()))
    with pytest.raises(DscloraError, match="unknown header"):
        cache.open(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_in_the_cache_are_not_read(photo: Path) -> None:
    (cache_dir() / "training").mkdir(parents=True)
    os.mkfifo(cache_dir() / "training" / "index.jsonl")
    os.mkfifo(cache_dir() / "training" / f"{sha256_of(photo)}.hr.npy")
    with pytest.raises(DscloraError, match="regular"):
        TrainCache().open(f"{sha256_of(photo)}.hr.npy")
