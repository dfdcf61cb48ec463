"""The loop around the steps: progress, history, callbacks, interruption, and the watch for NaN."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.errors import TrainingDiverged
from minigen.training.history import History
from minigen.training.run import RING, TrainingRun

SECONDS_BETWEEN_READS = 0.2  # how long the host leaves the device alone: a progress bar's pace, an interrupt's patience


@dataclass(frozen=True)
class EpochEnd:
    """What a callback is told at the end of an epoch.

    ``losses`` are the means over the epoch, ``model`` the estimator in training: it can be sampled and saved.
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
        raise TypeError(f"callbacks must be a list of functions, not {callbacks!r}")
    for i, callback in enumerate(callbacks):
        if not callable(callback):
            raise TypeError(f"callbacks[{i}] must be a function of an EpochEnd, not {callback!r}")


def _says_stop(word: Any) -> bool:
    """Whether a callback returned ``True``, also NumPy's, which comparisons of NumPy's numbers give."""
    return isinstance(word, (bool, np.bool_)) and bool(word)


def train(
    run: TrainingRun,
    model: Any,
    history: History,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> None:
    """Run ``epochs`` more epochs of ``run`` and record them in ``history``.

    Ctrl-C ends the training after the steps under way; what was learnt is kept and ``history.stop_reason`` says
    ``"interrupted"``. Raises :class:`TrainingDiverged` when a loss or weight turns NaN or infinite; the networks are
    then as they were before the step that did it.
    """
    first_epoch = history.epochs
    history.stop_reason = "finished"
    with _progress_bar(epochs * run.steps_per_epoch, progress) as bar, _interrupt_flag() as interrupted:
        for epoch in range(first_epoch, first_epoch + epochs):
            end_of_epoch = run.done + run.steps_left
            seconds = _train_epoch(run, history, bar, interrupted, f"epoch {epoch + 1}/{first_epoch + epochs}")
            if run.done < end_of_epoch:
                history.stop_reason = "interrupted"
                return
            history.end_epoch(seconds)
            end = EpochEnd(model, epoch + 1, first_epoch + epochs, run.done, history.last_epoch(), seconds)
            # A list, not a generator: every callback hears of the epoch, whatever the others say.
            if any([_says_stop(callback(end)) for callback in callbacks]):
                history.stop_reason = "callback"
                return
            if interrupted.is_set():
                history.stop_reason = "interrupted"
                return


def _train_epoch(run: TrainingRun, history: History, bar: Any, interrupted: threading.Event, title: str) -> float:
    """The steps up to the end of the epoch, or to an interrupt. Returns the seconds spent in steps."""
    spent, pace = 0.0, 1
    bar.set_description(title, refresh=False)
    left = run.steps_left
    while left and not interrupted.is_set():
        steps = min(pace, left, RING)
        begin = time.perf_counter()
        losses = _checked_steps(run, history, steps)
        seconds = time.perf_counter() - begin
        history.add(losses)
        bar.set_postfix({n: f"{x:.4g}" for n, x in zip(history.names, losses[-1], strict=True)}, refresh=False)
        bar.update(steps)
        spent, left = spent + seconds, left - steps
        pace = max(1, min(2 * steps, int(SECONDS_BETWEEN_READS * steps / max(seconds, 1e-9))))
    return spent


def _checked_steps(run: TrainingRun, history: History, steps: int) -> np.ndarray:
    """Run ``steps`` steps and return their losses; diagnose them if anything is no longer finite."""
    run.keep()
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported below, by step and layer
        run.run(steps)
    losses = run.recent_losses(steps)
    if not (np.isfinite(losses).all() and run.weights_are_finite()):
        run.go_back()
        history.stop_reason = "diverged"
        _repeat_until_divergence(run, history, steps)
    return losses


def _repeat_until_divergence(run: TrainingRun, history: History, steps: int) -> None:
    """Repeat ``steps`` steps one by one (the same bits: a step depends on the state alone) and raise at the bad one."""
    for _ in range(steps):
        run.keep()
        with np.errstate(over="ignore", invalid="ignore"):
            run.run(1)
        losses = run.recent_losses(1)
        if not (np.isfinite(losses).all() and run.weights_are_finite()):
            failed = run.done
            what, layer = run.first_non_finite() or ("loss", run.networks[-1].layers[-1].name)
            run.go_back()
            raise TrainingDiverged(
                f"step {failed}: a NaN or an infinity, first seen in the {what} of layer {layer}. The model keeps the "
                "weights from before this step. Try a smaller learning_rate, or look for extreme values in the data.",
                step=failed,
                layer=layer,
            )
        history.add(losses)
    raise RuntimeError("a divergence did not repeat itself: this device is not deterministic")


def _progress_bar(total: int, progress: bool | None) -> Any:
    from tqdm import tqdm

    quiet = not sys.stderr.isatty() if progress is None else not progress
    return tqdm(total=total, unit="step", disable=quiet, dynamic_ncols=True)


@contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """A flag that Ctrl-C sets, so that a step is never cut in two. A second Ctrl-C raises ``KeyboardInterrupt``."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: Any) -> None:
        flag.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
