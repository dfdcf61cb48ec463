"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced by the home folder, as a shell does where it sees one.

    In ``--out=~/runs``, ``MINIGEN_CACHE='~/x'`` and in Python no shell does. A name that begins with ``~`` but is no
    user's stays as it is.
    """
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """``$MINIGEN_CACHE``, else ``$XDG_CACHE_HOME/minigen``, else ``~/.cache/minigen``; it need not be there."""
    chosen = os.environ.get("MINIGEN_CACHE")
    return user_path(chosen) if chosen else user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "minigen"
