"""The native engine in installations: compiled where a C++ compiler is there, left out with a word where none is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from installations import (
    COMPILER,
    NATIVE,
    NO_COMPILER,
    PHOTO,
    build,
    compiled_libraries,
    new_environment,
    run,
    try_build,
    try_run,
    unpacked_sources,
)
from PIL import Image

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="this machine has no C++ compiler")
UPSCALE = ["-m", "dsclora_cli", "upscale", str(PHOTO), "--offline", "--overwrite", "-v", "-o", "large.png"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of its own, so that builds in place change nothing for other tests."""
    return unpacked_sources(tmp_path_factory.mktemp("sources"))


def platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


@needs_compiler
def test_pip_compiles_the_engine_from_a_git_repository(sources: Path, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("this machine has no git")
    repository = tmp_path / "repository"
    shutil.copytree(sources, repository, ignore=shutil.ignore_patterns("*.so"))
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, f"git+{repository.as_uri()}"], check=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.endswith(f"-py3-none-{platform()}.whl")
    python = new_environment(tmp_path / "env", wheel)
    run(python, tmp_path, *UPSCALE, "--engine", "native")
    with Image.open(PHOTO) as small, Image.open(tmp_path / "large.png") as large:
        assert large.size == (4 * small.width, 4 * small.height)


@needs_compiler
def test_an_editable_install_compiles_next_to_the_sources(sources: Path, tmp_path: Path) -> None:
    wheel = build("wheel:editable", tmp_path / "wheel", sources)
    [library] = compiled_libraries(sources)
    assert library.stat().st_size > 10_000
    assert [path.name for path in library.parent.iterdir() if path.name.startswith(".")] == []
    python = new_environment(tmp_path / "env", wheel)
    assert "by native" in try_run(python, tmp_path, *UPSCALE).stderr
    # The next build finds no compiler: a library that may belong to older sources must not stay.
    build("wheel:editable", tmp_path / "again", sources, **NO_COMPILER)
    assert compiled_libraries(sources) == []


def test_without_a_compiler_the_package_is_pure_and_works(sources: Path, tmp_path: Path) -> None:
    done = try_build("wheel:standard", tmp_path / "wheel", sources, **NO_COMPILER)
    [wheel] = (tmp_path / "wheel").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    [line] = [line for line in done.stderr.splitlines() if "without its native engine" in line]
    assert "(CXX=/nonexistent is no program)" in line and "install g++ or clang++" in line
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.startswith(f"{NATIVE}/libdsclora")]
    python = new_environment(tmp_path / "env", wheel)
    assert "by native" not in try_run(python, tmp_path, *UPSCALE).stderr
    refused = try_run(python, tmp_path, *UPSCALE, "--engine", "native")
    assert refused.returncode == 2
    assert "native engine" in refused.stderr and "install g++ or clang++" in refused.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DSCLORA_NATIVE": "require", **NO_COMPILER}, "the native engine cannot be built"),
        ({"DSCLORA_NATIVE": "yes"}, "choose auto, require or off"),
    ],
)
def test_builds_that_cannot_do_as_told_fail(
    sources: Path, tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    done = try_build("wheel:standard", tmp_path, sources, **variables)
    assert done.returncode and words in done.stderr


@needs_compiler
def test_a_failing_compiler_leaves_the_engine_out_and_shows_its_messages(sources: Path, tmp_path: Path) -> None:
    done = try_build("wheel:standard", tmp_path, sources, CXXFLAGS="--no-such-flag")
    assert done.returncode == 0 and "--no-such-flag" in done.stderr and "failed with code 1" in done.stderr
    [wheel] = tmp_path.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
