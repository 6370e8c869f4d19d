"""The report of `dsclora doctor` as text, and the progress line on a terminal."""

from __future__ import annotations

import faulthandler
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.text import Text

from dsclora_cli.cli import console
from dsclora_cli.diagnosis.report import (
    Check,
    Diagnosis,
    DoctorCallbacks,
    Folder,
    HubAnswer,
    HubState,
    Outcome,
    Package,
    System,
)
from dsclora_cli.errors import escape_control
from dsclora_cli.settings import unknown_variables


class DoctorProgress(DoctorCallbacks):
    """Context manager that shows the current step on a terminal."""

    def __init__(self, quiet: bool) -> None:
        stderr = console.stderr()
        self._status = None if quiet or not stderr.is_terminal else stderr.status("")

    def __enter__(self) -> DoctorProgress:
        """Return the object itself, with the line on the terminal."""
        # A library for another processor ends the process by a signal: then Python at least says where.
        with suppress(OSError, ValueError, RuntimeError):  # stderr is closed, or no real file
            faulthandler.enable(sys.stderr)
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line."""
        faulthandler.disable()
        if self._status:
            self._status.stop()

    def on_step(self, name: str) -> None:
        """Show the step that starts."""
        if self._status:
            self._status.update(Text(escape_control(name)))


def show_diagnosis(found: Diagnosis) -> None:
    """Write the whole report to stdout, in sections."""
    for heading, fields in _sections(found).items():
        console.print_line(heading)
        if not fields:
            console.print_line("  none")
        console.show_fields({f"  {label}": _without_home(value) for label, value in fields.items()})
        console.print_line("")
    for check in found.checks:
        console.print_line(_check_line(check))
    if found.checks:
        passed = sum(check.outcome is Outcome.PASS for check in found.checks)
        skipped = len(found.checks) - passed - found.failed
        console.print_line(f"{passed} passed, {found.failed} failed, {skipped} skipped")


def show_failures(found: Diagnosis) -> None:
    """Write failed checks only to stdout."""
    for check in found.checks:
        if check.outcome is Outcome.FAIL:
            console.print_line(_check_line(check))


def _check_line(check: Check) -> str:
    hint = f" ({check.hint})" if check.hint else ""
    return _without_home(f"{check.outcome}  {check.name}: {check.detail}{hint} [{check.seconds:.1f} s]")


def _sections(found: Diagnosis) -> Mapping[str, Mapping[str, str]]:
    """Return the fields of every section by heading."""
    system = found.system
    unknown = unknown_variables()
    vectors = f" ({' '.join(system.vector_instructions)})" if system.vector_instructions else ""
    return {
        "Versions": {
            "dsclora": system.dsclora,
            "Python": system.python,
            "system": system.platform,
            "encoding": system.stdout_encoding,
            **{
                package.name: package.version or f"not installed: pip install {_requirement(package)}"
                for package in found.packages
            },
        },
        "Devices": {
            "processor": f"{system.cpu}, {system.cores} cores{vectors}",
            **{
                device.name: f"{device.description}, {_memory(device.free_memory, device.memory)}"
                for device in found.devices
            },
        },
        "Engines": {
            **{engine.name: engine.problem or "can run" for engine in found.engines},
            "auto takes": _auto(found),
        },
        "Folders": {folder.purpose: _folder(folder) for folder in found.folders},
        "Hugging Face Hub": {"address": found.hub.endpoint, "answers": _hub_answer(found.hub)},
        "Formats": {format.name: format.hint or " ".join(format.suffixes) for format in found.formats},
        "Methods of other packages": {
            plugin.name: f"{plugin.package} {plugin.version}" + (f": {plugin.problem}" if plugin.problem else "")
            for plugin in found.methods
        },
        "Environment": {
            name: f"{value} (has no effect)" if name in unknown else value for name, value in system.variables.items()
        },
        "Settings": _settings(system),
    }


def _settings(system: System) -> Mapping[str, str]:
    if system.settings_problem:
        return {"cannot be read": system.settings_problem}
    return system.settings


def _requirement(package: Package) -> str:
    """Return what pip must install to add a package: the extra with the package, or a required package itself."""
    return f'"dsclora[{package.extra}]"' if package.extra else package.name


def _memory(free: int, total: int) -> str:
    of = f" of {console.format_bytes(total)}" if total else ""
    return f"{console.format_bytes(free)}{of} free"


def _auto(found: Diagnosis) -> str:
    auto = found.auto
    return auto.problem or f"{auto.engine} on {auto.device} in {auto.dtype}: {auto.reason}"


def _folder(folder: Folder) -> str:
    written = "" if folder.writable else ", not writable"
    size = console.format_bytes(folder.size) if folder.size else "no files of dsclora"
    free = console.format_bytes(folder.free)
    return f"{folder.path}: {size}, {free} free on the disk{written}"


def _without_home(text: str) -> str:
    """Return a text with ~ for the home folder: the report is pasted in public, and the folder has the user's name."""
    try:
        home = str(Path.home())
    except RuntimeError:  # a user without a home
        return text
    # Texts hold the folder as the system states it, or with links followed.
    for folder in {home, os.path.realpath(home)} - {os.sep}:
        # Errors of Python double the separator of Windows, where the case of letters does not matter either.
        pattern = r"(?:\\\\|[\\/])".join(map(re.escape, re.split(r"[\\/]", folder)))
        text = re.sub(rf"{pattern}(?![\w-]|\.\w)", "~", text, flags=re.IGNORECASE if os.name == "nt" else 0)
    return text


def _hub_answer(hub: HubState) -> str:
    if hub.answers is HubAnswer.YES:
        return f"yes, in {hub.seconds:.1f} s, and has the pinned file"
    if hub.answers is HubAnswer.NOT_ASKED:
        return hub.problem or "not asked: the program is offline"
    return f"no: {hub.problem} ({hub.hint})"
