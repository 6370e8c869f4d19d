"""What the lines of a batch share: its inputs, and where they tell what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.tasks.jobs import JobPlanner
from dsclora_cli.tasks.observer import Observer
from dsclora_cli.tasks.results import FileResult
from dsclora_cli.tasks.source import Found, Input

Event = Callable[[Observer], None]
"""What an observer is to hear."""


@dataclass(frozen=True)
class Ended:
    """Told by a line that has ended; `wait` raises what ended it early."""

    wait: Callable[[], None]


class Shared:
    """What the lines of a batch have in common: its inputs, of which each takes the next one, and where they tell."""

    def __init__(self, found: Found, options: UpscaleOptions) -> None:
        self.options = options
        self.planner = JobPlanner(found, options)
        self.told: SimpleQueue[FileResult | Event | Ended] = SimpleQueue()
        """Results, what is told beside them, and the end of each line."""
        self.broken = False
        """Whether pictures that are decoded already are to be left, as one failed after that and that is enough."""
        self.order = Lock()
        """Held from taking an input until its job is planned: results have their names in the order of inputs."""
        self._inputs = iter(found.inputs)
        self._full = False
        self._noted: set[str] = set()
        self._noting = Lock()

    def next_input(self) -> Input | None:
        """The next one; None where no more are taken in."""
        return None if self._full else next(self._inputs, None)

    def tell(self, result: FileResult) -> None:
        """What became of a picture."""
        self._full = self._full or (result.status == "failed" and self.options.batch.fail_fast)
        self.told.put(result)

    def note(self, notes: Iterable[str]) -> None:
        """Sentences on the whole run, each told once."""
        with self._noting:
            for note in notes:
                if note not in self._noted:
                    self._noted.add(note)
                    self.told.put(partial(_note, note))


def _note(note: str, observer: Observer) -> None:
    observer.on_note(note)
