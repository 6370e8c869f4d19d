"""Upscale on many machines: the work behind `dsclora upscale --executor ray`."""
