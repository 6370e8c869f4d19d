"""Scores of models on benchmark sets: what `dsclora eval` does. Begin with evaluate.py."""
