"""Upscale on many machines: what `dsclora upscale --executor ray` does."""
