"""The client of the Hugging Face Hub: settings, headers, connection, progress bar and silence.

`hub` decides what to request. Nothing here trusts a server: no name and no size that a server sends is used.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from dsclora_cli import __version__
from dsclora_cli.errors import WeightsError
from dsclora_cli.transfer import OnWatch, Watch, within

HUB = "https://huggingface.co"

TOKEN_SECONDS = 10.0
"""Longest wait for the token, which the client may have to renew."""

_BLOCK_BYTES = 2**12
_MOST_REDIRECTS = 5


class HubUnavailable(WeightsError):
    """The Hub cannot give a file: no internet, no permission, or no such file."""

    def __init__(self, reason: str, message: str, hint: str, instead: str = "") -> None:
        super().__init__(message, hint, instead)
        self.reason = reason
        """The reason in a few words, for sentences about a fallback."""


def online_step(by_option: bool, by_variable: bool) -> str:
    """Return the next step for a file that is not here: to run online, without what made the program offline."""
    causes = ["--offline"] * by_option + ["HF_HUB_OFFLINE"] * by_variable
    return f"run once without {' and '.join(causes)}"


def check_settings(endpoint: str) -> None:
    """Raise HubUnavailable for settings that the client would stumble over while Python imports the client."""
    for variable in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(variable)
        if value and not re.fullmatch(r"\s*[1-9][0-9]{0,4}\s*", value):
            hint = f"set {variable} to a number of seconds, or unset it"
            raise HubUnavailable(f"{variable} is no number", f"{variable} is {value[:40]!r}, no whole number", hint)
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an IPv6 address, a port that is no number
        is_address = False
    if not is_address or not endpoint.isprintable():
        hint = f"set HF_ENDPOINT to an address like {HUB}, or unset it"
        raise HubUnavailable("HF_ENDPOINT is no web address", f"HF_ENDPOINT is {endpoint[:80]!r}, no web address", hint)


def start_client() -> dict[str, str]:
    """Return the headers of a request, after the start of the client. Raises HubUnavailable."""
    client = _utils()
    try:
        client.get_session()
    except ImportError as error:
        raise _lacks_socks(str(error), "socksio") from error
    except OSError as error:
        raise _lacks_certificates(str(error), "SSL_CERT_FILE and SSL_CERT_DIR") from error
    except ValueError as error:
        hint = "check HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        raise HubUnavailable("unusable proxy", f"the proxy cannot be used: {error}", hint) from error
    try:
        # Not by the client's `build_hf_headers`, which asks the Hub for a list of AI agents, and reports the found one.
        token = None if _is_without_token() else within(TOKEN_SECONDS, client.get_token)
        (token or "").encode("ascii")
    except Exception as error:
        hint = "check HF_TOKEN and the file at HF_TOKEN_PATH, or log in again"
        raise HubUnavailable("token not readable", f"the token cannot be read: {one_line(error)}", hint) from error
    # Bytes are counted as they come: a compressed answer could unpack to any size.
    headers = {"user-agent": f"dsclora/{__version__}", "accept-encoding": "identity"}
    return headers | ({"authorization": f"Bearer {token}"} if token else {})


def _is_without_token() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_DISABLE_IMPLICIT_TOKEN)


def _utils() -> Any:  # noqa: ANN401 (the functions have no declared types in all versions)
    """Return the client's module of helpers. Imported from its own place: the package itself prints when it fails."""
    import huggingface_hub.utils

    return huggingface_hub.utils


@dataclass(frozen=True)
class Answer:
    """The answer to a GET request, whose body is still to come."""

    status: int
    headers: Mapping[str, str]
    blocks: Iterable[bytes]

    @property
    def length(self) -> int | None:
        """Return the number of bytes to come, if the server says."""
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch("[0-9]{1,18}", text) else None

    def starts_at(self, start: int) -> bool:
        """Return whether the body continues a file from byte `start` on."""
        return self.status == 206 and self.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def head(url: str, headers: Mapping[str, str], seconds: float) -> Mapping[str, str]:
    """Return the headers of an answer to HEAD, after redirects that stay on the same server.

    The answer that leads to another server, which holds the bytes, tells commit and etag. Raises the client's errors.
    """
    session = _utils().get_session()
    redirects = "follow_redirects" if _is_httpx(session) else "allow_redirects"
    for _ in range(_MOST_REDIRECTS):
        answer = session.request("HEAD", url, headers=headers, timeout=seconds, **{redirects: False})
        _utils().hf_raise_for_status(answer)
        target = urljoin(url, answer.headers.get("Location", ""))
        if target == url or urlsplit(target)[:2] != urlsplit(url)[:2]:
            break
        url = target
    found: Mapping[str, str] = answer.headers
    return found


