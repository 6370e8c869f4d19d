"""The work behind each command, callable from Python; results are frozen dataclasses."""
