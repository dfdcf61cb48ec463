"""The progress bar of a training: on a terminal and in a notebook, nowhere else unless asked for."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from minigen import notebook
from minigen.streams import Tolerant, is_terminal


def progress_bar(total: int, progress: bool | None, **options: Any) -> Any:
    """A bar of ``total`` steps; ``options`` go to tqdm. In a notebook it is a widget, or text without ipywidgets.

    ``progress=None`` shows it where someone looks, see :func:`watched`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a bar is text for lack of ipywidgets: it is a bar all the same
        from tqdm.auto import tqdm
    shown = sys.stderr is not None and (watched() if progress is None else progress)
    # A notebook's bar finds its own stream; elsewhere the terminal may go away while the training goes on.
    stream = sys.stderr if notebook.running() or isinstance(sys.stderr, Tolerant) else Tolerant(sys.stderr)
    return tqdm(
        **{"total": total, "unit": "step", "disable": not shown, "dynamic_ncols": True, "file": stream, **options}
    )


def is_small(model: Any) -> bool:
    """Whether the hidden layers of ``model`` are the defaults."""
    small, settings = type(model)().get_params(), model.get_params()
    return all(settings[name] == small[name] for name in small if name.startswith("hidden"))


def hint_at_preset(model: Any, X: Any, progress: bool | None) -> None:
    """Say, once in a process, what draws clearer pictures than a small model, where that is trained with a bar."""
    kind, pictures = type(model).__name__, len(getattr(X, "shape", ())) > 2
    if pictures and is_small(model) and progress is not False and watched() and kind not in _hinted:
        _hinted.add(kind)
        print(
            f"hint: {kind}.preset('quality') draws clearer pictures than these defaults, a small model", file=sys.stderr
        )


_hinted: set[str] = set()


def watched() -> bool:
    """Whether this process is a notebook's kernel, or its stderr is a terminal."""
    return notebook.running() or is_terminal(sys.stderr)
