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
import tifffile
from PIL import Image
from sets import noise, save

from dsclora_cli.datasets import cache as cache_module
from dsclora_cli.datasets.cache import TrainCache, content_hash
from dsclora_cli.errors import DscloraError, ImageError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import atomic_write, cache_dir, remove_abandoned_files, sha256_of


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save(tmp_path / "photo.png", noise())


def _files() -> list[str]:
    return sorted(path.name for path in (cache_dir() / "training").iterdir())


def test_hr_and_lr_are_stored_by_content(photo: Path) -> None:
    cache = TrainCache()
    hr = cache.add_file(photo).pages[0]
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
    name = cache.add_file(photo).pages[0]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        cache.open(name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_are_hashed_once_unless_they_change(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(cache_module, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    first = TrainCache().add_file(photo).pages[0]
    assert TrainCache().add_file(photo).pages[0] == first
    assert hashed == [photo]

    save(photo, noise(1))
    second = TrainCache().add_file(photo).pages[0]
    assert second != first
    assert TrainCache().add_file(photo).pages[0] == second
    assert hashed == [photo, photo]

    moved = photo.rename(photo.with_name("moved.png"))
    monkeypatch.setattr(cache_module, "open_pages", lambda path: pytest.fail("decoded again"))
    assert TrainCache().add_file(moved).pages[0] == second


def test_a_line_cut_off_in_the_index_spoils_no_other_line(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = save(photo.with_name("other.png"), noise(1))
    names = [TrainCache().add_file(photo).pages[0]]
    with (cache_dir() / "training" / "index.jsonl").open("a") as index:
        index.write('\n["/somewhere", 12, 4')
    names.append(TrainCache().add_file(other).pages[0])

    monkeypatch.setattr(cache_module, "sha256_of", lambda path: pytest.fail("hashed again"))
    assert [TrainCache().add_file(path).pages[0] for path in (photo, other)] == names


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01", b"something else, and more of it"])
def test_damaged_arrays_are_decoded_again(photo: Path, damage: bytes) -> None:
    cache = TrainCache()
    path = cache.folder / cache.add_file(photo).pages[0]
    for left in (damage, path.read_bytes()[:-1]):
        path.write_bytes(left)
        with pytest.raises(
            DscloraError, match=r"cannot read .*hr.npy: .* \(run again: missing files are decoded again\)"
        ):
            cache.open(path.name)
        assert np.array_equal(cache.open(cache.add_file(photo).pages[0]), noise())


def test_old_temporary_files_are_removed_and_new_ones_kept() -> None:
    folder = cache_dir() / "training"
    folder.mkdir(parents=True)
    for name in ("dead", "alive"):
        (folder / f".dsclora-{name}.part").touch()
    os.utime(folder / ".dsclora-dead.part", (0, 0))
    TrainCache()
    assert _files() == [".dsclora-alive.part"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell one start of the machine from another")
def test_a_file_that_is_still_written_stays_whatever_the_age() -> None:
    cache = TrainCache()
    cache.folder.mkdir(parents=True)
    with atomic_write(cache.folder / "slow.npy") as temporary:
        temporary.write_bytes(b"half")
        os.utime(temporary, (0, 0))
        remove_abandoned_files.cache_clear()  # as in another process
        TrainCache()
        assert temporary.exists()
    assert _files() == ["slow.npy"]


def test_a_missing_picture_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone.png: No such file"):
        TrainCache().add_file(tmp_path / "gone.png")


def test_a_full_disk_is_an_error_and_leaves_no_partial_file(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(file: object, array: np.ndarray) -> None:
        file.write(b"some")  # type: ignore[attr-defined]
        raise OSError(f"{array.size} requested and 4 written")  # as numpy says it, without a number

    monkeypatch.setattr(np, "save", fill)
    message = r"hr.npy: 1914 requested and 4 written \(check .* and the free space, or set DSCLORA_CACHE_DIR"
    with pytest.raises(DscloraError, match=message):
        TrainCache().add_file(photo).pages[0]
    assert _files() == ["index.jsonl"]


def test_a_read_only_cache_serves_the_pictures_it_holds(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = TrainCache().add_file(photo).pages[0]
    copy = shutil.copy(photo, photo.with_name("copy.png"))
    monkeypatch.setattr(Path, "open", _only_for_reading(Path.open))
    assert TrainCache().add_file(copy).pages[0] == name
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
        names = set(pool.map(lambda _: cache.add_lr(cache.add_file(photo).pages[0], 2), range(16)))
    assert len(names) == 1
    assert len(_files()) == 3


@pytest.mark.slow
def test_processes_may_fill_the_cache_at_once(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{seed}.png", noise(seed)) for seed in range(20)]
    script = """
import sys
from pathlib import Path
from dsclora_cli.datasets.cache import TrainCache
cache = TrainCache()
for path in sys.argv[1:]:
    cache.add_lr(cache.add_file(Path(path)).pages[0], 2)
"""
    command = [sys.executable, "-c", script, *map(str, paths)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]

    cache = TrainCache()
    assert len(_files()) == 41
    for seed, path in enumerate(paths):
        assert np.array_equal(cache.open(cache.add_file(path).pages[0]), noise(seed))


@pytest.mark.parametrize("key", ["../../stolen", "/tmp/stolen", 7, None, ["a"], "A" * 64])
def test_a_hash_in_the_index_that_is_no_hash_counts_for_nothing(photo: Path, key: object) -> None:
    status = photo.stat()
    index = cache_dir() / "training" / "index.jsonl"
    index.parent.mkdir(parents=True)
    index.write_text(json.dumps([str(photo), status.st_size, status.st_mtime_ns, key]) + "\n" + "[" * 100_000)
    assert TrainCache().add_file(photo).pages[0] == f"{sha256_of(photo)}.hr.npy"


@pytest.mark.parametrize("pages", ["0", "-3", "1e999", "[]", "null", '"x"'])
def test_a_number_of_pages_that_is_none_leaves_no_picture_out(photo: Path, pages: str) -> None:
    cache = TrainCache()
    whole = cache.add_file(photo)
    (cache.folder / f"{sha256_of(photo)}.json").write_text(f'{{"pages": {pages}, "conversions": []}}')
    assert cache.add_file(photo) == whole


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


def _three_pages(path: Path) -> list[np.ndarray]:
    """Write a TIFF of three transparent pages of 16 bits, and return what training sees: 8 bits, on white."""
    pages = np.random.default_rng(0).integers(0, 65536, (3, 20, 24, 4), np.uint16)
    pages[..., 3] = 65535  # opaque
    pages[1, :5, :, 3] = 0
    tifffile.imwrite(path, pages, photometric="rgb", extrasamples=["unassalpha"])
    seen = np.rint(pages[..., :3] / 257).astype(np.uint8)
    seen[1, :5] = 255
    return list(seen)


def test_pages_of_16_bits_with_transparency_are_stored_as_8_bit_rgb(tmp_path: Path) -> None:
    expected = _three_pages(tmp_path / "scan.tif")
    cache = TrainCache()
    file = cache.add_file(tmp_path / "scan.tif")

    assert file.conversions == ("depth", "alpha")
    assert len({content_hash(name) for name in file.pages}) == 3
    for name, page in zip(file.pages, expected, strict=True):
        assert np.array_equal(cache.open(name), page)
        assert np.array_equal(cache.open(cache.add_lr(name, 2)), downscale(page, 2))


@pytest.mark.parametrize(
    "lost", ["HASH.hr.npy", "HASH-p2.hr.npy", "HASH-p3.hr.npy", "HASH.json", "the end of HASH.json"]
)
def test_files_of_several_pages_are_decoded_once_unless_a_part_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    expected = _three_pages(tmp_path / "scan.tif")
    first = TrainCache().add_file(tmp_path / "scan.tif")
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "open_pages", lambda path: pytest.fail("decoded again"))
        assert TrainCache().add_file(tmp_path / "scan.tif") == first

    part = cache_dir() / "training" / lost.removeprefix("the end of ").replace("HASH", sha256_of(tmp_path / "scan.tif"))
    if lost.startswith("the end"):
        part.write_text('{"pages"')
    else:
        part.unlink()
    if lost == "HASH.json":  # a crash before any array was written
        part.with_suffix(".hr.npy").unlink()
    cache = TrainCache()
    assert cache.add_file(tmp_path / "scan.tif") == first
    assert all(np.array_equal(cache.open(name), page) for name, page in zip(first.pages, expected, strict=True))


def test_floats_are_rounded_to_8_bits_and_other_values_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 24, 3), np.float32)
    tifffile.imwrite(tmp_path / "unit.tif", values, photometric="rgb")
    cache = TrainCache()
    assert np.array_equal(cache.open(cache.add_file(tmp_path / "unit.tif").pages[0]), np.rint(values * 255.0))
    for name, wrong in (("hdr", 3.0), ("nan", np.nan)):
        values[3, 4] = wrong
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="rgb")
        with pytest.raises(ImageError, match=rf"{name}.tif: .*(values|NaN)"):
            TrainCache().add_file(tmp_path / f"{name}.tif")


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    cache = TrainCache()
    file = cache.add_file(tmp_path / "a.webp")
    assert len(file.pages) == 1
    assert "frames" in file.conversions
    assert np.array_equal(cache.open(file.pages[0]), noise(0))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a thing of Unix")
def test_pipes_are_never_opened(tmp_path: Path, photo: Path) -> None:
    """An opened pipe would wait for ever for a writer."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(ImageError, match=f"{name}: is no regular file, but a pipe"):
            TrainCache().add_file(tmp_path / name)
    cache = TrainCache()
    stored = cache.folder / cache.add_file(photo).pages[0]
    (cache.folder / "index.jsonl").unlink()
    os.mkfifo(cache.folder / "index.jsonl")
    stored.unlink()
    os.mkfifo(stored)
    with pytest.raises(DscloraError, match="a pipe or a device has this name"):
        TrainCache().add_file(photo)
    stored.unlink()
    assert np.array_equal(cache.open(TrainCache().add_file(photo).pages[0]), noise())
