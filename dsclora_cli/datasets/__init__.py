"""Benchmark sets and training pictures."""
