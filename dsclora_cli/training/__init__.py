"""What `dsclora train` does: the training loop and what surrounds it."""
