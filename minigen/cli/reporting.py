"""The report in the folder of a run: written at the end of the training, on the way, and by ``minigen evaluate``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Reporter:
    """Writes ``report.html`` into ``folder``, on a training on ``items`` with these ``labels``.

    Where a package that it needs is missing, ``say`` is told, once at the end: a training is not to fail for that.
    ``timed``: the page says how long it has been since this was made, in all.
    """

    def __init__(
        self, folder: Path, items: Any, labels: Any, say: Callable[[str], None], *, timed: bool = True
    ) -> None:
        self.folder, self.items, self.say, self.timed = folder, items, say, timed
        self.labels = getattr(items, "labels", None) if labels is None else labels  # a data set has its own
        self.begun = self.last = time.perf_counter()

    def refresh(self, model: Any) -> None:
        """Write it in the course of a training, unless that was a moment ago."""
        from minigen.report.page import REFRESH

        if time.perf_counter() - self.last >= REFRESH:
            self.write(model)

    def write(self, model: Any, evaluation: Any = None) -> str | None:
        """Write it; why it could not be written, where that is so."""
        from minigen import report

        self.last = time.perf_counter()
        wall = self.last - self.begun if self.timed else None
        try:
            report.write(
                self.folder / report.NAME, model, self.items, self.labels, evaluation=evaluation, wall_seconds=wall
            )
        except ImportError as error:
            return str(error)
        return None

    def end(self, model: Any) -> list[str]:
        """Write it at the end: the names of the files written."""
        from minigen import report

        if reason := self.write(model):
            self.say(f"{report.NAME} is not written: {reason}")
            return []
        return [report.NAME]

    def give_up(self, model: Any) -> None:
        """Of a training that ends with an error: a page that says that it is under way is to say so no longer."""
        from minigen import report

        if (self.folder / report.NAME).exists():
            self.write(model)


def in_run(file: Path, trained: Any, items: Any, labels: Any, evaluation: Any) -> Path | None:
    """Write the report of the run that the model's ``file`` is in anew, with the figures of an ``evaluation``.

    None where the file is in no folder of a run, or a package is missing.
    """
    from minigen import report
    from minigen.training.checkpoint import MODEL

    folder = file.parent
    if file.name != MODEL or not (folder / "history.csv").exists():
        return None
    reporter = Reporter(folder, items, labels, print, timed=False)
    return None if reporter.write(trained, evaluation) else folder / report.NAME
