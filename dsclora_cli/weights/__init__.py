"""Weight files: which there are, where their bytes are, and how they become networks."""
