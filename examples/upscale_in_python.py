"""Upscaling from Python: a file, a Pillow image, an array, and a folder.

    python examples/upscale_in_python.py [PHOTO] [FOLDER]

The defaults are the example photograph and a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dsclora_cli import UpscaleOptions, Upscaler, upscale_files
from dsclora_cli.config import BatchOptions, ModelOptions, SizeOptions
from dsclora_cli.errors import DscloraError

PHOTO = Path(__file__).with_name("photo.png")
EMBEDDED = UpscaleOptions(model=ModelOptions(offline=True))  # without `offline`, better weights are downloaded


def upscale_in_each_way(photo: Path, folder: Path) -> None:
    """Upscale a photograph in each way once, into a folder."""
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and upscale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, nargs="?", default=PHOTO, metavar="PHOTO")
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            upscale_in_each_way(options.photo, options.folder or Path(scratch))
        except DscloraError as error:  # its text names the problem, the file and the next step
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
