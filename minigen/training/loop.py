"""The loop around the steps: progress, history, callbacks, interruption, and the watch for NaN."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.errors import ArgumentTypeError, TrainingDiverged
from minigen.training.history import History
from minigen.training.progress import progress_bar
from minigen.training.run import Chunk, TrainingRun
from minigen.training.signals import stop_request

SECONDS_BETWEEN_READS = 0.2
"""How long a chunk of steps may take: a progress bar's pace, and for each chunk under way an interrupt's patience."""


@dataclass(frozen=True)
class EpochEnd:
    """What a callback gets at the end of an epoch.

    ``losses`` are the means over the epoch, ``model`` the estimator in training: it can be sampled and saved, and its
    ``learning_rate`` set for the epochs to come.
    """

    model: Any
    epoch: int
    epochs: int
    step: int
    losses: dict[str, float]
    seconds: float


Callback = Callable[[EpochEnd], bool | None]
"""Called at the end of every epoch; training stops when it returns ``True``."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raise TypeError unless ``callbacks`` is a sequence of functions: better now than at the end of an epoch."""
    if not isinstance(callbacks, Sequence):
        raise ArgumentTypeError("callbacks", f"must be a list of functions, not {callbacks!r}")
    for i, callback in enumerate(callbacks):
        if not callable(callback):
            raise ArgumentTypeError(f"callbacks[{i}]", f"must be a function of an EpochEnd, not {callback!r}")


def _asks_to_stop(answer: Any) -> bool:
    """Whether a callback returned ``True``, also NumPy's, which comparisons of NumPy's numbers give."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


def train(
    run: TrainingRun,
    model: Any,
    history: History,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> None:
    """Run ``epochs`` more epochs of ``run`` and record them in ``history``.

    Ctrl-C, SIGTERM and SIGHUP end the training after the steps under way (see :func:`stop_request`); the model keeps
    what it has learned, ``history.stop_reason`` says ``"interrupted"`` and ``history.stop_signal`` by which. Raises
    :class:`TrainingDiverged` when a loss, a weight or the optimizer's state turns NaN or infinite; the networks are
    then as they were before the step that did it.
    """
    first_epoch = history.epochs
    last_epoch = first_epoch + epochs
    history.stop_reason, history.stop_signal = "", None  # no reason yet: a callback may save the model
    with progress_bar(epochs * run.steps_per_epoch, progress) as bar, stop_request() as interrupted:
        pipeline = _Pipeline(run, history, bar)
        for epoch in range(first_epoch + 1, last_epoch + 1):
            bar.set_description(f"epoch {epoch}/{last_epoch}", refresh=False)
            end_of_epoch = run.done + run.steps_left
            while run.done < end_of_epoch and not interrupted.is_set():
                pipeline.enqueue(end_of_epoch - run.done)
            if callbacks and run.done == end_of_epoch:
                pipeline.finish()  # what a callback sees is the model at the end of the epoch
                end = EpochEnd(model, epoch, last_epoch, run.done, history.last_epoch(), history.seconds[-1])
                # A list, not a generator: every callback is called, whatever the others return.
                if any([_asks_to_stop(callback(end)) for callback in callbacks]):
                    history.stop_reason = "callback"
                    return
                model._check_learning_rate()
                run.step.set_learning_rate(model.learning_rate)
            if interrupted.is_set():
                break
        pipeline.finish()
        history.stop_reason = "interrupted" if interrupted.is_set() else "finished"
        history.stop_signal = interrupted.number


class _Pipeline:
    """Steps in chunks, enqueued ahead: the host waits for a chunk once ``ops.ahead`` more are enqueued behind it, so
    that a GPU is never idle.

    The losses of a chunk, and the end of its epoch, then go into the history. A chunk takes about
    :data:`SECONDS_BETWEEN_READS` and ends with the epoch, which is cut into equal ones: the last would else be short.
    """

    def __init__(self, run: TrainingRun, history: History, bar: Any) -> None:
        self.run, self.history, self.bar = run, history, bar
        self.under_way: deque[tuple[Chunk, float]] = deque()  # and when each was enqueued, the oldest first
        self.pace = 1  # steps of the next chunk
        self.seconds = 0.0  # spent in the steps of the epoch under way
        self.collected = 0.0  # when the last chunk was

    def enqueue(self, left: int) -> None:
        """Enqueue at most ``left`` steps, then wait for the oldest ones where enough are enqueued behind them."""
        enqueued = time.perf_counter()
        steps = -(-left // max(1, round(left / self.pace)))
        self.under_way.append((self.run.enqueue(min(steps, self.run.most_steps)), enqueued))
        while len(self.under_way) > self.run.ops.ahead:
            self._collect()

    def finish(self) -> None:
        """Wait for all that is under way."""
        while self.under_way:
            self._collect()

    def _collect(self) -> None:
        """Wait for the oldest chunk. Raises TrainingDiverged, and the chunks behind it are then rolled back too."""
        chunk, enqueued = self.under_way.popleft()
        losses = _checked(self.run, self.history, chunk)
        now = time.perf_counter()
        seconds = now - max(enqueued, self.collected)  # before, the device was busy with the chunk before
        self.collected = now
        self.seconds += seconds
        self.history.add(losses, self.run.batch_sizes(chunk))
        if (chunk.before + chunk.steps) % self.run.steps_per_epoch == 0:
            self.history.end_epoch(self.seconds)
            self.seconds = 0.0
        shown = {n: f"{x:.4g}" for n, x in zip(self.history.names, losses[-1], strict=True)}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(chunk.steps)
        self.pace = max(1, min(2 * self.pace, int(SECONDS_BETWEEN_READS * chunk.steps / max(seconds, 1e-9))))


def _checked(run: TrainingRun, history: History, chunk: Chunk) -> np.ndarray:
    """The losses of ``chunk``; where anything is no longer finite, find the step and raise TrainingDiverged."""
    losses, finite = run.outcome(chunk)
    if not finite:
        run.roll_back(chunk)
        history.stop_reason = "diverged"
        _repeat_until_divergence(run, history, chunk.steps)
    return losses


def _repeat_until_divergence(run: TrainingRun, history: History, steps: int) -> None:
    """Repeat ``steps`` steps one by one (the same bits: a step depends on the state alone) and raise at the bad one."""
    for _ in range(steps):
        chunk = run.enqueue(1)
        losses, finite = run.outcome(chunk)
        if not finite:
            what, layer = run.first_non_finite() or ("loss", run.step.networks[-1].layers[-1].name)
            run.roll_back(chunk)
            raise TrainingDiverged(
                f"step {run.done + 1}: a NaN or an infinity, first seen in the {what} of layer {layer}. The model "
                "keeps the weights from before this step. Try a smaller learning_rate, and look for extreme values in "
                "the data: columns of about unit size train best, and standardize=True makes them so.",
                step=run.done + 1,
                layer=layer,
            )
        history.add(losses, run.batch_sizes(chunk))
    raise RuntimeError("a divergence did not repeat itself: this device is not deterministic")
