"""Failures of storages in one line: missing packages, refusals, lost connections, and no secret in any of them."""

from __future__ import annotations

import sys
import tomllib
import traceback
from pathlib import Path

import fsspec
import pytest

from dsclora_cli.errors import DscloraError, ImageUnreadable, ImageUnwritable, UsageError
from dsclora_cli.storage import failures
from dsclora_cli.storage.failures import named_failures
from dsclora_cli.storage.objects import find_object, write_object
from dsclora_cli.storage.places import RemotePlace

ROOT = Path(__file__).parents[2]


class EndpointConnectionError(Exception):
    """As botocore calls it."""


class ClientResponseError(Exception):
    """As aiohttp calls it; the text has the whole address."""

    status = 403


def failure(url: str, error: Exception) -> DscloraError:
    with pytest.raises(ImageUnreadable) as caught, named_failures(RemotePlace(url), ImageUnreadable):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("url", "error", "line"),
    [
        ("s3://b/a.png", FileNotFoundError("b/a.png"), "s3://b/a.png: does not exist (check the URL)"),
        (
            "s3://b/a.png",
            FileNotFoundError("The specified bucket does not exist"),
            "s3://b/a.png: the bucket does not exist (check the URL)",
        ),
        (
            "s3://b/a.png",
            PermissionError("Access Denied"),
            "s3://b/a.png: access denied (Access Denied) (check the credentials and the rights of the account)",
        ),
        (
            "s3://b/a.png",
            EndpointConnectionError("no way"),
            "s3://b/a.png: cannot be reached (no way) (check the connection and AWS_ENDPOINT_URL, and run again)",
        ),
        (
            "https://h/a.png?sig=SECRET",
            ClientResponseError("url='https://h/a.png?sig=SECRET'"),
            f"https://h/a.png?...: access denied (url='https://h/a.png?...') ({failures._DENIED['http']})",
        ),
        ("az://c/a.png", ValueError("odd\nsecond line"), "az://c/a.png: odd (check the URL, and run again)"),
        ("az://c/a.png", KeyError(), "az://c/a.png: KeyError (check the URL, and run again)"),
        ("gs://b/a.png", NotImplementedError(), "gs://b/a.png: gs:// cannot do this (choose another place)"),
    ],
)
def test_every_failure_is_a_line_with_the_url_and_the_next_step(url: str, error: Exception, line: str) -> None:
    assert str(failure(url, error)) == line


def test_no_traceback_shows_a_secret() -> None:
    error = failure("https://h/a.png?sig=SECRET", ClientResponseError("403, url='https://h/a.png?sig=SECRET'"))
    shown = "".join(traceback.format_exception(error))
    assert "SECRET" not in shown
    kept = failure("s3://b/a.png", ValueError("odd"))
    assert "ValueError: odd" in "".join(traceback.format_exception(kept))


@pytest.mark.parametrize(
    ("url", "module", "line"),
    [
        ("gs://b/a.png", "gcsfs", 'gs:// needs gcsfs (pip install "dsclora[gcs]")'),
        ("az://c/a.png", "adlfs", 'az:// needs adlfs (pip install "dsclora[azure]")'),
        ("s3://b/a.png", "s3fs", 's3:// needs s3fs (pip install "dsclora[s3]")'),
        ("memory://a.png", "fsspec", 'memory:// needs fsspec (pip install "dsclora[remote]")'),
    ],
)
def test_a_missing_package_is_named_with_the_command(
    url: str, module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fsspec.__version__  # imported, so that the registry can be emptied
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as caught:
        find_object(RemotePlace(url))
    assert str(caught.value) == line


def test_every_extra_that_a_message_names_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for package, extra in failures._PACKAGES.values():
        assert any(package in need or "http" in need for need in extras[extra])


def test_an_unknown_kind_and_a_read_only_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="foo:// is no kind of storage that fsspec knows"):
        find_object(RemotePlace("foo://a.png"))
    with pytest.raises(ImageUnwritable, match=r"zip://a\.png::x\.zip: nothing can be written to zip://"):
        write_object(RemotePlace("zip://a.png::x.zip"), b"")
