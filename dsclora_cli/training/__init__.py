"""Training: `dsclora train`, and the training loop that `dsclora distill` uses too."""
