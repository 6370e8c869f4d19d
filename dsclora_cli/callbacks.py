"""Callbacks of a long task: the base class that upscaling, evaluation and training extend.

Imports nothing, so that every room and the command line can use the class.
"""

from __future__ import annotations

from functools import cached_property


class Callbacks:
    """Methods that a long task calls to report progress; every method of the base does nothing.

    A task calls the methods in the thread of the task's caller, never in a worker thread, so an override needs no
    lock. Subclass the base class of a task and override the methods of interest.
    """

    @cached_property
    def _noted(self) -> set[str]:
        # A cached property rather than `__init__`: a subclass need not call `super().__init__()`.
        return set()

    def note_once(self, note: str) -> None:
        """Call `on_note`, unless the same sentence was reported before. Tasks call `note_once`; do not override."""
        if note not in self._noted:
            self._noted.add(note)
            self.on_note(note)

    def was_noted(self, note: str) -> bool:
        """Return whether `note_once` has reported the sentence."""
        return note in self._noted

    def on_note(self, note: str) -> None:
        """Receive a sentence about the whole run.

        Equal sentences are reported once, news excepted: that a watched folder has gone is reported each time.
        """
