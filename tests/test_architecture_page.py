"""docs/architecture.md names rooms, files and functions that exist, and its lists agree with its counts."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dsclora_cli"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)

CALL = re.compile(r"([\w/]+\.py) +(\S+)")
COUNTS = re.compile(r"(\d+) functions in (\d+) files, (\d+) changes of file; \d+ hand on")
STEP = re.compile(r"^\| (`[\w/]+\.py`) \| (`[^|]+`) \|", re.MULTILINE)


def qualified_names(node: ast.AST, prefix: str = "") -> Iterator[str]:
    """Yield the functions, classes and constants below a node, by the names that Python gives code objects."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield f"{prefix}{child.name}"
            yield from qualified_names(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield f"{prefix}{child.name}"
            yield from qualified_names(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield from (f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))
        else:
            yield from qualified_names(child, prefix)


@pytest.fixture(scope="module")
def names() -> dict[str, set[str]]:
    """Return the names in every file of the package, by the path of the file."""
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    return {file: set(qualified_names(ast.parse(text))) for file, text in files.items()}


ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix in {"", ".py"}}


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_file_of_the_page_exists(names: dict[str, set[str]]) -> None:
    files = [name for name in quoted(PROSE) if re.fullmatch(r"[\w/]+\.\w+", name) and name.endswith((".py", ".toml"))]
    assert len(files) > 40
    assert [name for name in files if name not in names and not (ROOT / name).is_file()] == []


def test_every_function_of_a_step_is_in_the_file_of_the_step(names: dict[str, set[str]]) -> None:
    steps = [(file, name) for files, names in STEP.findall(PROSE) for file in quoted(files) for name in quoted(names)]
    assert len(steps) > 50
    assert [(file, name) for file, name in steps if name not in names[file]] == []


def test_every_name_of_the_page_is_a_name_of_the_package(names: dict[str, set[str]]) -> None:
    commands = {"dsclora", "upscale", "eval", "distill", "error"}
    known = set().union(*names.values(), ROOMS, commands)
    used = {name for name in quoted(PROSE) if re.fullmatch(r"[A-Za-z_][\w.]*", name)}
    assert {name for name in used if not name.endswith((".py", ".toml"))} - known == set()


def test_the_rooms_stand_in_the_order_of_imports() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    assert [line.split("  ")[0] for line in BLOCKS[0].splitlines()] == layers


def test_the_listed_functions_exist_and_agree_with_the_counts(names: dict[str, set[str]]) -> None:
    lists = [block for block in BLOCKS if block.startswith("$ python benchmarks/call_path.py --list")]
    assert len(lists) == 3
    for block in lists:
        calls = CALL.findall(block.partition("\n")[2])
        calls = [(file, name) for file, name in calls if file != "benchmarks/call_path.py"]
        gone = [call for call in calls if call[1] not in names.get(call[0], ())]
        assert gone == [], "run the command above the list again, and renew list and table"
        changes = sum(one != other for (one, _), (other, _) in pairwise(calls))
        counts = (len(calls), len(dict(calls)), changes)
        assert COUNTS.findall(block) == [tuple(map(str, counts))]
        assert f"| {counts[0]} | {counts[1]} | {counts[2]} |" in PROSE, "the table shows the counts of the list"
