"""Engines that run a network, and the tiling around them."""
