"""Networks: `torch.nn` and nothing else."""
