"""Rules of CONTRIBUTING.md that no other tool checks: lengths, parameters, cycles, slow imports, and the tree."""

from __future__ import annotations

import ast
import graphlib
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dsclora_cli.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "dsclora_cli").rglob("*.py"))
SCRIPTS = sorted(path for folder in ("benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))

TOP_LEVEL = {
    *(".ci", ".dockerignore", ".editorconfig", ".gitattributes", ".github", ".gitignore"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "NOTICE", "README.md", "SECURITY.md"),
    *("benchmarks", "docs", "dsclora_cli", "examples", "hatch_build.py", "mkdocs.yml", "pyproject.toml", "tests"),
    "weights.toml",
}
SLOW_TO_IMPORT = ["torch", "numpy", "PIL", "huggingface_hub", "fsspec", "tifffile", "imagecodecs", "safetensors"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(paths: list[Path]) -> Iterator[tuple[str, Function]]:
    """Yield every function with the place to report."""
    for path in paths:
        for node in ast.walk(tree(path)):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.name}", node


def body_length(function: Function) -> int:
    """Count the lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1


def walk_at_runtime(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below a node, except those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from walk_at_runtime(child)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Return the modules of the package that a file imports at run time, inside functions too."""
    names: set[str] = set()
    for node in walk_at_runtime(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & known


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_files_have_at_most_500_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def test_folders_hold_at_most_20_modules() -> None:
    folders = Counter(path.parent for path in PACKAGE if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > 20} == {}


def test_function_bodies_have_at_most_50_lines_and_nine_in_ten_under_30() -> None:
    lengths = {place: body_length(node) for place, node in functions(PACKAGE + SCRIPTS)}
    assert {place: lines for place, lines in lengths.items() if lines > 50} == {}
    assert statistics.quantiles([body_length(node) for _, node in functions(PACKAGE)], n=10)[-1] < 30


def commands() -> set[str]:
    """Return the names of functions that are commands, of the program or of a group."""

    def registers(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "command"

    nodes = (node for path in PACKAGE for node in ast.walk(tree(path)) if isinstance(node, Function))
    return {
        *(function for _, function, _ in COMMANDS.values()),
        *(node.name for node in nodes if any(map(registers, node.decorator_list))),
    }


@pytest.mark.slow
def test_functions_take_at_most_six_parameters_except_commands() -> None:
    crowded = {}
    for place, function in functions(PACKAGE):
        arguments = function.args
        names = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {
            "self",
            "cls",
        }
        if len(names) > 6 and not (place.startswith("dsclora_cli/cli/") and function.name in commands()):
            crowded[place] = len(names)
    assert crowded == {}


def test_there_are_no_circular_imports() -> None:
    modules = {module_name(path): path for path in PACKAGE}
    graph = {name: imported_modules(path, set(modules)) - {name, "dsclora_cli"} for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_top_level_holds_no_unexpected_files() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: build products cannot be told from files of the project")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert {name.split("/")[0] for name in listed if (ROOT / name).exists()} == TOP_LEVEL


def test_golden_files_are_small() -> None:
    golden = ROOT / "tests" / "golden"
    assert sum(path.stat().st_size for path in golden.rglob("*") if path.is_file()) < 150_000


HELP_OF_ALL_COMMANDS = """
import sys
import dsclora_cli, typer
from dsclora_cli.cli.app import application, main

def commands(command, path):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, [*path, name])

lines = [[*path, "--help"] for path in commands(typer.main.get_command(application()), [])] + [["--version"]]
for arguments in lines:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    loaded = [name for name in %r if name in sys.modules]
    print("RAN", " ".join(arguments), code or 0, *loaded)
"""


def test_help_and_version_import_nothing_slow() -> None:
    script = HELP_OF_ALL_COMMANDS % SLOW_TO_IMPORT
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RAN ")]
    assert [line for line in lines if not line.endswith(("--help 0", "--version 0"))] == []
    assert {"RAN --help 0", "RAN upscale --help 0", "RAN models list --help 0", "RAN --version 0"} <= set(lines)


def tree_of_contributing() -> set[str]:
    """Return the paths that the tree in CONTRIBUTING.md names; indentation tells the folder of a line."""
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")[1]
    folders: list[str] = []
    files = set()
    for line in filter(None, tree.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        if name.endswith("/"):
            folders[depth:] = [name]
        else:
            files.add("".join(folders[:depth]) + name)
    return files


def test_the_tree_in_contributing_has_a_line_for_every_module() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE if path.name != "__init__.py"}
    named = {name for name in tree_of_contributing() if name.startswith("dsclora_cli/") and name.endswith(".py")}
    assert named - {"dsclora_cli/__init__.py"} == modules


def test_commands_in_hints_have_double_quotes() -> None:
    """`cmd.exe` passes single quotes on to pip as a part of the name."""
    lines = [(path.name, line) for path in PACKAGE for line in path.read_text(encoding="utf-8").splitlines()]
    assert [place for place in lines if re.search(r"pip install .*'dsclora\[", place[1])] == []


def test_looks_at_paths_cannot_fail() -> None:
    """`Path.exists` and its like raise where a folder may not be entered; `dsclora_cli.paths` has functions instead."""
    looks = {"exists", "is_dir", "is_file", "is_symlink"}
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.func.attr}"
        for path in PACKAGE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in looks
        # `os.path`, in paths.py; entries of archives and of folders, which know what they are.
        and ast.unparse(node.func.value) not in {"os.path", "info", "entry"}
    ]
    assert found == []
