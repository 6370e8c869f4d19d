"""Installations: the wheel, an editable checkout, and a checkout that is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image

import dsclora_cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"dscf-x4", "dsclora-x4", "dscf-x4-plus"}
EMBEDDED = sorted(ROOT.glob("dsclora_cli/weights/embedded/*.safetensors"))
WHERE = """
import json, dsclora_cli
from dsclora_cli.weights.catalog import load_catalog
print(json.dumps([dsclora_cli.__file__, list(load_catalog().entries)]))
"""


def build(target: str, folder: Path, source: Path = ROOT) -> Path:
    """Build a source tree with hatchling; the target is "sdist", "wheel:standard" or "wheel:editable"."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def beyond_the_weights(archive: Path) -> int:
    """Return the bytes of an archive without the embedded weights, which do not compress."""
    return archive.stat().st_size - sum(path.stat().st_size for path in EMBEDDED)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel:standard", tmp_path_factory.mktemp("wheel"))


def new_environment(folder: Path, wheel: Path | None) -> Path:
    """Return the interpreter of a new environment with the dependencies, and with the wheel if given."""
    venv.create(folder, symlinks=os.name == "posix")
    site = next(folder.rglob("site-packages"))
    (site / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    if wheel:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_and_the_project_have_the_same_version() -> None:
    assert dsclora_cli.__version__ == PROJECT["version"]


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "dsclora_cli" / "py.typed").is_file()


@pytest.mark.slow
def test_wheel_carries_the_catalog_the_weights_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith("/METADATA"))).decode())
        catalog = archive.read("dsclora_cli/weights.toml")
    assert catalog == (ROOT / "weights.toml").read_bytes()
    embedded = {path.relative_to(ROOT).as_posix() for path in EMBEDDED}
    assert embedded and embedded | {"dsclora_cli/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dsclora_cli", "dsclora"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert "torch<2.14,>=2.6" in metadata.get_all("Requires-Dist", [])
    assert beyond_the_weights(wheel) < 250_000


@pytest.mark.slow
def test_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", tmp_path / "sdist")
    assert beyond_the_weights(archive) < 1_000_000
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    rebuilt = build("wheel:standard", tmp_path / "wheel", source=tmp_path / archive.name.removesuffix(".tar.gz"))
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(rebuilt) as theirs:
        assert theirs.namelist() == ours.namelist()


@pytest.mark.slow
def test_installed_wheel_finds_its_catalog_and_upscales_offline(wheel: Path, tmp_path: Path) -> None:
    python = new_environment(tmp_path / "env", wheel)
    package, models = json.loads(run(python, tmp_path, "-c", WHERE))
    assert Path(package).is_relative_to(tmp_path) and set(models) >= OURS
    photo, result = ROOT / "examples" / "photo.png", tmp_path / "large.png"
    run(python, tmp_path, "-m", "dsclora_cli", "upscale", str(photo), "-s", "4", "--offline", "-o", str(result))
    with Image.open(photo) as small, Image.open(result) as large:
        assert large.size == (4 * small.width, 4 * small.height)


@pytest.mark.slow
def test_editable_install_finds_the_catalog_of_the_checkout(tmp_path: Path) -> None:
    python = new_environment(tmp_path / "env", build("wheel:editable", tmp_path / "wheel"))
    package, models = json.loads(run(python, tmp_path, "-c", WHERE))
    assert Path(package).is_relative_to(ROOT) and set(models) >= OURS


@pytest.mark.slow
def test_source_checkout_finds_its_catalog_without_an_install(tmp_path: Path) -> None:
    python = new_environment(tmp_path / "env", None)
    package, models = json.loads(run(python, ROOT, "-c", WHERE))
    assert Path(package).is_relative_to(ROOT) and set(models) >= OURS
