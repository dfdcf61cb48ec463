"""The losses of every step of a training, and when its epochs ended."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

import numpy as np

from minigen.files import write_atomically
from minigen.paths import user_path
from minigen.plotting import Plot, loss_curves
from minigen.training.evaluations import Evaluations


class History:
    """Losses of one model, step by step; the GAN's are per batch, the VAE's in nats per row, averaged over the batch.
    :class:`~minigen.GAN` says how to read the GAN's.

    Means over an epoch are over its rows: a last, smaller batch counts for as many rows as it has.

    Attributes
    ----------
    names : names of the losses, in the order of the columns of ``values``
    epochs : epochs completed
    steps : steps done
    ends : steps done at the end of each epoch
    seconds : seconds spent in training steps, for each epoch
    evaluations : metrics measured on the way, see :class:`~minigen.training.evaluations.Evaluations`
    stop_reason : why the last ``fit`` ended: ``"finished"``, ``"callback"`` (one returned ``True``),
        ``"early stopping"``, ``"interrupted"``, ``"diverged"`` or ``"error"`` (a callback or the device raised);
        ``""`` while it runs
    stop_signal : the signal that interrupted it, ``signal.SIGINT`` and so on, else None; not saved
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.seconds: list[float] = []
        self.evaluations = Evaluations()
        self.stop_reason = ""
        self.stop_signal: int | None = None
        self.ends: list[int] = []
        self._chunks: list[np.ndarray] = []
        self._row_chunks: list[np.ndarray] = []
        self._means: list[np.ndarray] = []
        self._sum, self._rows, self._steps = np.zeros(len(names)), 0, 0  # over the epoch under way

    @property
    def values(self) -> np.ndarray:
        """``float32[steps, len(names)]``."""
        if not self._chunks:
            return np.empty((0, len(self.names)), np.float32)
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0]

    @property
    def rows(self) -> np.ndarray:
        """Rows that each step was on, ``int32[steps]``."""
        if len(self._row_chunks) != 1:
            self._row_chunks = [np.concatenate([np.empty(0, np.int32), *self._row_chunks])]
        return self._row_chunks[0]

    @property
    def losses(self) -> dict[str, np.ndarray]:
        """The losses by name, one value a step."""
        return {name: self.values[:, i] for i, name in enumerate(self.names)}

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics by name, one value for each of ``evaluations.epochs``."""
        return self.evaluations.metrics

    @property
    def epochs(self) -> int:
        return len(self.ends)

    @property
    def steps(self) -> int:
        return self._steps + (self.ends[-1] if self.ends else 0)

    @property
    def steps_under_way(self) -> int:
        """Steps since the end of the last epoch: more than 0 after an interruption."""
        return self._steps

    def epoch_means(self) -> np.ndarray:
        """``float64[epochs, len(names)]``: the mean of each loss over the rows of each epoch."""
        return np.array(self._means).reshape(len(self.ends), len(self.names))

    def last_epoch(self) -> dict[str, float]:
        """The mean of each loss over the rows of the last epoch, by name."""
        return dict(zip(self.names, map(float, self._means[-1]), strict=True))

    def add(self, losses: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Append the losses of some steps, ``[steps, len(names)]``, on ``rows[steps]`` rows each (None: as many)."""
        rows = np.ones(len(losses), np.int32) if rows is None else np.asarray(rows, np.int32)
        self._chunks.append(losses)
        self._row_chunks.append(rows)
        self._sum += rows.astype(np.float64) @ losses.astype(np.float64)
        self._rows += int(rows.sum(dtype=np.int64))
        self._steps += len(losses)

    def end_epoch(self, seconds: float) -> None:
        """Mark the end of an epoch that took ``seconds``."""
        self.ends.append(self._steps + (self.ends[-1] if self.ends else 0))
        self.seconds.append(seconds)
        self._means.append(self._sum / self._rows)
        self._sum, self._rows, self._steps = np.zeros(len(self.names)), 0, 0

    def restore(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        seconds: list[float],
        stop_reason: str,
        rows: np.ndarray | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        """Take over what a saved history held, into a new one; one saved before there were ``rows`` has none.

        Raises ValueError where its parts do not agree.
        """
        if values.ndim != 2 or values.shape[1] != len(self.names) or len(ends) != len(seconds):
            raise ValueError("the saved history does not fit the model")
        steps = np.diff(ends, prepend=0, append=len(values))
        if np.any(steps[:-1] < 1) or steps[-1] < 0:
            raise ValueError("the saved history's epochs are not in order")
        rows = np.ones(len(values), np.int32) if rows is None else rows
        if rows.shape != (len(values),) or rows.dtype.kind not in "iu" or np.any(rows < 1):
            raise ValueError("the saved history's rows do not fit its losses")
        *whole, rest = zip(np.split(values, ends), np.split(rows, ends), strict=True)
        for (losses, on), time in zip(whole, seconds, strict=True):
            self.add(losses, on)
            self.end_epoch(time)
        self.add(*rest)
        self.stop_reason = stop_reason
        self.evaluations = Evaluations.from_file(metrics)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """One line an epoch: epoch, steps done, seconds, the mean of each loss, and the metrics, empty where the epoch
        was not evaluated."""
        text = io.StringIO(newline="")
        table = csv.writer(text)
        metrics = list(self.metrics)
        table.writerow(["epoch", "step", "seconds", *self.names, *metrics])
        for i, means in enumerate(self.epoch_means()):
            found = self.evaluations.at(i + 1)
            measured = [f"{found[name]:.6g}" if name in found else "" for name in metrics]
            table.writerow([i + 1, self.ends[i], f"{self.seconds[i]:.4f}", *(f"{x:.6g}" for x in means), *measured])
        write_atomically(user_path(path), text.getvalue().encode())

    def plot(self, path: str | os.PathLike[str] | None = None) -> Plot:
        """Loss curves, the mean of each epoch: a notebook shows them as a picture, ``.save(path)`` and ``path`` write
        them to a file (png, svg or pdf), ``.figure`` is matplotlib's figure.

        Raises ``ValueError`` before the first epoch has ended and ``ImportError`` without matplotlib.
        """
        plot = Plot(loss_curves(self))
        if path is not None:
            plot.save(path)
        return plot

    def __repr__(self) -> str:
        last = ", ".join(f"{n} {x:.4g}" for n, x in zip(self.names, self.epoch_means()[-1:].ravel(), strict=False))
        return f"History({self.epochs} epochs, {self.steps} steps{', ' + last if last else ''})"
