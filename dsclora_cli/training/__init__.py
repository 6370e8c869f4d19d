"""Training: `dsclora train`, and the training loop of `dsclora distill` too."""
