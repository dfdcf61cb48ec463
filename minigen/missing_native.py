"""Why the compiled module ``minigen._native`` is not there, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def explain(error: ImportError) -> str:
    """A sentence or two for the ``error`` of importing ``minigen._native``."""
    problem = f"minigen's compiled module minigen._native cannot be loaded ({error})"
    tree = PACKAGE.parent
    if any(PACKAGE.glob("_native.*")) or not (tree / "csrc").is_dir():  # there, but broken; or no source tree
        return f"{problem}. Install minigen with a C++20 compiler at hand: pip install ."
    for folder in installed():
        return (
            f"{problem}: Python found the source tree {tree} before the minigen that is installed in {folder}. Run "
            f"it in another folder, or install the tree itself: pip install -e {tree}"
        )
    return f"{problem}: the source tree {tree} is not compiled. With a C++20 compiler at hand: pip install -e {tree}"


def installed() -> list[Path]:
    """Folders of Python's search path that hold a whole minigen, with its compiled module."""
    folders = [Path(entry or ".").resolve() / "minigen" for entry in sys.path]
    return [f.parent for f in folders if (f / "__init__.py").is_file() and any(f.glob("_native.*"))]
