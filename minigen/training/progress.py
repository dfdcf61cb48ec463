"""The progress bar of a training: on a terminal and in a notebook, nowhere else unless asked for."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from minigen import notebook


def progress_bar(total: int, progress: bool | None) -> Any:
    """A bar of ``total`` steps: in a notebook a widget, or text where ipywidgets is not installed.

    ``progress=None`` shows it where someone looks, see :func:`watched`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a bar is text for lack of ipywidgets: it is a bar all the same
        from tqdm.auto import tqdm
    shown = watched() if progress is None else progress
    return tqdm(total=total, unit="step", disable=not shown, dynamic_ncols=True)


def hint(text: str, progress: bool | None) -> None:
    """Print ``text`` where the bar is shown, once in a process."""
    if progress is not False and watched() and text not in _hints:
        _hints.add(text)
        print(text, file=sys.stderr)


_hints: set[str] = set()


def watched() -> bool:
    """Whether this process is a notebook's kernel, or its stderr is a terminal."""
    return notebook.running() or bool(getattr(sys.stderr, "isatty", bool)())
