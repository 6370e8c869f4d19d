"""`dsclora push`: read options, call `plan_push`, ask, call `push`, show the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsclora_cli.cli import console
from dsclora_cli.cli.options import FILES, JsonOption, OfflineOption, QuietOption, option

PUSH_EXAMPLES = """[bold]Examples[/]

  dsclora push runs/mine me/my-photos-x4 --licence mit

  dsclora push mine/adapter.safetensors me/my-adapter --private --dry-run

  dsclora push runs/mine me/my-photos-x4 --scores scores.json --overwrite --yes

docs/push.md shows what is uploaded. A token that may write comes from `hf auth login` or HF_TOKEN.
"""

_HUB = "Hugging Face Hub"


def push(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE",
            help="Folder of a training run, whose best weights are uploaded, or a file of weights or of an adapter.",
            show_default=False,
        ),
    ],
    repo: Annotated[
        str, typer.Argument(metavar="USER/REPO", help="Repository on the Hugging Face Hub.", show_default=False)
    ],
    licence: Annotated[
        str,
        option(
            _HUB,
            "Licence of the weights, in the Hub's short form: mit, apache-2.0, cc-by-4.0, other.",
            "--licence",
            metavar="NAME",
            show_default="none stated",
        ),
    ] = "",
    private: Annotated[bool, option(_HUB, "Create a repository that only its owner sees.", "--private")] = False,
    scores: Annotated[
        Path | None,
        option(FILES, "Report of `dsclora eval --json` on these weights, for the model card.", "--scores"),
    ] = None,
    overwrite: Annotated[
        bool, option(_HUB, "Replace files of the repository that have other content.", "--overwrite")
    ] = False,
    yes: Annotated[bool, option(_HUB, "Upload without asking.", "-y", "--yes")] = False,
    dry_run: Annotated[
        bool, option(_HUB, "Show files and model card, without a token and without internet.", "--dry-run")
    ] = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Upload a network or an adapter of yours to the Hugging Face Hub, with a model card.

    Three files are uploaded after a question: the weights, README.md and config.json. Pictures, paths and other files
    of this machine stay here.
    """
    if not (dry_run or yes):
        console.check_can_ask(json)
    if quiet:
        console.hide_download_bars()
    # Imports torch, so the import waits until the options are parsed.
    from dsclora_cli.cli.views import push_view
    from dsclora_cli.publishing.push import PushOptions, compare_with_hub, plan_push
    from dsclora_cli.publishing.push import push as upload

    options = PushOptions(repo, licence, private, overwrite, scores, offline)
    plan = plan_push(source, options)
    if not dry_run:
        plan = compare_with_hub(plan, options)
    if plan.result.status == "unchanged" or dry_run:
        push_view.show_result(plan.result, json, quiet)
    elif yes:
        push_view.show_result(upload(plan, options), json, quiet)
    else:
        push_view.show_plan(plan.result)
        if console.ask(push_view.question(plan.result)):
            push_view.show_done(upload(plan, options))
        else:
            console.print_line("nothing was uploaded")