def _is_httpx(session: object) -> bool:
    """Return whether the client brings httpx, as from version 1.0 on, and not requests."""
    return callable(getattr(session, "stream", None))  # requests has a flag of this name


@contextmanager
def stream(url: str, headers: Mapping[str, str], seconds: float) -> Iterator[Answer]:
    """Yield the answer to a GET request, through the client's connection with its proxies and certificates."""
    session = _utils().get_session()
    if _is_httpx(session):
        with session.stream("GET", url, headers=headers, timeout=seconds, follow_redirects=True) as answer:
            yield Answer(answer.status_code, answer.headers, answer.iter_raw())
    else:
        with session.get(url, headers=headers, timeout=seconds, stream=True) as answer:
            yield Answer(answer.status_code, answer.headers, answer.iter_content(_BLOCK_BYTES))


def connection_errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions of the client's HTTP library (httpx2, httpx or requests)."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0], OSError


def connection_failure(error: BaseException, endpoint: str, purpose: str, instead: str) -> HubUnavailable:
    """Return the error for users for a failed connection, by the name of the exception's class.

    Names, because the client may bring one of several HTTP libraries, each with its own classes.

    Args:
        error: Exception of the client.
        endpoint: Address of the Hub.
        purpose: What the connection was for, such as a file of a repository.
        instead: Another way to reach the user's aim, in the imperative.
    """
    if setting := _setting_failure(error):
        return setting
    exception = type(error).__name__
    hint = "check the internet connection, proxy and HF_ENDPOINT"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        hint = "check the clock of this machine and SSL_CERT_FILE"
        return HubUnavailable("certificate not trusted", f"{endpoint} shows no trusted certificate", hint)
    if "Timeout" in exception:
        return HubUnavailable("time-out", f"{endpoint} did not answer in time for {purpose}", hint, instead)
    if exception in {"ConnectError", "ConnectionError", "OfflineModeIsEnabled"}:
        return HubUnavailable("no internet", f"cannot reach {endpoint} for {purpose}", hint, instead)
    if isinstance(error, connection_errors()):
        return HubUnavailable("connection lost", f"the connection to {endpoint} broke during {purpose}", "try again")
    message = f"the client of the Hub failed for {purpose}: {exception}: {one_line(error)}"
    return HubUnavailable("failure of the Hub's client", message, hint, instead)


def _setting_failure(error: BaseException) -> HubUnavailable | None:
    """Return the error for a setting that the client notices only now; None for every other failure.

    Clients before version 1 bring requests, which looks for certificates and for SOCKS at the first connection.
    """
    if "CA certificate bundle" in str(error):
        return _lacks_certificates(one_line(error), "REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE")
    if "SOCKS support" in str(error):
        return _lacks_socks(one_line(error), "PySocks")
    return None


def _lacks_certificates(problem: str, variables: str) -> HubUnavailable:
    """Return the error for certificates that the HTTP library cannot read, with the variables that name them."""
    hint = f"check {variables}, or unset them"
    return HubUnavailable("certificates not readable", f"the certificates cannot be read: {problem}", hint)


def _lacks_socks(problem: str, package: str) -> HubUnavailable:
    """Return the error for a SOCKS proxy, with the package that the HTTP library needs."""
    hint = f"install the package {package}, or unset ALL_PROXY"
    return HubUnavailable("no support for the SOCKS proxy", f"the proxy cannot be used: {problem}", hint)


@contextmanager
def progress_bar(file: str) -> Iterator[OnWatch]:
    """Yield the callback of the client's progress bar, which is shown if stderr is a terminal."""
    with _utils().tqdm(desc=file.rpartition("/")[2][-40:], unit="B", unit_scale=True, disable=None) as bar:

        def on_watch(watch: Watch) -> None:
            bar.total = watch.total
            bar.update(watch.received - bar.n)

        yield on_watch


def one_line(error: BaseException | str) -> str:
    """Return the first line of a text, or of an exception's text, without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(error).partition("\n")[0])[:160]


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep the client from describing this machine in the headers of the requests that the client builds itself.

    The client would add the version of torch, and ask the Hub for a list of AI agents to report the found one.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


@contextmanager
def quiet_client() -> Iterator[None]:
    """Import the client, and keep it from writing: the program raises or repairs all errors itself.

    HF_DEBUG and HF_HUB_VERBOSITY switch the client's messages on.
    """
    if "huggingface_hub.file_download" not in sys.modules:
        # The client prints errors of its own import to stdout, which belongs to pictures and JSON.
        with redirect_stdout(io.StringIO()):
            import huggingface_hub.file_download  # noqa: F401
    import logging

    # After the import of the client, because the import sets the level.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if os.environ.get("HF_DEBUG") or os.environ.get("HF_HUB_VERBOSITY"):
        yield
        return
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
