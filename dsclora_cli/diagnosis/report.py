"""Result types of `dsclora doctor`, equal to the JSON output, and the callbacks. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsclora_cli.callbacks import Callbacks


@dataclass(frozen=True)
class System:
    """The machine and the interpreter."""

    dsclora: str
    """Version of dsclora."""

    python: str
    """Version and implementation of Python."""

    platform: str
    """Operating system with its version, and the kind of processor."""

    cpu: str
    """Name of the processor, as far as the system says."""

    vector_instructions: tuple[str, ...]
    """Vector instruction sets of the processor that matter for networks; empty where the system does not say."""

    cores: int
    """Number of logical processors that this process may use."""

    memory: int
    """Memory of the machine in bytes."""

    free_memory: int
    """Memory in bytes that a run may take, within the limits of the process and of a container."""

    stdout_encoding: str
    """Encoding of text on stdout."""

    variables: Mapping[str, str]
    """Environment variables that change what dsclora does; secrets are shown as "set"."""

    settings: Mapping[str, str]
    """Settings of the user's file, as `dsclora config` shows them; empty for a file with mistakes."""


@dataclass(frozen=True)
class Package:
    """A Python package that dsclora uses."""

    name: str

    version: str | None
    """Installed version; None for a package that is not installed."""

    extra: str | None = None
    """Optional dependency that brings the package; None for a package that is always needed."""


@dataclass(frozen=True)
class Device:
    """A device that can run a network."""

    name: str
    """Name for `--device`."""

    description: str
    """Name of the hardware."""

    memory: int
    """Memory in bytes; 0 where the system does not say."""

    free_memory: int
    """Memory in bytes that is free now."""


@dataclass(frozen=True)
class EngineState:
    """An engine, and whether the engine can run here."""

    name: str
    """Name for `--engine`."""

    problem: str = ""
    """Why the engine cannot run here; empty where the engine can run."""


@dataclass(frozen=True)
class AutoChoice:
    """What `--engine auto --device auto` takes; the names are empty where no engine runs."""

    engine: str = ""
    device: str = ""

    dtype: str = ""
    """Floating-point type."""

    reason: str = ""
    """Why, in words."""

    problem: str = ""
    """Why no engine runs; empty where an engine runs."""


@dataclass(frozen=True)
class Folder:
    """A folder that dsclora uses."""

    purpose: str

    path: Path

    size: int
    """Bytes of the files of dsclora in the folder; 0 for a folder that does not exist."""

    free: int
    """Free bytes on the disk of the folder."""

    writable: bool
    """Whether a file can be created there."""


class HubAnswer(StrEnum):
    """Whether the Hugging Face Hub answers."""

    YES = "yes"
    """The Hub answered, and has the pinned file."""

    NO = "no"
    """The Hub did not answer, or without the pinned file."""

    NOT_ASKED = "not-asked"
    """`--offline` or HF_HUB_OFFLINE forbids requests."""


@dataclass(frozen=True)
class HubState:
    """The connection to the Hugging Face Hub."""

    endpoint: str
    """Address of the Hub."""

    answers: HubAnswer

    seconds: float | None = None
    """Time until the answer."""

    problem: str = ""
    """Why there is no usable answer."""

    hint: str = ""
    """The next step."""


@dataclass(frozen=True)
class FormatState:
    """A picture format, and whether files of the format can be read and written here."""

    name: str
    suffixes: tuple[str, ...]

    usable: bool
    """False where the optional package of the format is missing."""

    hint: str = ""
    """How to install the package."""


class Outcome(StrEnum):
    """Outcome of a check."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    SKIP = "SKIP"
    """The check does not concern this machine."""


@dataclass(frozen=True)
class Check:
    """A part of the self-test."""

    name: str
    """What was tested."""

    outcome: Outcome

    detail: str
    """What was found, with numbers."""

    hint: str = ""
    """The next step after a failure."""

    seconds: float = 0.0
    """Time that the check took."""


@dataclass(frozen=True)
class Diagnosis:
    """Result of `dsclora doctor`; the field names are keys of the JSON output."""

    system: System
    packages: tuple[Package, ...]
    devices: tuple[Device, ...]
    engines: tuple[EngineState, ...]

    auto: AutoChoice
    folders: tuple[Folder, ...]
    hub: HubState
    formats: tuple[FormatState, ...]
    checks: tuple[Check, ...]

    failed: int
    """Number of failed checks."""


class DoctorCallbacks(Callbacks):
    """Progress of a diagnosis."""

    def on_step(self, name: str) -> None:
        """Receive the name of the step that starts."""
