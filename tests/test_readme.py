"""The commands in the README work, and are those that continuous integration runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.cli.app import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCKS = [block.strip() for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)]
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def set_up(ending: str) -> list[str]:
    """Return the one-line installations of the README that end with a command."""
    return [block for block in BLOCKS if block.startswith("python3 -m venv ") and block.endswith(f"&& {ending}")]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    [command] = set_up('pytest -m "not slow"')
    assert '-e ".[dev]"' in command and CPU_INDEX in command
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # The locked lists hold what the extra `dev` needs: tests/test_supply_chain.py.
    assert "\nenvironment dev package development\n" in ci and CPU_INDEX.split()[1] in ci
    assert '\npytest -m "not slow"\n' in ci and '\npytest -m "slow"' in ci


def test_installation_ends_with_a_picture_with_or_without_a_gpu() -> None:
    cpu, gpu = set_up("dsclora upscale examples/photo.png -s 4")
    assert gpu == re.sub(r"--retries 1 \S+ \S+ ", "", cpu) and CPU_INDEX in cpu
    assert (ROOT / "examples" / "photo.png").is_file()


def test_versions_are_those_of_the_package() -> None:
    classifiers = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert all(f"Python {version}" in README for version in classifiers)
    [torch] = [line for line in PROJECT["dependencies"] if line.startswith("torch")]
    oldest, newest = re.findall(r"2\.\d+", torch)
    assert f"PyTorch {oldest} to 2.{int(newest.split('.')[1]) - 1}" in README


def test_links_between_pages_are_not_broken() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        assert [target for target in targets if not (page.parent / target).exists()] == [], page.name


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md" and f"]({page.name})" not in index
    ] == []


def test_training_commands_parse() -> None:
    [block] = [block for block in BLOCKS if block.startswith("dsclora distill")]
    for line in block.splitlines():
        assert main([*shlex.split(line)[1:], "--help"]) == 0, line


def test_upscale_commands_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [block for block in BLOCKS if block.startswith("dsclora upscale")]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert len(commands) == 6
    photo = Image.fromarray(np.linspace(0, 255, 16 * 240 * 3).reshape(16, 240, 3).astype(np.uint8))
    (tmp_path / "holiday" / "sea").mkdir(parents=True)
    for name in ("photo.jpg", "holiday/sea/beach.jpg"):
        photo.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert main(command) == 0, command
    written = ("photo_x4.jpg", "poster.png", "large/sea/beach_x4.jpg", "crisp.png")
    assert [Image.open(tmp_path / name).size for name in written] == [(960, 64), (600, 40), (960, 64), (960, 64)]
