"""Names of places: local paths, URLs, archives; and texts without secrets."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from dsclora_cli.storage.places import RemotePlace, absolute_place, parse_place, without_secrets


def place(url: str) -> RemotePlace:
    found = parse_place(url)
    assert isinstance(found, RemotePlace)
    return found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.png", "a.png"),
        ("/data/a b.png", "/data/a b.png"),
        ("C:\\photos\\a.png", "C:\\photos\\a.png"),
        ("file:///data/a%20b.png", "/data/a b.png"),
        ("FILE:///data/a.png", "/data/a.png"),
        ("file://localhost/data/a.png", "/data/a.png"),
    ],
)
def test_paths_and_file_urls_are_local(text: str, path: str) -> None:
    assert parse_place(text) == Path(path)


@pytest.mark.parametrize(
    ("url", "name", "suffix", "parent", "sibling", "below"),
    [
        ("s3://b/in/a.png", "a.png", ".png", "s3://b/in", "s3://b/in/z.jpg", "s3://b/in/a.png/q"),
        ("s3://b/in/", "in", "", "s3://b", "s3://b/z.jpg", "s3://b/in/q"),
        ("s3://my.bucket", "my.bucket", ".bucket", "s3://my.bucket", "s3://my.bucket/z.jpg", "s3://my.bucket/q"),
        ("S3://b/what?.png", "what?.png", ".png", "s3://b", "s3://b/z.jpg", "s3://b/what?.png/q"),
        ("memory://a.png", "a.png", ".png", "memory://", "memory://z.jpg", "memory://a.png/q"),
        (
            "zip://in/a.png::s3://b/x.zip",
            *("a.png", ".png", "zip://in::s3://b/x.zip", "zip://in/z.jpg::s3://b/x.zip"),
            "zip://in/a.png/q::s3://b/x.zip",
        ),
        ("zip://::x.zip", "", "", "zip://::x.zip", "zip://z.jpg::x.zip", "zip://q::x.zip"),
        (
            "https://h/a.png?Sig=1",
            "a.png",
            ".png",
            "https://h?Sig=1",
            "https://h/z.jpg?Sig=1",
            "https://h/a.png/q?Sig=1",
        ),
    ],
)
def test_a_url_has_the_names_of_a_path(url: str, name: str, suffix: str, parent: str, sibling: str, below: str) -> None:
    found = place(url)
    assert (found.name, found.suffix, found.parent.url) == (name, suffix, parent)
    assert (found.with_name("z.jpg").url, (found / "q").url, (found / Path()).url) == (sibling, below, found.url)


def test_a_slash_at_the_end_makes_no_other_place() -> None:
    assert place("s3://b/in/").key == place("s3://b/in").key
    assert place("s3://b/in").key != place("s3://b/IN").key


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://b/a.png", "s3://b/a.png"),
        ("https://h/a.png?X-Amz-Signature=SECRET&X-Amz-Expires=60", "https://h/a.png?..."),
        ("sftp://me:SECRET@h/a.png", "sftp://...@h/a.png"),
        ("zip://a.png::https://h/x.zip?sig=SECRET", "zip://a.png::https://h/x.zip?..."),
        ("zip://a.png?sig=SECRET::s3://key:SECRET@b/x.zip", "zip://a.png?...::s3://...@b/x.zip"),
        ("403, url='https://me:SECRET@h/a?sig=SECRET' (no)", "403, url='https://...@h/a?...' (no)"),
        ("is a@b.org in s3://b/what?.png", "is a@b.org in s3://b/what?.png"),
    ],
)
def test_texts_hold_no_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    if "://" in text.split(maxsplit=1)[0] and " " not in text:
        assert str(place(text)) == shown
        assert "SECRET" not in repr(place(text))


def test_the_url_leads_to_an_equal_place() -> None:
    found = place("https://h/a.png?sig=SECRET")
    assert parse_place(found.url) == found
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    ("archive", "whole"),
    [("x.zip", "{here}/x.zip"), ("zip://y.zip::x.zip", "zip://y.zip::{here}/x.zip"), ("S3://b/x.zip", "s3://b/x.zip")],
)
def test_an_absolute_place_names_the_archive_for_other_folders(
    archive: str, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_place(RemotePlace(f"zip://a.png::{archive}")) == f"zip://a.png::{whole.format(here=tmp_path)}"


def test_a_place_outside_of_archives_has_no_archive() -> None:
    assert RemotePlace("s3://b/a.png").archive is None
