"""The networks, as torch.nn modules."""
