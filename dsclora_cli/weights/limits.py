"""Limits on weight files, and the hint of errors about other files. No torch."""

from __future__ import annotations

MOST_WEIGHT_BYTES = 1 << 30
"""Largest accepted file, packed and unpacked, and largest download without a known size."""

MOST_WEIGHTS_TEXT = "1 GiB"
"""`MOST_WEIGHT_BYTES` for messages."""

MOST_PICKLES = 5
"""Pickles in an old-style file of torch: magic number, protocol, system, objects, names of the storages.

The bytes of the tensors follow.
"""

MOST_PICKLE_BYTES = 1 << 26
"""Longest pickle that is read; the tensors do not lie in the pickle."""

FORMATS_HINT = "expected weights as .safetensors, .pth or .pt"
"""Next step in an error about a file that holds no weights."""
