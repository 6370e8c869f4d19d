"""Decoders and encoders, a module for each file format."""
