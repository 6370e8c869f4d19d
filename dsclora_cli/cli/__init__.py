"""The terminal: parse, call one task, show the result."""
