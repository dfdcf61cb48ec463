"""The tiles that :mod:`minigen.cuda.tune` has measured, on disk."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from minigen.cuda import cache, tiles
from minigen.cuda.tiles import Tile


def place(architecture: int) -> Path:
    """The file of an architecture's measured tiles."""
    return cache.folder().parent / f"tiles-sm_{architecture}.json"


def load(architecture: int) -> int:
    """Prefer the tiles that :func:`tune` has measured; how many there are. A damaged file only gives a warning."""
    path = place(architecture)
    try:
        entries = json.loads(path.read_text())["entries"]
        found = [(e["operation"], e["kind"], Tile(**e["tile"])) for e in entries]
        for operation, kind, tile in found:
            tiles.prefer(architecture, operation, kind, tile)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} cannot be used ({error}); run minigen tune again", stacklevel=2)
        return 0
    return len(found)


def forget(architecture: int) -> None:
    """Go back to the table."""
    for key in [key for key in tiles._preferred if key[0] == architecture]:
        del tiles._preferred[key]
