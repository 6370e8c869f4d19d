"""How a batch tells what it does."""

from __future__ import annotations

from dsclora_cli.tasks.jobs import Job
from dsclora_cli.tasks.results import FileResult
from dsclora_cli.tasks.source import Found


class Observer:
    """Hears how a batch goes, in the thread that iterates over it; override what is of interest."""

    def on_found(self, found: Found) -> None:
        """The inputs are known; its notes come as `on_note`."""

    def on_note(self, note: str) -> None:
        """A sentence about the whole run, said once."""

    def on_start(self, job: Job) -> None:
        """The network starts on a picture."""

    def on_progress(self, job: Job, share: float) -> None:
        """So much of a picture that was started, 0 to 1, has been through the network."""

    def on_done(self, result: FileResult) -> None:
        """A picture is finished, one way or another; called before the result is yielded."""
