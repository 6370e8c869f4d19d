"""Where a result goes and what it is called: never onto its input, never onto another result of the run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from string import Formatter

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.formats import format_of_suffix, suffix_of_format
from dsclora_cli.upscaling.sizes import SizePlan
from dsclora_cli.upscaling.types import FoundInputs, InputFile, path_key

STDOUT = "-"
_PATTERNS = {
    "stem": "(?P<stem>.+)",
    "scale": r"\d+(?:\.\d+)?",
    "model": ".+",
    "ext": r"[^.]+",
    "width": r"\d+",
    "height": r"\d+",
}
_NUMBER = re.compile(r"-\d+(?=\.[^.]+$)")


@dataclass(frozen=True)
class Target:
    """A result's file, None for standard output; `note` says why it is not called as the template has it."""

    path: Path | None
    note: str | None = None


def parse_format(name: str) -> str:
    """The Pillow name of a format that a user calls "jpg", "JPEG" or "tif". Raises UsageError for an unknown one."""
    try:
        suffix_of_format(name.upper())
    except ImageError:
        try:
            return format_of_suffix(f".{name.lower().removeprefix('.')}")
        except ImageError as error:
            raise UsageError(f"--format {name}: {error.message}", error.hint) from error
    return name.upper()


def check_template(template: str) -> None:
    """Raise UsageError for a name template with an unknown field, a folder in it, or no suffix."""
    hint = "the fields are " + " ".join(f"{{{field}}}" for field in _PATTERNS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"--name {template}: {error}", hint) from error
    for _, field, spec, conversion in parts:
        if field is not None and (field not in _PATTERNS or spec or conversion):
            raise UsageError(f"--name {template}: there is no field {{{field}}}", hint)
    if "/" in template or "\\" in template:
        raise UsageError(f"--name {template} is a path", "give the folder with -o")
    if not PurePath(template).suffix:
        raise UsageError(f"--name {template} has no suffix", "end it in .{ext}")


def possible_stems(template: str, name: str) -> Iterator[str]:
    """The stems of the inputs whose results the template would call `name`, numbered or not.

    Where a model's name makes it ambiguous, the longest and the shortest stem are given.
    """
    pattern = "".join(
        re.escape(literal) + (_PATTERNS[field] if field else "") for literal, field, *_ in Formatter().parse(template)
    )
    if pattern.count(_PATTERNS["stem"]) != 1:
        return
    for either in (pattern, pattern.replace(_PATTERNS["stem"], "(?P<stem>.+?)")):
        for candidate in (name, _NUMBER.sub("", name)):
            match = re.fullmatch(either, candidate)
            if match and match["stem"] != PurePath(name).stem:
                yield match["stem"]


class OutputNamer:
    """Names the results of one run, in the order of its inputs, so that the same run gives the same names.

    The template has passed `check_template`. Raises UsageError for an output that cannot be what the inputs need.
    """

    def __init__(self, found: FoundInputs, options: UpscaleOptions) -> None:
        self._template = options.batch.name
        self._output = options.batch.output
        self._to_folder = self._needs_folder(found.many)
        self._format = self._asked_format(options.save.format)
        self._taken = {found.key for found in found.inputs}

    def format(self, of_input: str) -> str:
        """The Pillow format of a result: asked for, or told by the output's suffix, else the input's own."""
        return self._format or of_input

    def target(self, source: InputFile, size: SizePlan, model: str, format: str) -> Target:
        """The place of this input's result. Raises UsageError where that would be the input itself."""
        if self._output == STDOUT or (self._output is None and not isinstance(source.source, Path)):
            return Target(None)
        if self._output is not None and not self._to_folder:
            wanted = Path(self._output)
        else:
            wanted = self._folder(source) / self._name(source, size, model, format)
        if isinstance(source.source, Path) and _is_same(wanted, source.source):
            raise UsageError(f"the result of {source.name} would replace it", "choose another --name or -o")
        path = next(path for path in _numbered(wanted) if path_key(path) not in self._taken)
        self._taken.add(path_key(path))
        return Target(path, None if path == wanted else f"named {path.name}, as {wanted.name} is taken in this run")

    def _needs_folder(self, many: bool) -> bool:
        output = self._output
        if output is None or output == STDOUT:
            if many and output:
                raise UsageError("-o - takes one picture, and there are several", "name a folder with -o")
            return False
        if many and Path(output).is_file():
            raise UsageError(f"-o {output} is a file, and there are several pictures", "name a folder with -o")
        return many or output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix

    def _asked_format(self, format: str | None) -> str | None:
        asked = parse_format(format) if format else None
        named = self._output if self._output and self._output != STDOUT and not self._to_folder else self._template
        suffix = PurePath(named).suffix
        if suffix == ".{ext}":
            return asked
        try:
            told = format_of_suffix(suffix)
        except ImageError as error:
            raise UsageError(f"{named}: {error.message}", error.hint) from error
        if asked and asked != told:
            raise UsageError(f"--format {format} and the name {named} disagree", "leave one of them out")
        return told

    def _folder(self, source: InputFile) -> Path:
        if self._output is not None:
            return Path(self._output) / (source.folder or "")
        return source.source.parent if isinstance(source.source, Path) else Path()

    def _name(self, source: InputFile, size: SizePlan, model: str, format: str) -> str:
        return self._template.format(
            stem=source.stem,
            scale=f"{round(size.factor, 2):g}",
            model=re.sub(r"[\\/:]", "-", model),
            ext=_suffix(source, format).removeprefix("."),
            width=size.width,
            height=size.height,
        )


def _suffix(source: InputFile, format: str) -> str:
    """The input's own spelling (.jpeg, .JPG) where it means this format."""
    suffix = source.source.suffix if isinstance(source.source, Path) else ""
    try:
        return suffix if format_of_suffix(suffix) == format else suffix_of_format(format)
    except ImageError:
        return suffix_of_format(format)


def _is_same(one: Path, other: Path) -> bool:
    return path_key(one) == path_key(other) or (one.exists() and one.samefile(other))


def _numbered(path: Path) -> Iterable[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
