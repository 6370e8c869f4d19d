"""Decoders and encoders, one module per file format."""
