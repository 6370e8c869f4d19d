"""The plans of `dsclora upscale --dry-run` as text and JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dsclora_cli.cli import console
from dsclora_cli.cli.views.upscale_progress import model_with_reason
from dsclora_cli.errors import ExitCode

if TYPE_CHECKING:
    from dsclora_cli.upscaling.dry_run import PlannedFile


def show_plans(plans: Iterable[PlannedFile], as_json: bool) -> int:
    """Write every plan as soon as possible, and for people the totals; return the exit code of the real run."""
    failed, seconds, disk = 0, 0.0, 0
    for plan in plans:
        failed += plan.action == "fail"
        seconds += plan.seconds or 0
        disk += plan.disk_bytes or 0
        if as_json:
            console.show_json(plan)
        else:
            for line in _plan_lines(plan):
                console.print_line(line)
    if not as_json:
        costs = f"{console.format_seconds(seconds)} and {console.format_bytes(disk)} of disk"
        console.print_line(f"in all about {costs}; nothing was written")
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE


def _plan_lines(plan: PlannedFile) -> Iterable[str]:
    if plan.error is not None:
        yield console.failure_line(plan.input, plan.error)
        return
    if plan.action == "leave-out":
        yield f"leave out {plan.input}: {'; '.join(plan.notes)}"
        return
    yield f"{plan.action} {plan.input}" + (f" -> {plan.output}" if plan.output else "")
    if plan.action == "upscale" and plan.input_size and plan.output_size:
        passes = " then ".join(f"x{scale}" for scale in plan.passes)
        frames = f", {plan.frames} frames" if plan.frames > 1 else ""
        with_model = f" with {model_with_reason(plan)}" if plan.choice else ""
        sizes = f"{console.format_sides(plan.input_size)} -> {console.format_sides(plan.output_size)}"
        yield f"  {sizes}, {passes}{frames}{with_model}"
    if plan.tile is not None:
        tile = f"tiles of {plan.tile}" if plan.tile else "whole"
        memory, disk = console.format_bytes(plan.memory_bytes or 0), console.format_bytes(plan.disk_bytes or 0)
        time = console.format_seconds(plan.seconds or 0)
        yield f"  {tile}, {plan.tiles} in all; memory {memory}, about {time}, disk up to {disk}"
    for note in plan.notes:
        yield f"  {note}"
