"""Write a network as a file that other programs read: `dsclora export`. The formats are in `file_formats.py`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dsclora_cli.config import ModelOptions
from dsclora_cli.errors import OutputUnwritable, UsageError, next_step
from dsclora_cli.exporting.file_formats import FORMATS
from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.paths import atomic_write, is_taken
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.hub_models import NO_LICENCE
from dsclora_cli.weights.resolve import FoundWeights, find_weights, open_network
from dsclora_cli.weights.state_dict import read_tensors


@dataclass(frozen=True)
class ExportedModel:
    """Files of an exported network."""

    format: str
    """Format: safetensors, onnx, openvino, spandrel or ncnn."""
    files: tuple[str, ...]
    """Paths of the files, the one named by the user first."""
    size: int
    """Size of all files together in bytes."""
    model: str
    """Name in the catalog, or the name of the weight file without its suffix."""
    weights_sha256: str
    """sha256 of the weight file, and what belongs to it: see `FoundWeights.sha256`."""
    metadata: Mapping[str, str]
    """Metadata inside the files: scale, halo, licence, origin, and what goes in and comes out."""
    note: str | None = None
    """Sentence for the user if `auto` could not get its first choice."""


def export_model(
    model: ModelOptions, output: Path, format: str | None = None, overwrite: bool = False
) -> ExportedModel:
    """Convert a network and write the files. Equal networks give equal files.

    Args:
        model: Weights to export, with the adapter to merge in and the sharpness, if there are any.
        output: File to write; some formats write another file or two with the same stem.
        format: Name in `FORMATS`; None lets the suffix of `output` decide.
        overwrite: Replace existing files.

    Raises:
        UsageError: The suffix does not fit the format, a file exists or belongs to another format, the format cannot
            hold the network, or a package is missing.
        WeightsError: The weights cannot be found or read.
        OutputUnwritable: A file cannot be written.
    """
    name = _format_of(output, format)
    chosen = FORMATS[name]
    paths = [output.with_suffix(suffix) for suffix in chosen.suffixes]
    # Before the weights: a download or a conversion for nothing takes time.
    _refuse_shared(paths)
    if not overwrite:
        _refuse_existing(paths)
    chosen.check_package()
    found = find_weights(model, None)
    network = open_network(found)
    if not network.config.descriptor.traceable:
        arch = network.config.descriptor.arch
        raise UsageError(f"{found.name} is a network of spandrel ({arch})", "other programs open its own file as well")
    metadata = describe_export(found, network.config.descriptor)
    try:
        contents = chosen.convert(network, metadata)
    except ImportError as error:  # an installed package whose own packages are missing
        message = f"the package {chosen.package} cannot be imported: {error}"
        raise UsageError(message, f"install {chosen.package} again, with the packages that it needs") from error
    _write_all(dict(zip(paths, contents, strict=True)))
    size = sum(len(content) for content in contents)
    return ExportedModel(name, tuple(map(str, paths)), size, found.name, found.sha256, metadata, found.note)


def _format_of(output: Path, format: str | None) -> str:
    """Return the name of the format for an output file. Raises UsageError where suffix and format do not fit."""
    by_suffix = {known.suffixes[0]: name for name, known in reversed(FORMATS.items())}
    if format is None:
        if output.suffix not in by_suffix:
            raise UsageError(
                f"the suffix of {output} names no format", f"choose {', '.join(sorted(by_suffix))}, or give --format"
            )
        return by_suffix[output.suffix]
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", f"choose {', '.join(FORMATS)}")
    suffix = FORMATS[format].suffixes[0]
    if output.suffix != suffix:
        raise UsageError(
            f"files of the format {format} end with {suffix}, unlike {output}", f"name it {output.stem}{suffix}"
        )
    return format


def _refuse_shared(paths: list[Path]) -> None:
    """Raise UsageError where a second file would replace the second file of a model in another format."""
    first, *others = paths
    for path in others:
        for known in FORMATS.values():
            owner = path.with_suffix(known.suffixes[0])
            if owner != first and path.suffix in known.suffixes[1:] and is_taken(path) and is_taken(owner):
                raise UsageError(f"{path} belongs to {owner}", "choose another name")


def _refuse_existing(paths: list[Path]) -> None:
    for path in paths:
        if is_taken(path):
            raise UsageError(f"{path} exists", "choose another name, or give --overwrite")


def describe_export(found: FoundWeights, descriptor: Descriptor) -> dict[str, str]:
    """Return the metadata of the exported files: everything that another program must know to use the network."""
    stored = read_tensors(found.path).metadata
    licence, source = _rights(found, stored)
    return {
        "name": found.name,
        "arch": descriptor.arch,
        "scale": str(descriptor.scale),
        "halo": str(descriptor.halo),
        "exact_tiles": str(descriptor.exact_tiles).lower(),
        "licence": licence,
        "source": source,
        "weights_sha256": found.sha256,
        "training": load_adapters(found.adapter).training if found.adapter else stored.get("training", ""),
        "input": "float32, (1, 3, height, width), RGB from 0 to 1",
        "output": "float32, (1, 3, scale * height, scale * width), RGB, nominally from 0 to 1; to be clamped",
        "normalization": "none outside: the network subtracts its own mean colour, where it has one",
        "written_by": "dsclora",
    }


def _rights(found: FoundWeights, stored: Mapping[str, str]) -> tuple[str, str]:
    """Return the licence and the origin of weights; of weights with a sharp network, those of both.

    Args:
        found: The weights.
        stored: Metadata of the file of the weights.
    """
    if found.sharp is not None:
        # A mixture has no entry of its own, and the network that is moved may have one.
        body = replace(found, sharp=None, entry=load_catalog().with_sha256(found.base_sha256))
        licence, source = _rights(body, stored)
        sharp_stored = {} if found.sharp.entry else read_tensors(found.sharp.path).metadata
        more, sharp_source = _rights(found.sharp, sharp_stored)
        return " AND ".join(dict.fromkeys((licence, more))), "; ".join(dict.fromkeys((source, sharp_source)))
    if found.entry:
        return found.entry.licence, found.entry.source
    return found.licence or stored.get("licence", NO_LICENCE), stored.get("source", "")


def _write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files atomically: none appears before all are complete. Raises OutputUnwritable."""
    at = next(iter(files))
    try:
        with ExitStack() as stack:
            for at, content in files.items():
                stack.enter_context(atomic_write(at)).write_bytes(content)
    except OSError as error:
        message = f"{at} cannot be written ({error.strerror})"
        raise OutputUnwritable(message, next_step(error)) from error
