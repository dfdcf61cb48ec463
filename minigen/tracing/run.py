"""Training steps of a model, run on the reference and watched."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.estimators.base import Estimator
from minigen.tracing.flow import Flow
from minigen.tracing.records import Record, TracingBackend
from minigen.tracing.summary import Collector
from minigen.tracing.trace import Trace
from minigen.training.run import TrainingRun


def trace(model: Any, X: Any, y: Any = None, *, steps: int = 1) -> Trace:
    """Run the next ``steps`` training steps of ``model`` on ``X`` and keep every operation of them.

    ``model`` is a :class:`~minigen.GAN` or a :class:`~minigen.VAE` and stays as it is: the steps are a copy's. Of a
    model that is not trained yet they are the first ones, of a trained one those with which ``partial_fit(X, y)`` would
    go on. They run on the reference in float32, whatever the model's device: the copy ends with the bits that
    ``device="numpy"`` trains to, on other devices results differ by rounding.

    >>> trace = minigen.trace(minigen.GAN(), digits)
    >>> print(trace)  # or trace[3].formula, trace[3].outputs["y"], trace.explain()

    Every intermediate result is kept: of the default GAN about 15 MB a step. Raises as ``partial_fit`` does, and
    TypeError for what is no GAN or VAE.
    """
    records: list[Record] = []
    watched = Watched(model, X, y)
    losses = watched.run(checks.integer("steps", steps, 1), records.append)
    return Trace(tuple(records), losses, watched.model, watched.parts())


class Watched:
    """A copy of ``model`` on a :class:`TracingBackend`, at the point where its training on ``X`` goes on."""

    def __init__(self, model: Any, X: Any, y: Any) -> None:
        if not isinstance(model, Estimator):
            raise ArgumentTypeError("model", f"must be a GAN or a VAE, not {type(model).__name__}")
        self._ops = TracingBackend()
        self.model = _on(self._ops, model if model._fitted() else _untrained(model, X, y))
        self._run = _run_of(self.model, X, y)

    def parts(self) -> dict[str, str]:
        """What each method of the step does, by its name."""
        methods = inspect.getmembers(type(self._run.step), inspect.isfunction)
        first = {
            name: (inspect.getdoc(method) or "").partition("\n\n")[0].replace("``", "") for name, method in methods
        }
        return first | {"compute": "what belongs to no other part"}

    def run(self, steps: int, sink: Callable[[Record], None]) -> dict[str, np.ndarray]:
        """Train for ``steps`` steps, each record goes to ``sink``; the reported losses of each step."""
        ops, run, losses = self._ops, self._run, []
        for _ in range(steps):
            ops.watch(run.step, run.next_rows, run.done, sink)
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # a trace shows what overflows
                run.run(1)
            ops.sink = None
            losses.append(run.recent_losses(1)[0])
        self.model._state = run.state()
        return dict(zip(run.step.loss_names, np.array(losses).T, strict=True))


def gradient_flow(model: Any, X: Any, y: Any = None, *, steps: int = 1) -> Flow:
    """The sizes of gradients and updates by layer of the next ``steps`` steps, of which nothing else is kept; else as
    :func:`trace`."""
    watched = Watched(model, X, y)
    collect = Collector(watched.model.networks_)
    watched.run(checks.integer("steps", steps, 1), collect)
    return Flow(collect.steps)


def _untrained(model: Any, X: Any, y: Any) -> Any:
    """A copy of a ``model`` without networks as its first step will find it."""
    first = type(model)(**{**model.get_params(), "device": "numpy", "precision": "auto"})
    return first.partial_fit(X, y, epochs=0, progress=False)


def _on(ops: TracingBackend, model: Any) -> Any:
    """A copy of the trained ``model`` on ``ops``."""
    twin = type(model)(**{**model.get_params(), **model._frozen, "device": "numpy", "precision": "auto"})
    from_data = (getattr(model, name) for name in model.fitted_from_data)
    learned = {"columns": model.columns_, "conditions": model.conditions_}
    twin._build(ops, model.item_shape_, model.data_dtype_, *from_data, **learned)
    for net, of_model in zip(twin.networks_, model.networks_, strict=True):
        net.load_state(of_model.state())
    twin._state = model._training_state()
    twin._load_averages(twin._state)
    twin.history_, twin.frame_ = copy.deepcopy(model.history_), model.frame_
    if hasattr(model, "feature_names_in_"):
        twin.feature_names_in_ = model.feature_names_in_
    return twin


def _run_of(model: Any, X: Any, y: Any) -> TrainingRun:
    """The training that ``model`` goes on with on these data."""
    model._check_params()
    with model._ops.on_device_of(X):
        rows = model._check_rows(X)
        model._check_batch_size(rows)
        codes = model._condition_codes(model._taken(y), len(rows))
        rows = model._standardised(rows)
    run = model._training(rows, codes)
    model._resume(run)
    if not run.steps_per_epoch:
        raise ArgumentError("X", f"must have the rows of a step, not {len(rows)}")
    return run
