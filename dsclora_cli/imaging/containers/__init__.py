"""Statements of a file next to the pixels, read without a decoder."""
