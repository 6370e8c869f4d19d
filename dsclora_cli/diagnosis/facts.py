"""Facts about the machine and the installation: versions, devices, folders, formats, the Hub.

torch is imported only where a GPU may be present.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import psutil

from dsclora_cli import __version__, hub
from dsclora_cli.diagnosis.report import Device, Folder, FormatState, HubAnswer, HubState, Package, System
from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.host import host_memory, usable_cpus
from dsclora_cli.hub_client import HubUnavailable
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.inference.system import may_have_gpu
from dsclora_cli.paths import cache_dir, config_dir, downloads_dir, engines_dir, found_in, is_file, is_link, state_dir
from dsclora_cli.settings import read_file
from dsclora_cli.weights.catalog import EMBEDDED, load_catalog
from dsclora_cli.weights.download import hub_file

_CPU_INFO = Path("/proc/cpuinfo")
_VECTORS = ("sse4_2", "avx2", "fma", "avx512f", "avx512_vnni", "amx_tile", "asimd", "sve")
_OURS = re.compile(r"DSCLORA_|HF_|HUGGINGFACE_|TRANSFORMERS_OFFLINE|(OMP|MKL)_NUM_THREADS|CUDA_VISIBLE_DEVICES|TMPDIR")
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PROXY", re.IGNORECASE)
_PROXIES = re.compile(r"(https?|all|no)_proxy$", re.IGNORECASE)


def describe_system() -> System:
    """Return the facts about the machine and the interpreter."""
    cpu, vectors = _describe_cpu()
    settings, settings_problem = _settings()
    return System(
        dsclora=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        platform=platform.platform(),
        cpu=cpu,
        vector_instructions=vectors,
        cores=usable_cpus(),
        memory=psutil.virtual_memory().total,
        free_memory=host_memory(),
        stdout_encoding=(sys.stdout.encoding or "unknown") if sys.stdout else "closed",
        variables=_variables(),
        settings=settings,
        settings_problem=settings_problem,
    )


def _describe_cpu() -> tuple[str, tuple[str, ...]]:
    """Return the name and the vector instructions of the processor."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine(), ()
    found = {key: re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE) for key in ("model name", "flags", "Features")}
    name = found["model name"]
    flags = found["flags"] or found["Features"]
    vectors = tuple(word for word in _VECTORS if flags and word in flags[1].split())
    return name[1] if name else platform.machine(), vectors


def _variables() -> Mapping[str, str]:
    """Return the environment variables of interest. A report is pasted in public, so a secret becomes "set"."""
    names = sorted(name for name in os.environ if _OURS.match(name) or _PROXIES.fullmatch(name))
    return {name: "set" if _SECRET.search(name) else os.environ[name] for name in names}


def _settings() -> tuple[Mapping[str, str], str]:
    """Return the settings in the user's file by name, and why the file cannot be read."""
    try:
        return {setting.name: setting.value for setting in read_file().values()}, ""
    except UsageError as error:
        return {}, str(error)


def list_packages() -> tuple[Package, ...]:
    """Return the required packages, and the packages of the extras, with installed versions."""
    try:
        requirements = metadata.requires("dsclora") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        requirements = []
    found: dict[str, Package] = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"](\w+)", requirement)
        # These extras are for those who work on dsclora; "dev" names other extras.
        if name and not (extra and extra[1] in {"dev", "docs"}):
            found.setdefault(name[0], Package(name[0], _installed(name[0]), extra[1] if extra else None))
    return tuple(found.values())


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def list_all_devices() -> tuple[Device, ...]:
    """Return the CPU and all GPUs. torch is imported only where a GPU may be present."""
    cpu = Device("cpu", _describe_cpu()[0], psutil.virtual_memory().total, host_memory())
    if not may_have_gpu():
        return (cpu,)
    try:
        from dsclora_cli.inference.device import describe_gpus
    except (ImportError, OSError):  # a broken torch, which the check of the engine reports
        return (cpu,)
    return (cpu, *(Device(gpu.name, gpu.description, gpu.memory, gpu.free_memory) for gpu in describe_gpus()))


def list_folders() -> tuple[Folder, ...]:
    """Return the folders in use by dsclora, with sizes and free space."""
    repos = sorted({hub.repo_folder(file) for file in _hub_files()})
    return tuple(
        _describe_folder(purpose, path, counted)
        for purpose, path, counted in (
            ("configuration", config_dir(), [config_dir()]),
            ("records of finished work", state_dir(), [state_dir()]),
            ("cache", cache_dir(), [cache_dir()]),
            ("cache: weights", downloads_dir(), [downloads_dir()]),
            ("cache: converted networks", engines_dir(), [engines_dir()]),
            ("cache: benchmark sets", cache_dir() / "datasets", [cache_dir() / "datasets"]),
            ("cache: training pictures", cache_dir() / "training", [cache_dir() / "training"]),
            # Other programs keep hundreds of gigabytes in the Hub's cache, and counting them would take minutes.
            ("cache of the Hub", hub.cache_folder(), repos),
            ("embedded weights", EMBEDDED, [EMBEDDED]),
            ("temporary files", _temporary_folder(), []),
        )
    )


def _temporary_folder() -> Path:
    """Return the folder for temporary files; where none can be used, the one that the system would take first."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108


def _describe_folder(purpose: str, path: Path, counted: list[Path]) -> Folder:
    # Nothing is created: looking at a machine must not change the machine.
    existing = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    size = sum(file.lstat().st_size for folder in counted for file in _files(folder))
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        free = 0
    return Folder(purpose, path, size, free, _is_writable(existing))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; a blob of the Hub's cache is counted, and the links to the blob are not."""
    return (path for path in found_in(folder, "**/*") if is_file(path) and not is_link(path))


def _is_writable(folder: Path) -> bool:
    """Return whether a file can be created in a folder; the permissions alone do not tell of a read-only disk.

    A file or a broken link in place of the folder is not writable either.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def list_formats() -> tuple[FormatState, ...]:
    """Return all picture formats, with the command for the missing package of an unusable format."""
    return tuple(
        FormatState(name, format.suffixes, usable, "" if usable else f'pip install "dsclora[{format.extra}]"')
        for name, format in FORMATS.items()
        for usable in [not format.extra or find_spec(format.module) is not None]
    )


def ask_hub(offline: bool) -> HubState:
    """Ask the Hub for the address of a pinned file, and return the answer; nothing is downloaded."""
    endpoint = hub.endpoint()
    if offline or hub.is_offline():
        return HubState(endpoint, HubAnswer.NOT_ASKED)
    files = _hub_files()
    if not files:
        return HubState(endpoint, HubAnswer.NOT_ASKED, problem="no file of the Hub is known")
    start = time.perf_counter()
    try:
        hub.locate_file(files[0])
    except HubUnavailable as error:
        return HubState(endpoint, HubAnswer.NO, problem=error.message, hint=error.step.hint)
    return HubState(endpoint, HubAnswer.YES, round(time.perf_counter() - start, 3))


def _hub_files() -> list[hub.HubFile]:
    """Return the catalog's files on the Hub; none for a broken catalog, because a check reports a broken catalog."""
    try:
        entries = load_catalog().entries.values()
    except DscloraError:
        return []
    return [hub_file(entry, entry.repo) for entry in entries if entry.repo is not None]
