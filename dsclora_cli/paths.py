"""Where the program keeps what is the user's, how a file is told from another, and how one is written whole."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

APP = "dsclora"


def config_dir() -> Path:
    """The user's settings and own `weights.toml`; `DSCLORA_CONFIG_DIR` overrides the platform's folder."""
    return _overridden("DSCLORA_CONFIG_DIR") or platformdirs.user_config_path(APP, appauthor=False)


def state_dir() -> Path:
    """Records of what was done; `DSCLORA_STATE_DIR` overrides the platform's folder."""
    return _overridden("DSCLORA_STATE_DIR") or platformdirs.user_state_path(APP, appauthor=False)


def cache_dir() -> Path:
    """What can be made again; `DSCLORA_CACHE_DIR` overrides. Weights lie in the Hub's own cache, see `hub`."""
    return _overridden("DSCLORA_CACHE_DIR") or platformdirs.user_cache_path(APP, appauthor=False)


def _overridden(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write to: it becomes `path` when the context is left well, else it goes away.

    So no reader ever sees half a file, and what lay at `path` stays until the new one is whole. Raises OSError.
    """
    temporary = path.with_name(f".dsclora-{secrets.token_hex(8)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, 64 lower-case hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
