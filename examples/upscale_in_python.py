"""Upscaling from Python: a file, a Pillow image, an array, and a folder.

    python examples/upscale_in_python.py [PHOTO] [FOLDER]

The defaults are the example photograph and a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dsclora_cli import UpscaleOptions, Upscaler, upscale_files
from dsclora_cli.config import BatchOptions, ModelOptions, SizeOptions

PHOTO = Path(__file__).with_name("photo.png")
EMBEDDED = UpscaleOptions(model=ModelOptions(offline=True))  # without `offline`, better weights are downloaded


def main(photo: Path, folder: Path) -> None:
    """Upscale in each way once."""
    upscaler = Upscaler(scale=4, options=EMBEDDED)

    written = upscaler(photo, folder / "photo_x4.png")
    print("file: ", written.name, Image.open(written).size)

    image = upscaler(Image.open(photo).crop((100, 40, 148, 72)))
    print("image:", image.mode, image.size)

    array = upscaler(np.asarray(image.convert("L"))[:32, :48])
    print("array:", array.dtype, array.shape)

    options = UpscaleOptions(
        model=EMBEDDED.model,
        size=SizeOptions(long_edge=600),
        batch=BatchOptions(output=str(folder), name="{stem}_{width}x{height}.jpg"),
    )
    for result in upscale_files([str(photo)], options):
        print("batch:", result.status, Path(result.output or "").name, result.error or "")


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTO
    if len(sys.argv) > 2:
        main(source, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(source, Path(scratch))
