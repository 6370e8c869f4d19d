"""Hooks of the documentation site: a page with every command, and no links that leave the folder of the pages."""

from __future__ import annotations

import re
from typing import Any

import click
import typer
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from dsclora_cli.cli.app import application

_MARKUP = re.compile(r"\[/?(?:bold|dim|cyan|green|yellow|red)?\]")
# Pages are also read in the repository, where ../CONTRIBUTING.md and ../examples exist.
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)[^)]*\)")


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - mkdocs has no types for plugins
    """Add the page with all commands and options, written by the command line itself."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def commands_page() -> str:
    """Return the text of the page, in Markdown."""
    command = typer.main.get_command(application())
    context = click.Context(command, info_name="dsclora")
    text = get_docs_for_click(obj=command, ctx=context, name="dsclora", title="Commands")
    # The examples below a command have the markup of rich.
    return _MARKUP.sub("", text)


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:  # noqa: ANN401
    """Return a page whose links to files outside `docs/` are plain text."""
    depth = page.file.src_uri.count("/")
    return _OUTSIDE.sub(lambda link: link[1] if link[2].count("../") > depth else link[0], markdown)
