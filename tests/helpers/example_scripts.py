"""Scripts of `examples/` as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTO = EXAMPLES / "photo.png"


def example(name: str) -> ModuleType:
    """Return the script `name` of `examples/`, such as `research/vary`, imported anew."""
    folder = str((EXAMPLES / name).parent)
    if folder not in sys.path:  # as for a script: examples import from their neighbors
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(Path(name).name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in annotations
    spec.loader.exec_module(module)
    return module


def save_corner(folder: Path) -> Path:
    """Save a corner of the example photograph as `small.png`: tests with the whole photograph would be slow."""
    path = folder / "small.png"
    with Image.open(PHOTO) as photo:
        photo.crop((60, 30, 110, 80)).save(path)
    return path
