"""Archives: HR pictures are unpacked from every layout, and nothing from an unsafe archive."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from sets import noise, png, tar_gz, zipped

from dsclora_cli.datasets import download
from dsclora_cli.datasets.download import Limits, unpack_hr
from dsclora_cli.errors import ImageError

A, B, LR = png(noise(1)), png(noise(2)), png(noise(3, (7, 5)))

LAYOUTS: dict[str, tuple[Mapping[str, bytes], dict[str, bytes]]] = {
    "one folder": ({"Set5_HR/a.png": A, "Set5_HR/b.png": B}, {"a.png": A, "b.png": B}),
    "no folder": ({"a.png": A, "b.jpg": B}, {"a.png": A, "b.jpg": B}),
    "any name of the only folder": ({"x/y/BSDS100/a.png": A}, {"a.png": A}),
    "HR next to LR": ({"Set5/HR/a.png": A, "Set5/LR_bicubic/X4/ax4.png": LR}, {"a.png": A}),
    "original rather than cropped": (
        {"S/GTmod12/a.png": B, "S/LRbicx4/a.png": LR, "S/original/a.png": A},
        {"a.png": A},
    ),
    "cropped rather than LR": ({"S/GTmod12/a.png": B, "S/LRbicx4/a.png": LR}, {"a.png": B}),
    "HR and LR in one folder": (
        {
            "image_SRF_4/img_001_SRF_4_HR.png": A,
            "image_SRF_4/img_001_SRF_4_LR.png": LR,
            "image_SRF_4/img_001_SRF_4_bicubic.png": B,
            "image_SRF_2/img_001_SRF_2_HR.png": B,
        },
        {"img_001_SRF_2_HR.png": B},
    ),
    "other files": (
        {"S/HR/a.png": A, "S/HR/readme.txt": b"x", "S/HR/.a.png": B, "__MACOSX/S/HR/._a.png": B, "S/run.py": b"x"},
        {"a.png": A},
    ),
}


def unpacked(data: bytes, tmp_path: Path, **limits: int) -> dict[str, bytes]:
    archive = tmp_path / "archive"
    tmp_path.mkdir(exist_ok=True)
    archive.write_bytes(data)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(download, "ARCHIVE_LIMITS", Limits(**limits))
        unpack_hr(archive, tmp_path / "set" / "HR")
    return {path.name: path.read_bytes() for path in (tmp_path / "set" / "HR").iterdir()}


def refused(data: bytes, tmp_path: Path, **limits: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        unpacked(data, tmp_path, **limits)
    assert str(tmp_path / "archive") in caught.value.message
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("pack", [tar_gz, zipped])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hr_pictures_are_found_in_every_layout(
    layout: str, pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path
) -> None:
    files, wanted = LAYOUTS[layout]
    assert unpacked(pack(files), tmp_path) == wanted


def test_a_place_before_the_first_byte_is_damage(tmp_path: Path) -> None:
    whole = zipped({"HR/a.png": A})
    entry, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    for place in (entry + 42, end + 16):  # of the entry, of the list of entries
        for value in (0, 1, 2**31, 2**32 - 1):
            data = whole[:place] + value.to_bytes(4, "little") + whole[place + 4 :]
            if data != whole:
                assert "damaged or truncated" in refused(data, tmp_path / f"{place}-{value}").message


def test_progress_counts_the_bytes_of_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"HR/a.png": A, "HR/b.png": B, "LR/a.png": LR}))
    told: list[tuple[int, int]] = []
    unpack_hr(tmp_path / "a.zip", tmp_path / "HR", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(len(A), len(A) + len(B)), (len(A) + len(B), len(A) + len(B))]


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "HR/../../a.png", "C:/a.png", "..\\a.png", "HR/a\n.png"])
@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_path_out_of_the_folder_is_refused(
    name: str, pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path
) -> None:
    error = refused(pack({"HR/good.png": A, name: B}), tmp_path)
    assert "leads out of the archive's own folder" in error.message
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive"]


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_name_longer_than_file_systems_hold_is_refused(
    pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path
) -> None:
    error = refused(pack({"HR/good.png": A, f"HR/{'x' * 300}.png": B}), tmp_path)
    assert "has a part longer than 255 bytes" in error.message and not (tmp_path / "set").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, "/etc/passwd"
    assert "HR/b.png is a link or a device" in refused(tar_gz({"HR/a.png": A, "HR/b.png": info}), tmp_path).message
    assert not (tmp_path / "set").exists()


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(zipped({"HR/a.png": A}))
    with zipfile.ZipFile(buffer, "a") as packed:
        link = zipfile.ZipInfo("HR/b.png")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    assert "HR/b.png is a link or a device" in refused(buffer.getvalue(), tmp_path).message
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_bomb_is_noticed_before_anything_is_written(
    pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path
) -> None:
    bomb = pack({"HR/a.png": bytes(8_000_000)})
    assert f"more than the {100 * len(bomb)} bytes allowed" in refused(bomb, tmp_path).message
    assert "more than the 500 bytes allowed" in refused(pack({"a.png": A}), tmp_path, size=500).message
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_by_a_rare_method_is_refused(method: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        packed.writestr("HR/a.png", A)
    assert "packed by another method than deflate" in refused(buffer.getvalue(), tmp_path).message


def test_a_tar_header_that_asks_for_all_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    error = refused(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)), tmp_path)
    assert "a header asks for 1099511627776 bytes" in error.message


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_too_many_entries_are_refused(pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path) -> None:
    many = pack({f"HR/{i}.png": A for i in range(6)})
    assert "more than 5 entries" in refused(many, tmp_path, entries=5).message
    assert len(unpacked(many, tmp_path, entries=6)) == 6


@pytest.mark.parametrize("pack", [tar_gz, zipped])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_archive_is_reported(
    kept: float, pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path
) -> None:
    data = pack({f"HR/{i}.png": os.urandom(20_000) for i in range(4)})
    error = refused(data[: int(len(data) * kept)], tmp_path)
    assert "damaged or truncated" in error.message
    assert "remove the file and run again" in error.hint


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_changed_byte_is_reported(pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path) -> None:
    data = bytearray(pack({"HR/a.png": os.urandom(20_000)}))
    data[9_000] ^= 1
    assert "damaged or truncated" in refused(bytes(data), tmp_path).message


def test_ambiguous_archives_are_refused(tmp_path: Path) -> None:
    assert "holds no pictures" in refused(tar_gz({"HR/readme.txt": b"x"}), tmp_path).message
    assert "holds a.png twice" in refused(tar_gz({"HR/a.png": A, "HR/A.PNG": B}), tmp_path).message
    error = refused(tar_gz({"one/a.png": A, "two/a.png": B}), tmp_path)
    assert error.message.endswith("its pictures lie in several folders, none of them named HR: one, two")
