"""What `dsclora eval` does: scores of models on benchmark sets."""
