"""What a file of a format says next to its pixels, read without a decoder."""
