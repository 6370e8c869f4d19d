"""Pairing of HR and LR files by name, and errors that name files without a partner."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsclora_cli.datasets.benchmarks import open_folder, pair_folders
from dsclora_cli.errors import UsageError


def folders(tmp_path: Path, hr: list[str], lr: list[str]) -> tuple[Path, Path]:
    for folder, names in (("hr", hr), ("lr", lr)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path / "hr", tmp_path / "lr"


def refused(hr: Path, lr: Path | None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        pair_folders(hr, lr, 4)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("hr", "lr", "name"),
    [
        ("baby.png", "baby.png", "baby"),
        ("baby.png", "babyx4.png", "baby"),
        ("baby.jpg", "babyX4.bmp", "baby"),
        ("baby.png", "baby_x4.png", "baby"),
        ("baby.png", "baby_LR.png", "baby"),
        ("baby.png", "baby_LRx4.png", "baby"),
        ("baby.png", "baby_x4_LR.png", "baby"),
        ("0801.png", "0801x4m.png", "0801"),
        ("baby_HR.png", "baby_LR.png", "baby"),
        ("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png", "img_001"),
        ("max4.png", "max4x4.png", "max4"),
        ("max4.png", "max4.png", "max4"),
        ("x4.png", "x4.png", "x4"),
        ("3096.png", "3096x4.png", "3096"),
    ],
)
def test_names_that_pair(hr: str, lr: str, name: str, tmp_path: Path) -> None:
    (pair,) = pair_folders(*folders(tmp_path, [hr], [lr]), 4)
    assert (pair.name, pair.hr, pair.lr) == (name, tmp_path / "hr" / hr, tmp_path / "lr" / lr)


def test_the_order_of_names_does_not_matter(tmp_path: Path) -> None:
    pairs = pair_folders(*folders(tmp_path, ["b.png", "a.png", "a1.png"], ["ax4.png", "a1x4.png", "bx4.png"]), 4)
    assert [(pair.name, pair.lr.name) for pair in pairs if pair.lr] == [
        ("a", "ax4.png"),
        ("a1", "a1x4.png"),
        ("b", "bx4.png"),
    ]


def test_without_lr_every_picture_is_a_pair_and_other_files_are_ignored(tmp_path: Path) -> None:
    hr, _ = folders(tmp_path, ["b.png", "a_HR.jpg", "notes.txt", ".c.png"], [])
    assert [(pair.name, pair.lr) for pair in pair_folders(hr, None, 4)] == [("a", None), ("b", None)]


def test_hr_without_lr_is_named(tmp_path: Path) -> None:
    error = refused(*folders(tmp_path, [f"p{i}.png" for i in range(9)], ["p0x4.png"]))
    assert error.message.startswith("p1.png, p2.png, p3.png, p4.png, p5.png and 3 more: without an LR picture in ")
    assert error.message.endswith("such as p1x4.png")


def test_lr_without_hr_and_lr_of_another_scale_are_named(tmp_path: Path) -> None:
    error = refused(*folders(tmp_path, ["a.png"], ["ax4.png", "bx4.png", "ax2.png"]))
    assert error.message.startswith("ax2.png, bx4.png: in ")
    assert "paired by name" in error.hint


def test_two_pictures_with_one_partner_are_named(tmp_path: Path) -> None:
    hr, lr = folders(tmp_path, ["a.png"], ["a.png", "ax4.png"])
    assert refused(hr, lr).message == f"a.png, ax4.png: LR pictures of one HR picture, {hr / 'a.png'}"
    (lr / "ax4.png").unlink()
    (hr / "a_HR.bmp").touch()
    assert refused(hr, lr).message == f"a.png, a_HR.bmp: HR pictures of one LR picture, {lr / 'a.png'}"


def test_without_lr_two_pictures_may_have_one_name_unless_scores_are_told_apart_by_names(tmp_path: Path) -> None:
    hr, _ = folders(tmp_path, ["a.png", "a.bmp", "a_HR.png"], [])
    assert [(pair.name, pair.hr.name) for pair in pair_folders(hr, None, 4)] == [
        ("a", "a.bmp"),
        ("a", "a.png"),
        ("a", "a_HR.png"),
    ]
    with pytest.raises(UsageError) as caught:
        open_folder(hr, None, 4)
    assert caught.value.message == f"{hr / 'a.bmp'} and {hr / 'a.png'} share the name a, so their scores would too"


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    hr, lr = folders(tmp_path, ["a.png"], [])
    assert refused(tmp_path / "none", None).message == f"there is no folder {tmp_path / 'none'}"
    assert refused(hr / "a.png", None).message == f"{hr / 'a.png'} is a file, not a folder"
    assert refused(hr, lr).message == f"{lr} holds no pictures"
    assert refused(lr, None).message == f"{lr} holds no pictures"
