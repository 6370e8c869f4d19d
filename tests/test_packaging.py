"""Installations: the wheel, an editable checkout, and a checkout that is not installed."""

from __future__ import annotations

import json
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from installations import COMPILER, NATIVE, PHOTO, ROOT, build, new_environment, run, unpacked_sources
from PIL import Image

import dsclora_cli

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"dscf-x4", "dsclora-x4", "dscf-x4-plus"}
EMBEDDED = sorted(ROOT.glob("dsclora_cli/weights/embedded/*.safetensors"))
WHERE = """
import json, dsclora_cli
from dsclora_cli.weights.catalog import load_catalog
print(json.dumps([dsclora_cli.__file__, list(load_catalog().entries)]))
"""


def beyond_the_weights(archive: Path) -> int:
    """Return the bytes of an archive without the embedded weights, which do not compress."""
    return archive.stat().st_size - sum(path.stat().st_size for path in EMBEDDED)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel:standard", tmp_path_factory.mktemp("wheel"))


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
    compiled = {f"{NATIVE}/libdsclora_native.so"} if COMPILER else set()
    assert {name for name in names if name.startswith(f"{NATIVE}/") and not name.endswith(".py")} == compiled
    assert metadata["Requires-Python"] == ">=3.11"
    assert "torch<2.14,>=2.6" in metadata.get_all("Requires-Dist", [])
    assert beyond_the_weights(wheel) < 450_000


@pytest.mark.slow
def test_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sources = unpacked_sources(tmp_path / "sdist")
    [archive] = (tmp_path / "sdist").glob("*.tar.gz")
    assert beyond_the_weights(archive) < 1_900_000
    rebuilt = build("wheel:standard", tmp_path / "wheel", sources)
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(rebuilt) as theirs:
        assert theirs.namelist() == ours.namelist()


@pytest.mark.slow
def test_installed_wheel_finds_its_catalog_and_upscales_offline(wheel: Path, tmp_path: Path) -> None:
    python = new_environment(tmp_path / "env", wheel)
    package, models = json.loads(run(python, tmp_path, "-c", WHERE))
    assert Path(package).is_relative_to(tmp_path) and set(models) >= OURS
    result = tmp_path / "large.png"
    run(python, tmp_path, "-m", "dsclora_cli", "upscale", str(PHOTO), "-s", "4", "--offline", "-o", str(result))
    with Image.open(PHOTO) as small, Image.open(result) as large:
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
