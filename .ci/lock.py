"""Write the locked requirements in `.ci/requirements` again: `python .ci/lock.py --upgrade`.

Every file that `.ci/run` installs is there with version and sha256, for Linux, macOS and Windows, and all
supported versions of Python. Without `--upgrade` the versions stay, and only changes of pyproject.toml are resolved.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "requirements"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
COOLDOWN = "7 days"
"""Age of the newest file that is locked: most malicious releases are found and withdrawn within days."""

HEADS = {
    "package": "What dsclora needs without its extras, but PyTorch.",
    "development": "What the extras `dev` and `docs` need besides.",
    "torch-cpu": "PyTorch for CPUs, of PyTorch's own index.",
    "torch-cuda": "PyTorch of the standard index: for CUDA on Linux, where it needs 3 GB of further packages.",
}
"""First line of each file, by name."""

Blocks = Mapping[str, str]
"""Lines of a requirements file by package and marker: version, hashes, and a comment on who needs the package."""


def main(arguments: list[str]) -> None:
    """Resolve all dependencies, and write one file for each of the installations in `.ci/run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, not those that are locked")
    parser.add_argument(
        "--wheel",
        type=Path,
        action="append",
        default=[],
        help="a wheel of PyTorch for CPUs, for want of its index",
    )
    given = parser.parse_args(arguments)
    before = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.txt")))
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder, "everything.txt")
        everything.write_text("" if given.upgrade else before, encoding="utf-8")
        _compile(everything, "--extra", "dev", "--extra", "docs")
        package = Path(folder, "package.txt")
        package.write_text(everything.read_text(encoding="utf-8"), encoding="utf-8")
        _compile(package)
        resolved, needed = _blocks(everything.read_text(encoding="utf-8")), _blocks(package.read_text(encoding="utf-8"))
    files: dict[str, dict[str, str]] = {name: {} for name in HEADS}
    for key, block in resolved.items():
        files[_file_of(key, needed)][key] = block
    (torch,) = (key for key in files["torch-cuda"] if key.startswith("torch=="))
    files["torch-cpu"] = _for_cpus(torch, before, given.wheel)
    for name, blocks in files.items():
        head = f"# {HEADS[name]}\n# Made by `python .ci/lock.py`; not to be edited.\n"
        (FOLDER / f"{name}.txt").write_text(head + "".join(blocks.values()), encoding="utf-8")


def _compile(output: Path, *options: str) -> None:
    """Resolve pyproject.toml with uv; versions that stand in the output file are kept."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--exclude-newer", COOLDOWN, "--output-file", str(output)]
    subprocess.run([*command, *options, "pyproject.toml"], cwd=ROOT, check=True)


def _blocks(text: str) -> dict[str, str]:
    """Split a requirements file at the lines that begin with a name."""
    parts = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    parts = [re.sub(r"^#.*\n", "", part, flags=re.MULTILINE) for part in parts]
    return {re.split(r" \\\n| *\n", part, maxsplit=1)[0]: part for part in parts}


def _file_of(key: str, needed: Blocks) -> str:
    name = key.partition("==")[0]
    if name in {"torch", "triton"} or name.startswith(("nvidia-", "cuda-")):
        return "torch-cuda"
    return "package" if any(name == other.partition("==")[0] for other in needed) else "development"


def _for_cpus(key: str, before: str, wheels: Iterable[Path]) -> dict[str, str]:
    """Return the build of PyTorch for CPUs of the same version, with the hashes of its index or of given files.

    Without the index, the hashes of the earlier lock stay.
    """
    version = re.split(r"==| ", key)[1] + "+cpu"
    kept = [block for name, block in _blocks(before).items() if name.startswith(f"torch=={version}")]
    hashes = _listed(version) or {each for block in kept for each in re.findall(r"sha256:([0-9a-f]{64})", block)}
    fitting = [path for path in wheels if path.name.startswith(f"torch-{version}-")]
    hashes |= {hashlib.sha256(path.read_bytes()).hexdigest() for path in fitting}
    if not hashes:
        raise SystemExit(
            f"no hash of torch {version}: its index is out of reach; name the file of a wheel with --wheel"
        )
    # Without a marker: where no such file is, the installation fails, and the other list is installed.
    lines = [f"torch=={version}", *(f"    --hash=sha256:{each}" for each in sorted(hashes))]
    return {lines[0]: " \\\n".join(lines) + "\n"}


def _listed(version: str) -> set[str]:
    """Return the hashes in the index of builds for CPUs, none where the index is out of reach."""
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=20) as answer:
            page = answer.read().decode()
    except (urllib.error.URLError, TimeoutError):
        print("the index of builds for CPUs is out of reach: the hashes of the earlier lock stay")
        return set()
    name = f"torch-{re.escape(version)}".replace(r"\+", r"(?:\+|%2B)")
    return set(re.findall(rf"{name}-cp3\d+-cp3\d+-(?:many)?linux[^#\"]*\.whl#sha256=([0-9a-f]{{64}})", page))


if __name__ == "__main__":
    main(sys.argv[1:])
