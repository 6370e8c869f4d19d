"""`dsclora doctor`: parse options, call `diagnosis.doctor.diagnose`, show the report."""

from __future__ import annotations

from typing import Annotated

import typer

from dsclora_cli.cli import console, options
from dsclora_cli.cli.options import REPORTING, option
from dsclora_cli.errors import ExitCode

DOCTOR_EXAMPLES = """[bold]Examples[/]

  dsclora doctor

  dsclora doctor > report.txt

  dsclora doctor --offline --json
"""


def doctor(
    self_test: Annotated[
        bool,
        option(
            REPORTING,
            "Also test engines, tiles, weight files and picture formats, which takes some seconds.",
            "--self-test/--no-self-test",
        ),
    ] = True,
    offline: Annotated[
        bool, option(REPORTING, "Do not ask whether the Hugging Face Hub answers; open no connection.", "--offline")
    ] = False,
    json: Annotated[bool, option(REPORTING, "Write the whole report as one JSON object to stdout.", "--json")] = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show what this machine and this installation have, and test whether everything works.

    The report is made for bug reports. Tokens and proxies are not shown. The exit code is 1 when a check fails.
    """
    # Imported here: `--help` needs none of it.
    from dsclora_cli.cli.config import check_user_settings
    from dsclora_cli.cli.views.doctor_report import DoctorProgress, show_diagnosis, show_failures
    from dsclora_cli.diagnosis.doctor import diagnose

    with DoctorProgress(quiet) as progress:
        found = diagnose(offline, self_test, progress, check_user_settings)
    if json:
        console.show_json(found)
    elif quiet:
        show_failures(found)
    else:
        show_diagnosis(found)
    if found.failed:
        raise typer.Exit(ExitCode.SOME_FAILED)
