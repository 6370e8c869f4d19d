"""Show the files that `dsclora push` is going to upload, or has uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsclora_cli.cli import console

if TYPE_CHECKING:
    from dsclora_cli.publishing.push import PushedModel


def show_plan(planned: PushedModel) -> None:
    """Write the repository, the files, the notes and the model card."""
    console.show_fields(
        {"repository": _repository(planned), "licence": planned.licence or "none stated", "weights": planned.sha256}
    )
    console.print_line("")
    columns = {
        "file": [file.path for file in planned.files],
        "size": [console.format_bytes(file.size) for file in planned.files],
    }
    if planned.creates is not None:
        columns["change"] = [file.change for file in planned.files]
    console.show_columns(columns)
    console.print_line("")
    for line in planned.card.splitlines():
        console.print_line(f"  | {line}".rstrip())
    console.print_line("")
    _show_notes(planned)


def _repository(planned: PushedModel) -> str:
    if planned.creates is None:
        return planned.url
    shown = "private" if planned.private else "public"
    return f"{planned.url} ({'new' if planned.creates else 'exists'}, {shown})"


def question(planned: PushedModel) -> str:
    """Return the question before an upload."""
    count = sum(file.change != "unchanged" for file in planned.files)
    files = "1 file" if count == 1 else f"{count} files"
    shown = "private" if planned.private else "public"
    if planned.creates:
        return f"Create the {shown} repository {planned.repo} and upload {files}?"
    return f"Upload {files} to the {shown} repository {planned.repo}?"


def show_result(result: PushedModel, as_json: bool, quiet: bool) -> None:
    """Write the result of an upload or of `--dry-run`, with its notes."""
    if as_json:
        console.show_json(result)
    elif result.status == "planned":
        show_plan(result)
        console.print_line("nothing was uploaded")
    elif not quiet:
        _show_notes(result)
        show_done(result)


def show_done(result: PushedModel) -> None:
    """Write what was uploaded, without the notes, which stand above the question."""
    if result.status == "unchanged":
        console.print_line(f"{result.url} holds the same files already")
        return
    for file in result.files:
        console.print_line(f"{file.path}: {file.change}, {console.format_bytes(file.size)}")
    console.print_line(f"{result.url} at {result.commit}")
    if result.kind == "network" or not any("--weights" in note for note in result.notes):
        console.print_line(f"use: dsclora upscale photo.jpg -m {result.repo}")


def _show_notes(result: PushedModel) -> None:
    for note in result.notes:
        console.print_labeled("note", note, "cyan")
