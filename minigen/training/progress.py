"""The progress bar of a training: on a terminal and in a notebook, nowhere else unless asked for."""

from __future__ import annotations

import sys
import threading
import warnings
from contextvars import ContextVar
from typing import Any

from minigen import notebook
from minigen.streams import Tolerant, is_terminal


def progress_bar(total: int, progress: bool | None, **options: Any) -> Any:
    """A bar of ``total`` steps; ``options`` go to tqdm. In a notebook it is a widget, or text without ipywidgets.

    ``progress=None`` shows it where someone looks, see :func:`watched`. Where there is a :data:`shared_bar`, a part of
    that.
    """
    if (shared := shared_bar.get()) is not None:
        return shared.part(total)
    return _bar(total, progress, options)


def _bar(total: int, progress: bool | None, options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a bar is text for lack of ipywidgets: it is a bar all the same
        from tqdm.auto import tqdm
    shown = sys.stderr is not None and (watched() if progress is None else progress)
    # A notebook's bar finds its own stream; elsewhere the terminal may go away while the training goes on.
    stream = sys.stderr if notebook.running() or isinstance(sys.stderr, Tolerant) else Tolerant(sys.stderr)
    return tqdm(
        **{"total": total, "unit": "step", "disable": not shown, "dynamic_ncols": True, "file": stream, **options}
    )


class SharedBar:
    """One bar of ``models`` trainings at once, whose threads each hold a part of it.

    Its total are the steps of those that have begun, and as many, on average, of each that has not.
    """

    def __init__(self, models: int, progress: bool | None) -> None:
        self.models, self.begun, self.ended, self.diverged = models, 0, 0, 0
        self.steps = 0  # of those that have begun
        self.lock = threading.Lock()
        self.bar = _bar(0, progress, {"desc": f"0/{models} models"})

    def part(self, total: int) -> Part:
        """The part of a training of ``total`` steps, which begins."""
        with self.lock:
            self.begun = min(self.begun + 1, self.models)
            self._add(total)
        return Part(self, total)

    def _add(self, steps: int) -> None:
        self.steps += steps
        self.bar.total = round(self.steps * self.models / max(self.begun, 1))
        self.bar.refresh()

    def advance(self, steps: int) -> None:
        with self.lock:
            self.bar.update(steps)

    def drop(self, steps: int) -> None:
        """So many steps will not be done."""
        with self.lock:
            self._add(-steps)

    def end(self, diverged: bool) -> None:
        """A model is done with."""
        with self.lock:
            self.ended += 1
            self.diverged += diverged
            diverged_ones = f", {self.diverged} diverged" if self.diverged else ""
            self.bar.set_description(f"{self.ended}/{self.models} models{diverged_ones}")


class Part:
    """One training's part of a :class:`SharedBar`, to be used as a bar."""

    def __init__(self, whole: SharedBar, total: int) -> None:
        self.whole, self.left = whole, total

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *error: Any) -> None:
        self.whole.drop(self.left)

    def update(self, steps: int) -> None:
        self.left -= steps
        self.whole.advance(steps)

    def set_description(self, *text: Any, **options: Any) -> None:
        """The whole bar says how many models are done."""

    def set_postfix(self, *values: Any, **options: Any) -> None:
        """Losses of several models at once tell nothing."""


shared_bar: ContextVar[SharedBar | None] = ContextVar("shared_bar", default=None)
"""The bar that :func:`progress_bar` gives parts of in this context."""


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
