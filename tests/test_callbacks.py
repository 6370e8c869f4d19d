"""The base class of all callbacks."""

from __future__ import annotations

from dsclora_cli.callbacks import Callbacks


class Recorder(Callbacks):
    def __init__(self) -> None:  # without super().__init__(), as users write it
        self.notes: list[str] = []

    def on_note(self, note: str) -> None:
        self.notes.append(note)


def test_equal_notes_are_reported_once() -> None:
    recorder = Recorder()
    assert not recorder.was_noted("a")
    for note in ("a", "b", "a"):
        recorder.note_once(note)
    assert recorder.notes == ["a", "b"]
    assert recorder.was_noted("a")
