"""Result types of `dsclora doctor`, equal to the JSON output, and the callbacks. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.methods import MethodPlugin


@dataclass(frozen=True)
class System:
    """The machine and the interpreter."""

    dsclora: str
    """Version of dsclora."""

    python: str
    """Version and implementation of Python."""

    platform: str
    """Operating system with version, and the kind of processor."""

    cpu: str
    """Name of the processor; the kind of processor where the system does not say."""

    vector_instructions: tuple[str, ...]
    """Vector instruction sets of the processor; empty where the system does not say."""

    cores: int
    """Number of logical processors available to the process."""

    memory: int
    """Memory of the machine in bytes."""

    free_memory: int
    """Memory in bytes available to a run, within the limits of the process and of a container."""

    stdout_encoding: str
    """Encoding of text on stdout."""

    variables: Mapping[str, str]
    """Environment variables with an influence on dsclora; a secret has the value "set"."""

    settings: Mapping[str, str]
    """Settings in the user's file, by name; empty for a file that cannot be read."""

    settings_problem: str = ""
    """Why the file with the settings cannot be read, and the next step; empty for a valid or absent file."""


@dataclass(frozen=True)
class Package:
    """A Python package in use by dsclora."""

    name: str

    version: str | None
    """Installed version; None for an absent package."""

    extra: str | None = None
    """Optional dependency with the package; None for a required package."""


@dataclass(frozen=True)
class Device:
    """A device for networks."""

    name: str
    """Name for `--device`."""

    description: str
    """Name of the hardware."""

    memory: int
    """Memory in bytes; 0 where the system does not say."""

    free_memory: int
    """Free memory in bytes."""


@dataclass(frozen=True)
class EngineState:
    """An engine, and whether the engine can run here."""

    name: str
    """Name for `--engine`."""

    problem: str = ""
    """Why the engine cannot run here; empty where the engine can run."""


@dataclass(frozen=True)
class AutoChoice:
    """The choice of `--engine auto --device auto`; the names are empty where no engine runs."""

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
    """A folder in use by dsclora."""

    purpose: str

    path: Path

    size: int
    """Bytes of the files of dsclora in the folder; 0 for a missing folder."""

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
    """The check does not concern the machine."""


@dataclass(frozen=True)
class Check:
    """A part of the self-test."""

    name: str
    """The tested property."""

    outcome: Outcome

    detail: str
    """The finding, with numbers."""

    hint: str = ""
    """The next step after a failure."""

    seconds: float = 0.0
    """Duration of the check."""


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

    methods: tuple[MethodPlugin, ...]
    """Methods of distillation that other packages add."""

    checks: tuple[Check, ...]

    failed: int
    """Number of failed checks."""


class DoctorCallbacks(Callbacks):
    """Progress of a diagnosis."""

    def on_step(self, name: str) -> None:
        """Receive the name of the next step."""
