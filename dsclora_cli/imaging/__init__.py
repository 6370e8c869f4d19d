"""Pixels in, pixels out, in NumPy: files, colour, ranges, tiling, resizing, metrics."""
