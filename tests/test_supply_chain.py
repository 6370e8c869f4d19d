"""What `.ci/run` installs is locked with hashes, and the audits of licences and vulnerabilities fail when they must."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LISTS = sorted((ROOT / ".ci" / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# GHSA-8vj2-vxx3-667w as the service OSV describes it: what `.ci/audit` reads of the answer.
ADVISORY = {
    "id": "GHSA-8vj2-vxx3-667w",
    "schema_version": "1.4.0",
    "summary": "Arbitrary expression injection in Pillow",
    "aliases": ["CVE-2022-22817"],
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.0.1"}]}],
        }
    ],
}


def locked() -> dict[str, list[str]]:
    """Return the hashes of every locked requirement, `name==version ; marker`."""
    found = {}
    for path in LISTS:
        for block in re.split(r"^(?=\w)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            found[re.split(r" \\\n|\n", block)[0]] = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
    return found


def declared(extras: set[str]) -> Iterator[Requirement]:
    """Yield what pyproject.toml asks for, with the extras that other extras name."""
    for text in PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            yield from declared(requirement.extras)
        else:
            yield requirement


@pytest.mark.skipif(not LISTS, reason="a source archive holds no locked requirements")
def test_every_locked_file_has_a_version_and_a_hash() -> None:
    requirements = locked()
    assert [path.stem for path in LISTS] == ["development", "package", "torch-cpu", "torch-cuda"]
    assert len(requirements) > 150
    assert [text for text, hashes in requirements.items() if not hashes or "==" not in text] == []


@pytest.mark.skipif(not LISTS, reason="a source archive holds no locked requirements")
def test_the_lock_holds_every_dependency_in_a_version_that_pyproject_admits() -> None:
    versions: dict[str, set[str]] = {}
    for requirement in map(Requirement, locked()):
        versions.setdefault(requirement.name, set()).update(each.version for each in requirement.specifier)
    stale = {
        str(wanted)
        for wanted in declared({"dev", "docs"})
        if not all(map(wanted.specifier.contains, versions.get(wanted.name, {"0"})))
    }
    assert stale == set(), "run: python .ci/lock.py"


def test_every_dependency_has_a_lowest_version() -> None:
    extras = set(PROJECT["optional-dependencies"])
    assert {str(wanted) for wanted in declared(extras) if ">=" not in str(wanted.specifier)} == set()


@contextmanager
def vulnerability_service(advisories: Mapping[str, object]) -> Iterator[str]:
    """Yield the address of a service that answers as OSV does: advisories by `name==version`."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            advisory = advisories.get(f"{asked['package']['name']}=={asked['version']}")
            answer = json.dumps({"vulns": [advisory]} if advisory else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def audit(folder: Path, version: str, address: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of `.ci/audit` over a list that names one version of Pillow."""
    pytest.importorskip("pip_audit")
    (folder / "requirements").mkdir()
    for name in ("package", "development", "torch-cuda"):
        (folder / "requirements" / f"{name}.txt").write_text(f"pillow=={version} --hash=sha256:{'0' * 64}\n")
    shutil.copy(ROOT / ".ci" / "audit", folder)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = [folder / "audit", "--osv-url", address, "--cache-dir", folder]
    return subprocess.run(command, env={**os.environ, "PATH": path}, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_the_audit_fails_on_a_known_vulnerability(tmp_path: Path) -> None:
    with vulnerability_service({"pillow==9.0.0": ADVISORY}) as address:
        done = audit(tmp_path, "9.0.0", address)
    assert done.returncode == 1
    assert "Found 1 known vulnerability in 1 package" in done.stderr
    assert done.stdout.splitlines()[-1].split() == ["pillow", "9.0.0", "CVE-2022-22817", "9.0.1"]


@pytest.mark.slow
def test_the_audit_passes_where_nothing_is_known(tmp_path: Path) -> None:
    with vulnerability_service({"pillow==9.0.0": ADVISORY}) as address:
        done = audit(tmp_path, "11.3.0", address)
    assert (done.returncode, done.stderr.strip()) == (0, "No known vulnerabilities found")


@pytest.mark.slow
def test_the_audit_fails_where_the_service_is_out_of_reach(tmp_path: Path) -> None:
    assert audit(tmp_path, "11.3.0", "http://127.0.0.1:9/").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(("licence", "code"), [("MIT", 0), ("SSPL-1.0", 1), ("GPL-3.0-only", 1), ("UNKNOWN", 1)])
def test_a_licence_that_is_not_listed_fails(tmp_path: Path, licence: str, code: int) -> None:
    pytest.importorskip("piplicenses")
    information = tmp_path / "stranger-1.0.dist-info"
    information.mkdir()
    text = f"Metadata-Version: 2.4\nName: stranger\nVersion: 1.0\nLicense-Expression: {licence}\n"
    (information / "METADATA").write_text(text)
    command = [sys.executable, "-m", "piplicenses", "--packages", "stranger"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, "stranger:1.0" in done.stderr) == (code, bool(code)), done.stderr
