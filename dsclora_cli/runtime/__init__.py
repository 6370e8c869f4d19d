"""Where a network runs: descriptors, devices, dtypes, engines."""
