"""Settings of the Hub's client that mean nothing: `auto` goes on with the weights of the package, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOWHERE, SECURE = "http://127.0.0.1:9", "https://127.0.0.1:9"


def certificates(path: str) -> dict[str, str]:
    """Return settings of the two HTTP libraries that versions of the client bring."""
    return {"HF_ENDPOINT": SECURE, "SSL_CERT_FILE": path, "REQUESTS_CA_BUNDLE": path}


CASES = {
    "socks": ({"HF_ENDPOINT": SECURE, "ALL_PROXY": "socks5://127.0.0.1:9"}, "no support for the SOCKS proxy"),
    "socks4": ({"HF_ENDPOINT": SECURE, "ALL_PROXY": "socks4://127.0.0.1:9"}, "unusable proxy"),
    "proxy": ({"HF_ENDPOINT": SECURE, "HTTPS_PROXY": "http://127.0.0.1:port"}, ""),
    "no certificates": (certificates("/nowhere/ca.pem"), "certificates not readable"),
    "other file": (certificates(__file__), "certificates not readable"),
    "token": ({"HF_TOKEN_PATH": sys.executable}, "token not readable"),
    "token folder": ({"HF_TOKEN_PATH": "."}, "token not readable"),
    "letters": ({"HF_TOKEN": "hf_\u00e9"}, "token not readable"),
    "endpoint": ({"HF_ENDPOINT": "http://[bad"}, "HF_ENDPOINT is no web address"),
    "no scheme": ({"HF_ENDPOINT": "huggingface.co"}, "HF_ENDPOINT is no web address"),
    "port": ({"HF_ENDPOINT": "http://127.0.0.1:99999"}, "HF_ENDPOINT is no web address"),
    "control": ({"HF_ENDPOINT": "http://a\x1b[2J"}, "HF_ENDPOINT is no web address"),
    "probe": ({"HF_HUB_ETAG_TIMEOUT": "ten"}, "HF_HUB_ETAG_TIMEOUT is no number"),
    "download": ({"HF_HUB_DOWNLOAD_TIMEOUT": "2.5"}, "HF_HUB_DOWNLOAD_TIMEOUT is no number"),
    "never": ({"HF_HUB_ETAG_TIMEOUT": "-1"}, "HF_HUB_ETAG_TIMEOUT is no number"),
}
CODE = """
from dsclora_cli.config import ModelOptions
from dsclora_cli.weights.resolve import find_weights
found = find_weights(ModelOptions(), 4)
with open("note", "w") as file:
    file.write(f"{found.name}: {found.note}")
"""


FAST = {"socks", "no certificates", "token", "probe"}


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_auto_survives_a_setting_that_means_nothing(name: str, tmp_path: Path) -> None:
    settings, reason = CASES[name]
    ended = subprocess.run(  # a new process, because the client reads most settings while Python imports the client
        [sys.executable, "-c", CODE],
        env={**os.environ, **settings},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    note = (tmp_path / "note").read_text()
    assert note.startswith(f"dsclora-x4: dscf-x4 could not be fetched ({reason}")
    assert note.isprintable()
