"""A folder of PNG pictures as one array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minigen.datasets.idx import StrPath

MODES = {"1": "L", "L": "L", "RGB": "RGB"}  # what Pillow calls black and white, grey and colour, and what each becomes


def read_pictures(folder: StrPath) -> np.ndarray:
    """The PNG files of ``folder``, in the order of their names: ``uint8[N, h, w]``, or ``uint8[N, h, w, 3]`` in colour.

    Raises ``ImportError`` without Pillow; ``ValueError`` where there are no such files, one is damaged, neither grey
    nor RGB, or not of the size and kind of the others; ``OSError`` where the folder cannot be read.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() == ".png" and path.is_file())
    if not paths:
        raise ValueError(f"{folder}: the folder holds no .png files")
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('Pillow is needed to read PNG files: pip install "minigen-engine[plot]"') from error
    first = _read(Image, paths[0])
    pictures = np.empty((len(paths), *first.shape), np.uint8)
    for i, path in enumerate(paths):
        picture = _read(Image, path)
        if picture.shape != first.shape:
            raise ValueError(
                f"{folder}: the pictures must be of one size and kind, but {paths[0].name} is "
                f"{_described(first)} and {path.name} is {_described(picture)}"
            )
        pictures[i] = picture
    return pictures


def _read(image: Any, path: Path) -> np.ndarray:
    try:
        with image.open(path, formats=["PNG"]) as opened:
            mode = opened.mode
            pixels = np.asarray(opened.convert(MODES.get(mode)))
    except Exception as error:  # Pillow answers damage with half a dozen kinds of exception
        raise ValueError(f"{path}: not a usable PNG file: {error}") from error
    if mode not in MODES:
        raise ValueError(
            f"{path}: the picture must be grey or RGB, not of Pillow's mode {mode!r}; convert it: "
            "Image.open(...).convert('L') or .convert('RGB')"
        )
    return pixels


def _described(picture: np.ndarray) -> str:
    height, width = picture.shape[:2]
    return f"{width} x {height}, {'RGB' if picture.ndim == 3 else 'grey'}"
