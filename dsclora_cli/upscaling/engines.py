"""Choose and open the engine for a network: on CPUs the native engine, else OpenVINO where installed, else PyTorch."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec

from dsclora_cli.config import EngineOptions
from dsclora_cli.errors import OutOfMemory, UsageError
from dsclora_cli.host import host_memory
from dsclora_cli.inference import openvino
from dsclora_cli.inference.engine import Engine, Ensemble, activation_bytes
from dsclora_cli.inference.native.engine import NativeEngine
from dsclora_cli.inference.native.library import why_unavailable
from dsclora_cli.inference.native.weights import keep_tensors, kept_name, load_kept, read_span_weights, span_weights
from dsclora_cli.inference.system import may_have_gpu
from dsclora_cli.inference.tiling import LARGEST_AUTO_TILE, SMALLEST_TILE
from dsclora_cli.paths import engines_dir
from dsclora_cli.weights.resolve import FoundWeights

_AUTO, _ALL, _CPU = "auto", "all", "cpu"

_CPU_ENGINES = {"native": "the native engine", "openvino": "OpenVINO"}
"""Engines that run on the CPU in float32 only, with their names in messages."""

_OPENVINO_STEP = 'pip install "dsclora[cpu]"'

_MEASURED = ("avx512", "avx2")
"""Instruction sets with which the native engine was measured, and is faster than all other engines."""


def list_devices(options: EngineOptions) -> tuple[str, ...]:
    """Return the devices that share the pictures of a batch: names separated by commas, or all GPUs for `all`.

    A single name is returned unchanged, so a run on a CPU never asks torch. Raises UsageError for a missing device, and
    for a device named twice.
    """
    names = tuple(name.strip() for name in options.device.split(","))
    if names != (_ALL,) and len(names) == 1:
        return names
    from dsclora_cli.inference.device import every_gpu, resolve_device

    if names == (_ALL,):
        return every_gpu() or (_AUTO,)
    devices = tuple(str(resolve_device(name)) for name in names)
    if len(set(devices)) < len(devices):
        raise UsageError(f"--device {options.device} names a device twice", "name each device once")
    return devices


def choose_device(options: EngineOptions) -> str:
    """Return the device for the options: cpu, cuda:N or mps.

    Raises UsageError for a missing device or a missing engine.
    """
    if options.engine in _CPU_ENGINES:
        _check_cpu_engine(options)
        return _CPU
    is_cpu = options.device == _CPU or (options.device == _AUTO and not may_have_gpu())
    # Importing torch takes a second: torch is asked only where no other engine does the work.
    if is_cpu and _cpu_engines(options):
        return _CPU
    from dsclora_cli.inference.device import resolve_device

    return str(resolve_device(options.device))


def find_problems() -> dict[str, str]:
    """Return, by the name of each engine, why the engine cannot run here; an empty text where the engine can run."""
    return {
        "native": why_unavailable(),
        "openvino": "" if openvino.is_installed() else f"not installed: {_OPENVINO_STEP}",
        "torch": "" if find_spec("torch") else "not installed: pip install torch",
    }


def load_engine(weights: FoundWeights, device: str, options: EngineOptions) -> Engine:
    """Open an engine for weights, on a device from `choose_device`. Raises UsageError and WeightsError."""
    engine = None
    for name in _cpu_engines(options) if device == _CPU else ():
        engine = engine or (_load_native if name == "native" else _load_openvino)(weights, options)
    if engine is None:
        import torch

        from dsclora_cli.inference.device import channel_multiple, resolve_dtype
        from dsclora_cli.inference.torch_cpu import open_torch_engine
        from dsclora_cli.weights.resolve import open_network

        if options.threads:
            torch.set_num_threads(options.threads)
        network, place = open_network(weights), torch.device(device)
        dtype = resolve_dtype(options.dtype, place, network.config.descriptor)
        network = network.padded(channel_multiple(place, dtype))
        engine = open_torch_engine(network, network.config.descriptor, place, dtype)
    return Ensemble(engine) if options.ensemble else engine


def auto_edge(engine: Engine) -> int:
    """Return the edge of a core, in LR pixels, for the free memory of the engine's device; at most half is used.

    Above `LARGEST_AUTO_TILE` nothing is gained: the halo costs little there and caches overflow.
    """
    if not engine.device.startswith("cuda"):
        free = host_memory()
    else:
        import torch

        from dsclora_cli.inference.device import free_memory

        free = free_memory(torch.device(engine.device))
    edge = int((free / 2 / activation_bytes(engine)) ** 0.5) - 2 * engine.descriptor.halo
    return max(SMALLEST_TILE, min(LARGEST_AUTO_TILE, edge // 2 * 2))


def with_fitting_tile(error: OutOfMemory, engine: Engine) -> OutOfMemory:
    """Return the error for a tile size from the user, with a fitting tile size in the hint."""
    return OutOfMemory(error.message, f"--tile {auto_edge(engine)} would fit, or leave --tile out")


def _cpu_engines(options: EngineOptions) -> tuple[str, ...]:
    """Return the engines to try on a CPU before PyTorch, the fastest first."""
    if options.engine != "auto":
        return (options.engine,) if options.engine in _CPU_ENGINES else ()
    if options.dtype not in {"auto", "float32"}:
        return ()
    # Whether OpenVINO is installed matters only to networks that the native engine does not run.
    native = () if why_unavailable() else ("native",)
    return (*native, "openvino") if openvino.is_installed() else native


def _check_cpu_engine(options: EngineOptions) -> None:
    """Raise UsageError for an engine that is missing, or that does not support the other options."""
    name = _CPU_ENGINES[options.engine]
    if options.engine == "openvino" and not openvino.is_installed():
        raise UsageError("OpenVINO is not installed", f"{_OPENVINO_STEP}, or leave --engine out")
    if options.engine == "native" and (reason := why_unavailable()):
        hint = "install g++ or clang++ and then dsclora again, as docs/install.md says, or leave --engine out"
        raise UsageError(f"the native engine is not available: {reason}", hint)
    if options.device not in {_AUTO, _CPU}:
        raise UsageError(f"{name} runs on the CPU here, not on {options.device}", "leave --device or --engine out")
    if options.dtype not in {"auto", "float32"}:
        raise UsageError(f"{name} runs in float32 here, not in {options.dtype}", "leave --dtype or --engine out")


def _load_native(weights: FoundWeights, options: EngineOptions) -> Engine | None:
    """Open the native engine; torch is imported only for files that no run has read before, and not for all of them.

    Return None for a network that is no SPAN, and for a CPU on which the engine was not measured, unless the user chose
    the engine. Raises UsageError there.
    """
    chosen = options.engine != "auto"
    if not chosen and weights.entry and weights.entry.arch != "span":
        return None
    path = engines_dir() / kept_name(weights.sha256)
    found = (read_span_weights(weights.path) if weights.is_plain else None) or load_kept(path)
    if found is None:
        from dsclora_cli.weights.checkpoint import tensors_of
        from dsclora_cli.weights.resolve import open_network

        network = open_network(weights)
        if (arch := network.config.descriptor.arch) != "span":
            if not chosen:
                return None
            problem = f"the native engine runs SPAN networks, and {weights.name} is of the architecture {arch}"
            raise UsageError(problem, "leave --engine out")
        tensors = {name: tensor.numpy() for name, tensor in tensors_of(network).items()}
        found = span_weights(tensors)
        # Without a cache, torch reads the network again the next time.
        with suppress(OSError):
            keep_tensors(tensors, path)
    engine = NativeEngine(found, options.threads)
    return engine if chosen or engine.cpu in _MEASURED else None


def _load_openvino(weights: FoundWeights, options: EngineOptions) -> Engine | None:
    """Open the converted network in the cache, after converting the network where the cache has none.

    Return None where OpenVINO cannot convert the network, unless the user chose OpenVINO.
    """
    path = engines_dir() / openvino.converted_name(weights.sha256)
    converted = openvino.load_converted(path)
    if converted is None:
        from dsclora_cli.weights.resolve import open_network

        network = open_network(weights)
        try:
            if not network.config.descriptor.traceable:
                raise RuntimeError("the network cannot be traced")
            converted = openvino.convert_network(network, network.config.descriptor)
        except RuntimeError as error:
            if options.engine == "auto":
                return None
            raise UsageError(f"OpenVINO cannot convert {weights.name}", "leave --engine out") from error
        # Without a cache, the network is converted again the next time.
        with suppress(OSError):
            openvino.save_converted(converted, path)
    return openvino.OpenvinoEngine(converted, options.threads)
