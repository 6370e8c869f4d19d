"""Say in one line why an object cannot be read, written or listed. Secrets stay out of every line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dsclora_cli.errors import DscloraError, ImageUnreadable, ImageUnwritable, UsageError, first_line
from dsclora_cli.storage.places import RemotePlace, without_secrets

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("adlfs", "azure")),
    **dict.fromkeys(("http", "https"), ("aiohttp", "remote")),
}
"""Package and extra by scheme."""

_CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or log in with `az login`",
    "hf": "set HF_TOKEN",
}
_RIGHTS = "check the credentials and the rights of the account"
_DENIED = {"http": "get a new address: a signature ends after some time"}
_KINDS = {"https": "http", "s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}
_NO_CREDENTIALS = ("Credential", "Unauthenticated", "TokenRetrieval")
_UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ConnectorError", "ReadTimeout", "TimeoutError", "gaierror")
"""Parts of names of exceptions: each library of a storage has exceptions of its own."""


@contextmanager
def named_failures(place: RemotePlace, kind: type[ImageUnreadable | ImageUnwritable]) -> Iterator[None]:
    """Turn any exception of a storage into one line that names the place.

    Args:
        place: Object or folder at work.
        kind: Exception to raise: ImageUnreadable or ImageUnwritable.

    Raises:
        UsageError: A package is missing, or no package knows the kind of storage: all pictures there are concerned.
        DscloraError: The exception of `kind`, for every other failure.
    """
    try:
        yield
    except DscloraError:
        raise
    except ImportError as error:
        raise _missing_package(place, error) from error
    except Exception as error:  # noqa: BLE001 - every library of a storage has exceptions of its own
        reason, hint = _explain(place, error)
        # The exceptions of some libraries carry the whole address, and a traceback would show a signature.
        hidden = None if without_secrets(str(error)) != str(error) or str(place) != place.url else error
        raise kind(f"{place}: {reason}", hint) from hidden


def lacks_bucket(error: FileNotFoundError) -> bool:
    """Return whether a storage says that the whole bucket is absent, and not only an object."""
    return any(words in str(error) for words in ("specified bucket does not exist", "ContainerNotFound"))


def _missing_package(place: RemotePlace, error: ImportError) -> UsageError:
    package, extra = _PACKAGES.get(place.scheme, ("fsspec", "remote"))
    if place.scheme not in _PACKAGES and error.name != "fsspec":
        return UsageError(f"{place}: {_line_of(error)}", "install the package")
    return UsageError(f"{place.scheme}:// needs {package}", f'pip install "dsclora[{extra}]"')


def _explain(place: RemotePlace, error: Exception) -> tuple[str, str]:
    """Return the reason of a failure and the next step."""
    names, line = " ".join(each.__name__ for each in type(error).__mro__), _line_of(error)
    kind = _KINDS.get(place.scheme, place.scheme)
    reason, hint = line, "check the URL, and run again"
    if isinstance(error, FileNotFoundError):
        reason = "the bucket does not exist" if lacks_bucket(error) else "does not exist"
        hint = "check the URL"
    elif any(part in names for part in _NO_CREDENTIALS):
        reason, hint = "no credentials were found", _CREDENTIALS.get(kind, _RIGHTS)
    elif isinstance(error, PermissionError) or getattr(error, "status", None) in {401, 403}:
        reason, hint = f"access denied ({line})", _DENIED.get(kind, _RIGHTS)
    elif any(part in names for part in _UNREACHABLE):
        endpoint = " and AWS_ENDPOINT_URL" if kind == "s3" else ""
        reason, hint = f"cannot be reached ({line})", f"check the connection{endpoint}, and run again"
    elif isinstance(error, NotImplementedError):
        reason, hint = f"{place.scheme}:// cannot do this", "choose another place"
    return reason, hint


def _line_of(error: Exception) -> str:
    """Return the text of an exception on one line, without secrets."""
    if isinstance(error, OSError) and error.strerror:  # the text of the exception would begin with a number
        error = OSError(error.strerror)
    return without_secrets(first_line(error))
