"""Metrics in the course of a training, on rows that it does not see: recorded, and a reason to stop or to go back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen import checks
from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.metrics.figures import BETTER, LIKELIHOODS, Sets, likelihoods
from minigen.training.loop import EpochEnd
from minigen.training.run import State, TrainingRun

MOST_ROWS = 1000  # samples, and rows of each kind, that an evaluation looks at: it is not to take longer than an epoch
OF_COPIES = ("nearer to training rows", "copies of training rows")
NAMED = tuple(name for name in BETTER if name != "class coverage")  # that one takes a classifier
COLLAPSED = 0.1  # of real rows' coverage: with less, the samples leave out most of what there is
MEMORISED = 0.1  # share of the samples, beyond that of held-out rows

Metric = str | Callable[[Any, Any], float]


@dataclass(frozen=True)
class Watch:
    """What ``fit`` is told of evaluations; :meth:`monitor` makes what does them."""

    validation: Any = None
    evaluate_every: int | None = None
    metrics: Sequence[Metric] | None = None
    restore_best: bool = False
    patience: int | None = None

    def monitor(self, model: Any, X: Any, epochs: int) -> Monitor | None:
        """None where no evaluations are asked for. Raises for arguments that make no sense, before any work."""
        checks.choice("restore_best", self.restore_best, (True, False))
        if self.evaluate_every is not None:
            checks.integer("evaluate_every", self.evaluate_every, 1)
        if self.patience is not None:
            checks.integer("patience", self.patience, 1)
        metrics = self._metrics(model)
        if self.validation is None:
            given = {"evaluate_every": self.evaluate_every, "metrics": self.metrics, "patience": self.patience}
            asked = [name for name, value in given.items() if value is not None] + ["restore_best"] * self.restore_best
            if asked:
                raise ArgumentError("validation", f"must be given with {asked[0]}: rows that are not trained on")
            return None
        if metrics[0] == OF_COPIES[0] and (self.restore_best or self.patience):
            raise ArgumentError("metrics", f"must begin with one that says what is better, not with {metrics[0]!r}")
        validation, labels = self.validation, None
        if isinstance(validation, tuple):
            if len(validation) != 2:
                raise ArgumentError("validation", f"must be rows or a pair of rows and labels, not {len(validation)}")
            validation, labels = validation
        every = self.evaluate_every or max(1, epochs // 10)
        return Monitor(X, validation, labels, every, metrics, self.restore_best, self.patience)

    def _metrics(self, model: Any) -> tuple[Metric, ...]:
        of_rows = tuple(LIKELIHOODS) if hasattr(model, "elbo") else ()
        if self.metrics is None:
            return ("bound",) * bool(of_rows) + ("frechet distance", "coverage", "copies of training rows")
        if isinstance(self.metrics, str) or not isinstance(self.metrics, Sequence) or not self.metrics:
            raise ArgumentTypeError("metrics", f"must be a list of names or functions, not {self.metrics!r}")
        for i, metric in enumerate(self.metrics):
            if not callable(metric):
                checks.choice(f"metrics[{i}]", metric, (*NAMED, *of_rows))
        return tuple(self.metrics)


class Monitor:
    """A callback that evaluates the model once in ``every`` epochs, and ends the training after ``patience``
    evaluations without a better first metric."""

    def __init__(
        self,
        X: Any,
        validation: Any,
        labels: Any,
        every: int,
        metrics: Sequence[Metric],
        restore_best: bool,
        patience: int | None,
    ) -> None:
        self.validation, self.labels, self.every, self.metrics = validation, labels, every, metrics
        self.restore_best, self.patience = restore_best, patience
        (known, shape), (new, new_shape) = as_rows(X, name="X"), as_rows(validation, name="validation")
        if math.prod(shape) != math.prod(new_shape):
            raise ArgumentError("validation", f"must have items of shape {shape} as X has, not {new_shape}")
        self.known, self.new = known, new
        self.rows = min(MOST_ROWS, len(known), len(new))
        self.names = [metric if isinstance(metric, str) else metric.__name__ for metric in metrics]
        self.best: State | None = None
        self.best_value, self.since_best, self.out_of_patience = math.nan, 0, False

    def begin(self, model: Any) -> None:
        """Check the validation data against the model that is to be trained."""
        rows = model._check_rows(self.validation, "validation")
        model._condition_codes(self.labels, len(rows))
        rng = np.random.default_rng(model.seed)
        self.some = rng.permutation(len(self.known))[: self.rows]
        self.chosen = rng.permutation(len(self.new))[: self.rows]
        new, everything = self.new[self.chosen], np.arange(self.rows)
        self.of_training = Sets(self.known[self.some], new, everything, None, model.seed)
        self.of_validation = Sets(new, self.known, self.some, None, model.seed)

    def __call__(self, end: EpochEnd) -> bool:
        if end.epoch % self.every and end.epoch != end.epochs:
            return False
        values, evaluations = self._measure(end.model), end.model.history_.evaluations
        evaluations.add(end.epoch, values)
        self.since_best += 1
        if self._is_better(values[self.names[0]]):
            self.best_value, self.since_best = values[self.names[0]], 0
            evaluations.best_epoch = end.epoch
            if self.restore_best:
                self.best = end.model._training_state()
        self.out_of_patience = self.patience is not None and self.since_best >= self.patience
        return self.out_of_patience

    def _is_better(self, value: float) -> bool:
        if math.isnan(value) or math.isnan(self.best_value):
            return not math.isnan(value)
        higher = (BETTER | LIKELIHOODS).get(self.names[0]) == "higher"
        return value > self.best_value if higher else value < self.best_value

    def _measure(self, model: Any) -> dict[str, float]:
        """The metrics of the model as it stands, and, the first time, those of real rows."""
        labels = None if self.labels is None else np.asarray(self.labels)[self.chosen]
        by_numbers = model.conditions_ is not None and model.classes_ is None
        samples = as_rows(model.sample(self.rows, seed=model.seed, **({"y": labels} if by_numbers else {})))[0]
        new = self.new[self.chosen]
        sets = Sets(samples, new, np.arange(self.rows), None, model.seed, self.of_training)
        copies = Sets(samples, self.known, self.some, None, model.seed, self.of_validation)
        real = model.history_.evaluations.real
        found: dict[str, float] = {}
        asked = [name for name in self.names if name in LIKELIHOODS]
        if asked:
            found = likelihoods(model, new.reshape(-1, *model.item_shape_), labels, names=asked, seed=model.seed)
        for name, metric in zip(self.names, self.metrics, strict=True):
            if not isinstance(metric, str):
                found[name] = float(metric(model, self.validation))
            elif name in BETTER:
                of, beside = (copies, self.of_validation) if name in OF_COPIES else (sets, self.of_training)
                found[name] = of[name]
                if name not in real:
                    real[name] = beside[name]
        return {name: found[name] for name in self.names}

    def end(self, model: Any, run: TrainingRun) -> None:
        """What follows when the training is over and was not interrupted: the best weights, and warnings."""
        history = model.history_
        if history.stop_reason not in ("finished", "callback"):
            return
        if self.out_of_patience:
            history.stop_reason = "early stopping"
        if self.best is not None and history.evaluations.best_epoch != history.epochs:
            run.load_state({**self.best, "step": run.state()["step"]})  # the order of rows and the schedule go on

    def warn(self, model: Any) -> None:
        """Of samples that leave out most of the data, and of copies, where the last evaluation has found them."""
        evaluations = model.history_.evaluations
        last, real = evaluations.at(evaluations.epochs[-1]) if evaluations.epochs else {}, evaluations.real
        if last.get("coverage", 1) < COLLAPSED * real.get("coverage", 0):
            _warn(
                f"mode collapse, or samples unlike the data: they cover {last['coverage']:.2g} of the validation rows, "
                f"and as many training rows {real['coverage']:.2g}. Try more epochs, and of a GAN pack, r1 or "
                "gradient_penalty."
            )
        copies = last.get("copies of training rows", 0)
        if copies > real.get("copies of training rows", 0) + MEMORISED:
            _warn(
                f"memorised rows: {copies:.0%} of the samples are copies of training rows, but "
                f"{real['copies of training rows']:.0%} of the held-out rows. Try more data, a smaller model, dropout "
                "or fewer epochs."
            )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=6)  # of fit
