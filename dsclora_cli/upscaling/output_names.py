"""Choose name and folder of every result: never the file of an input, never the file of another result."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePath
from string import Formatter

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import ImageError, ImageUnreadable, ImageUnwritable, UsageError, next_step
from dsclora_cli.imaging.formats import FORMATS, format_of_suffix
from dsclora_cli.paths import check_path, is_file, is_folder, is_stream, is_taken
from dsclora_cli.storage.places import Place, RemotePlace, parse_place
from dsclora_cli.upscaling.sizes import SizePlan
from dsclora_cli.upscaling.types import FoundInputs, InputFile, ResultOwner, check_link, path_key

STDOUT = "-"
_PATTERNS = {
    "stem": "(?P<stem>.+)",
    "scale": r"\d+(?:\.\d+)?",
    "model": ".+",
    "ext": r"[^.]+",
    "width": r"\d+",
    "height": r"\d+",
}
"""Fields of a name template, with a regular expression for the text of the field."""
PREVIEW = "-preview"
"""Ending of the stem of a preview."""

_STREAM = re.compile(r"/dev/(?:stdin|stdout|stderr|fd/[0-9]+)|/proc/self/fd/[0-9]+")
"""Names of streams of this process on Linux and macOS, also where a shell has put a regular file behind the stream."""

_ENDING = re.compile(rf"(?:{PREVIEW})?(?:-\d+)?(?=\.[^.]+$)")
"""What may stand behind the template: the ending of a preview, and a number where a name was taken."""


@dataclass(frozen=True)
class Target:
    """Place of a result."""

    path: Place | None
    """None for standard output."""
    note: str | None = None
    """Reason why the name differs from the template."""


def parse_format(name: str) -> str:
    """Return the Pillow name of a format for a name like "jpg", "JPEG" or "tif". Raises UsageError."""
    if name.upper() in FORMATS:
        return name.upper()
    try:
        return format_of_suffix(f".{name.lower().removeprefix('.')}")
    except ImageError as error:
        raise UsageError(f"--format {name}: {error.message}", error.hint) from error


def check_template(template: str) -> None:
    """Raise UsageError for a name template with an unknown field, with a folder, or without a suffix."""
    hint = "the fields are " + " ".join(f"{{{field}}}" for field in _PATTERNS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"--name {template}: {error}", hint) from error
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        if field not in _PATTERNS:
            raise UsageError(f"--name {template}: there is no field {{{field}}}", hint)
        if spec or conversion:
            raise UsageError(f"--name {template}: {{{field}}} takes no format", f"write {{{field}}} alone")
    if "/" in template or "\\" in template:
        raise UsageError(f"--name {template} is a path", "give the folder with -o")
    if not PurePath(template).suffix:
        raise UsageError(f"--name {template} has no suffix", "end the template in .{ext}")


def possible_stems(template: str, name: str) -> Iterator[str]:
    """Yield the stems of inputs with a result called `name` by the template, with or without ending and number.

    Where the name of a model makes the stem ambiguous, the longest and the shortest stem are yielded.
    """
    pattern = "".join(
        re.escape(literal) + (_PATTERNS[field] if field else "") for literal, field, *_ in Formatter().parse(template)
    )
    # A template without {stem}, such as {width}.{ext}, does not contain the name of the input.
    if pattern.count(_PATTERNS["stem"]) != 1:
        return
    for either in (pattern, pattern.replace(_PATTERNS["stem"], "(?P<stem>.+?)")):
        for candidate in (name, _ENDING.sub("", name, count=1)):
            match = re.fullmatch(either, candidate)
            if match and match["stem"] != PurePath(name).stem:
                yield match["stem"]


def for_previews(options: UpscaleOptions, many: bool) -> UpscaleOptions:
    """Return options for results with the ending of previews, whether names come from the template or from `-o`.

    Raises as `OutputNamer`.
    """
    batch = options.batch
    stem, _, suffix = batch.name.rpartition(".")
    named = replace(batch, name=f"{stem}{PREVIEW}.{suffix}")
    if batch.output not in {None, STDOUT} and not _needs_folder(batch.output, many):
        place = parse_place(str(batch.output))
        named = replace(named, output=str(place.with_name(f"{place.stem}{PREVIEW}{place.suffix}")))
    return replace(options, batch=named)


OwnerFinder = Callable[[Place, InputFile, str | None], ResultOwner]
"""Return to which input of the run a place belongs, as `manifest.ResultOwners.owner` does."""


class OutputNamer:
    """Namer for the results of a run. Called in input order, so the same run always gives the same names.

    An input keeps the name of the result that the input has already, whatever inputs have come or gone since.

    Raises UsageError where the output cannot take the results of the inputs, and ImageUnwritable where the place of the
    output cannot be asked.

    Args:
        found: the inputs.
        options: all options of the run; the name template has passed `check_template`.
        find_owner: finds the owners of existing results; by default all results are new.
    """

    def __init__(
        self, found: FoundInputs, options: UpscaleOptions, find_owner: OwnerFinder = lambda *_: "free"
    ) -> None:
        self._find_owner = find_owner
        self._template = options.batch.name
        self._output = options.batch.output
        self._to_folder = _needs_folder(self._output, found.many)
        self.format = self._choose_format(options.save.format)
        """Pillow name of the format for all results; None where results keep the format of the input."""
        self._taken = {file.key for file in (*found.inputs, *found.others)}

    def _choose_format(self, format: str | None) -> str | None:
        asked = parse_format(format) if format else None
        named = self._output if self._output and self._output != STDOUT and not self._to_folder else self._template
        suffix = parse_place(named).suffix
        if suffix == ".{ext}":
            return asked
        try:
            from_suffix = format_of_suffix(suffix)
        except ImageError as error:
            raise UsageError(f"{parse_place(named)}: {error.message}", error.hint) from error
        if asked and asked != from_suffix:
            name = f"--name {named}" if named == self._template else f"the name {parse_place(named)}"
            raise UsageError(f"--format {format} and {name} disagree", "leave one of them out")
        return from_suffix

    def target(self, file: InputFile, size: SizePlan, model: str, format: str, sha256: str | None = None) -> Target:
        """Return the place of the result of an input, and take the name for the rest of the run.

        Args:
            file: the input.
            size: size of the result.
            model: text for `{model}`.
            format: Pillow name of the format of the result.
            sha256: checksum of the input, for records without the place of the input.

        Raises:
            UsageError: the result would replace the input.
            ImageUnwritable: the name of an object would lead out of the folder of results, the name is too long, or a
                link with the name leads to a place that cannot be reached.
        """
        wanted = self._wanted_path(file, size, model, format)
        if wanted is None:
            return Target(None)
        if not isinstance(file.source, bytes) and _is_same(wanted, file.source):
            raise UsageError(f"the result of {file.name} would replace the input", "choose another --name or -o")
        is_taken = path_key(wanted) in self._taken
        path = self._choose(wanted, file, sha256)
        _require_reachable(path)
        self._taken.add(path_key(path))
        reason = "is taken in this run" if is_taken else "is not the result of this picture"
        return Target(path, None if path == wanted else f"named {path.name}, because {wanted.name} {reason}")

    def guess(self, file: InputFile, factor: float | None) -> Place | None:
        """Return the place that the result of an unread input probably has; None where the name depends on the picture.

        Args:
            file: the input.
            factor: factor of the sides; None where the factor depends on the picture.
        """
        fields = {field for _, field, *_ in Formatter().parse(self._template)}
        if (
            isinstance(file.source, bytes)
            or fields - {None, "stem", "ext", "scale"}
            or ("scale" in fields and factor is None)
        ):
            return None
        try:
            format = self.format or format_of_suffix(file.source.suffix)
            wanted = self._wanted_path(file, SizePlan(0, 0, (), factor or 0), "", format)
        except ImageError:
            return None
        return None if wanted is None else self._choose(wanted, file)

    def forget(self, target: Place) -> None:
        """Give a name back that no result has got."""
        self._taken.discard(path_key(target))

    def _choose(self, wanted: Place, file: InputFile, sha256: str | None = None) -> Place:
        """Return the place of the input's own result, else the first place that belongs to no other input of the run.

        Places are `wanted` itself and `wanted` with a number.
        """
        is_file_option = self._output is not None and not self._to_folder
        first = None
        for number in count(1):
            place = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
            if path_key(place) in self._taken:
                continue
            owner = "free" if is_file_option else self._find_owner(place, file, sha256)
            if owner == "own":
                return place
            # A file of unknown origin may stand before the own result: its picture was removed, for example.
            if first is None and owner != "other":
                first = place
            if owner == "free":
                break
        assert first is not None, "a free place ends the search"
        return first

    def _wanted_path(self, file: InputFile, size: SizePlan, model: str, format: str) -> Place | None:
        """Return the path before numbering; None for standard output."""
        if self._output == STDOUT:
            return None
        if self._output is not None:
            output = parse_place(self._output)
            if not self._to_folder:
                return output
            # The tree of a folder argument is kept below the output folder.
            name = self._name(file, size, model, format)
            if isinstance(output, Path) and not is_below(file.folder or Path(), name):
                raise ImageUnwritable(f"{file.name}: no result can have this name here", "give a file name with -o")
            return output / (file.folder or "") / name
        if not isinstance(file.source, bytes):
            _require_writable(file.source)
            return file.source.parent / self._name(file, size, model, format)
        return None

    def _name(self, file: InputFile, size: SizePlan, model: str, format: str) -> str:
        suffix = "" if isinstance(file.source, bytes) else file.source.suffix
        try:
            same = format_of_suffix(suffix) == format
        except ImageError:
            same = False
        # Where the format stays, so does the spelling: .jpeg and .JPG remain.
        ext = suffix if same else FORMATS[format].suffixes[0]
        return self._template.format(
            stem=file.stem,
            scale=f"{round(size.factor, 2):g}",
            model=re.sub(r"[\\/:]", "-", model),
            ext=ext.removeprefix("."),
            width=size.width,
            height=size.height,
        )


def is_below(folder: PurePath, name: str) -> bool:
    """Return whether a relative folder and a name of a file lead to a place below the folder of results.

    The parts of the URL of an object, or of a path in an archive, may hold drives and backslashes: names on Linux and
    macOS, and ways out on Windows.
    """
    return not folder.anchor and ".." not in folder.parts and type(folder)(name).name == name


def _needs_folder(output: str | None, many: bool) -> bool:
    """Return whether results go into the folder `output`. Raises UsageError for several pictures and one file."""
    if output is None or output == STDOUT:
        if many and output:
            raise UsageError("-o - takes one picture, and there are several", "name a folder with -o")
        return False
    place = parse_place(output)
    _require_writable(place)
    if isinstance(place, Path) and (_STREAM.fullmatch(str(place)) or (is_stream(place) and not is_folder(place))):
        hint = "name a file, or write to stdout with -o - and add a pipe or > FILE"
        raise UsageError(f"-o {place} is a pipe or a device, and no file", hint)
    there_is_file, there_is_folder = _look_up(place)
    if many and there_is_file:
        raise UsageError(f"-o {place} is a file, and there are several pictures", "name a folder with -o")
    return many or output.endswith(("/", os.sep)) or there_is_folder or not place.suffix


def _look_up(output: Place) -> tuple[bool, bool]:
    """Return whether a place is a file, and whether a place is a folder; both are False where nothing is yet."""
    if isinstance(output, Path):
        return is_file(output), is_folder(output)
    from dsclora_cli.storage.objects import find_object

    if output.parent == output:  # a bucket, whose name may have a dot
        return False, True
    try:
        facts = find_object(output)
    except ImageUnreadable as error:
        raise ImageUnwritable(error.message, error.hint) from error
    return facts is not None and not facts.is_folder, facts is not None and facts.is_folder


def _is_same(wanted: Place, source: Place) -> bool:
    """Return whether two places are one file."""
    if path_key(wanted) == path_key(source):
        return True
    # samefile: a hard link is the same file under another path.
    return isinstance(wanted, Path) and isinstance(source, Path) and is_taken(wanted) and wanted.samefile(source)


def _require_reachable(path: Place) -> None:
    """Raise ImageUnwritable where the file system takes no file at a path, before work is spent.

    The name may be too long, or the name of a link to a file that is not there, on a drive that is not mounted.
    """
    if not isinstance(path, Path):
        return
    try:
        check_path(path)
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror})"
        raise ImageUnwritable(message, f"{next_step(error)} with -o or --name") from error
    try:
        check_link(path)
    except OSError as error:
        message = f"{path} is a link to a place that cannot be reached ({error.strerror})"
        raise ImageUnwritable(message, "mount or make the place, or remove the link") from error


def _require_writable(place: Place) -> None:
    """Raise UsageError where no result can be written to the kind of storage."""
    if isinstance(place, RemotePlace) and not place.is_writable:
        message = f"{place}: no result can be written to {place.scheme}://"
        raise UsageError(message, "name another place with -o")
