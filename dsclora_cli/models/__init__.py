"""Neural networks as `torch.nn` modules; `network.py` holds their common interface."""
