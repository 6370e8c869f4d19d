"""`dsclora doctor`: gather facts, and run the self-test. Start with `diagnose`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

from dsclora_cli.config import EngineOptions
from dsclora_cli.diagnosis import facts
from dsclora_cli.diagnosis.report import AutoChoice, Device, Diagnosis, DoctorCallbacks, EngineState, Outcome
from dsclora_cli.diagnosis.self_test import Surroundings, embedded_weights, run_checks
from dsclora_cli.errors import DscloraError, class_and_line
from dsclora_cli.inference.system import find_driver
from dsclora_cli.methods import find_plugins
from dsclora_cli.settings import find_settings
from dsclora_cli.storage.places import without_secrets
from dsclora_cli.upscaling.engines import choose_device, find_problems, load_engine

_NOTHING = DoctorCallbacks()


def diagnose(
    offline: bool = False,
    self_test: bool = True,
    callbacks: DoctorCallbacks = _NOTHING,
    check_settings: Callable[[], object] = find_settings,
) -> Diagnosis:
    """Look at the machine and the installation, and test them. The report holds no logins and no signatures of URLs.

    torch is imported only where a GPU may be present, where `auto` takes torch, and for the self-test, because the
    self-test compares every engine with torch.

    Args:
        offline: Do not ask the Hub.
        self_test: Run the checks too.
        callbacks: Progress.
        check_settings: Raises UsageError for settings that commands refuse; the default reads them only.
    """
    callbacks.on_step("machine")
    system, packages = facts.describe_system(), facts.list_packages()
    callbacks.on_step("devices and engines")
    devices, engines = facts.list_all_devices(), _list_engines()
    auto = _choose_auto(devices, engines)
    callbacks.on_step("folders")
    folders, formats, methods = facts.list_folders(), facts.list_formats(), find_plugins()
    callbacks.on_step("Hugging Face Hub")
    hub = facts.ask_hub(offline)
    found = Surroundings(packages, engines, devices, formats, folders, methods)
    checks = tuple(run_checks(found, callbacks, check_settings)) if self_test else ()
    diagnosis = Diagnosis(
        system=system,
        packages=packages,
        devices=devices,
        engines=engines,
        auto=auto,
        folders=folders,
        hub=hub,
        formats=formats,
        methods=methods,
        checks=checks,
        failed=sum(check.outcome is Outcome.FAIL for check in checks),
    )
    public: Diagnosis = _hide_secrets(diagnosis)
    return public


def _hide_secrets(value: Any) -> Any:  # noqa: ANN401 - any field of the report, and a value of the same type
    """Return a part of the report with `without_secrets` applied to every text."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return without_secrets(value)
    if isinstance(value, tuple):
        return tuple(map(_hide_secrets, value))
    if isinstance(value, Mapping):
        return {key: _hide_secrets(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _hide_secrets(getattr(value, field.name)) for field in fields(value)})
    return value


def _list_engines() -> tuple[EngineState, ...]:
    return tuple(EngineState(name, problem) for name, problem in find_problems().items())


def _choose_auto(devices: Sequence[Device], engines: Sequence[EngineState]) -> AutoChoice:
    """Open the engine of `auto`: a second copy of the rules could differ."""
    options = EngineOptions()
    try:
        engine = load_engine(embedded_weights(), choose_device(options), options)
    except DscloraError as error:
        return AutoChoice(problem=str(error))
    # A broken installation of torch or OpenVINO raises whatever its libraries raise.
    except Exception as error:  # noqa: BLE001
        return AutoChoice(problem=class_and_line(error))
    passed_over = [f"{state.name} cannot run here" for state in engines if state.problem]
    preferred = f"auto prefers {engine.name} on this {'processor' if engine.device == 'cpu' else 'device'}"
    reason = "; ".join([_gpu_words(devices), *passed_over, preferred])
    return AutoChoice(engine.name, engine.device, engine.dtype, reason)


def _gpu_words(devices: Sequence[Device]) -> str:
    """Return the reason for the choice of the device, in words."""
    gpus = [device.name for device in devices if device.name != "cpu"]
    if gpus:
        return f"PyTorch can use {', '.join(gpus)}"
    if driver := find_driver():
        return f"{driver} shows a GPU, and the installed PyTorch cannot use it: install a CUDA build of torch"
    return "no GPU is here"
