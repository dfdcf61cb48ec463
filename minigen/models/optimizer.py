"""The state of an optimizer over one network's flat parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.models.network import Network
from minigen.registry import MOST

SLOTS = {"adam": ("m", "v"), "adamw": ("m", "v"), "sgd": ("velocity",), "rmsprop": ("velocity", "v"), "lion": ("m",)}
OPTIMIZERS = tuple(SLOTS)


@dataclass(frozen=True)
class OptimizerSettings:
    """Hyper-parameters, named as in the papers; those that an optimizer has no use for are ignored by it."""

    optimizer: str = "adam"
    learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0  # 0: none
    schedule: str = "constant"
    warmup: float = 0.0  # epochs
    epochs: int = 1  # of the schedule


@dataclass(frozen=True)
class Average:
    """The average of a network's parameters over the steps, as the parameters of ``net``: a network of the same layers.

    ``decay`` and what the first steps do: :mod:`minigen.reference.averaging`.
    """

    net: Network
    decay: float

    def update(self, source: Network, step: Array) -> None:
        """Take in the parameters of ``source`` and what its layers keep beside them, such as running statistics;
        ``step`` counts the updates done before."""
        self.net.ops.average(self.net.params, source.params, step, self.decay)
        if len(source.running):
            self.net.ops.average(self.net.running, source.running, step, self.decay)


class Optimizer:
    """One of :data:`OPTIMIZERS` over all the parameters of ``net``; ``slots`` are the :data:`SLOTS` that it keeps."""

    def __init__(self, ops: Backend, net: Network, settings: OptimizerSettings) -> None:
        self.ops = ops
        self.net = net
        self.settings = settings
        zeros = np.zeros(net.params.shape, ops.dtype)
        self.slots: dict[str, Array] = {name: ops.upload(zeros) for name in SLOTS[settings.optimizer]}
        self.steps_per_epoch = 1
        self.scheduled = settings.schedule != "constant" or settings.warmup > 0
        self.base = ops.upload(np.array([settings.learning_rate], ops.dtype))
        self.lr = ops.upload(self.base) if self.scheduled else self.base

        self.norm = ops.upload(np.zeros(1, ops.dtype))  # of the last gradient, where it is clipped

    def set_learning_rate(self, rate: float) -> None:
        """For the updates to come. It lies in the device's memory: a captured step reads it there."""
        self.ops.upload(np.array([rate], self.ops.dtype), out=self.base)

    def update(self, step: Array) -> None:
        """One update from ``net.grads``; ``step`` counts the updates done before."""
        p, g, s = self.net.params, self.net.grads, self.settings
        if self.scheduled:
            self.ops.scheduled_rate(self.lr, self.base, step, s.schedule, *self._warmup_and_horizon())
        if s.clip_norm:
            self.ops.clip_norm(g, self.norm, s.clip_norm)
        slots = self.slots
        if s.optimizer == "sgd":
            self.ops.sgd(p, g, slots["velocity"], self.lr, s.momentum, s.weight_decay)
        elif s.optimizer == "rmsprop":
            self.ops.rmsprop(p, g, slots["velocity"], slots["v"], self.lr, s.beta2, s.eps, s.momentum, s.weight_decay)
        elif s.optimizer == "lion":
            self.ops.lion(p, g, slots["m"], self.lr, s.beta1, s.beta2, s.weight_decay)
        elif s.optimizer == "adam":
            self.ops.adam(p, g, slots["m"], slots["v"], self.lr, step, s.beta1, s.beta2, s.eps)
        else:
            self.ops.adamw(p, g, slots["m"], slots["v"], self.lr, step, s.beta1, s.beta2, s.eps, s.weight_decay)

    def _warmup_and_horizon(self) -> tuple[int, int]:
        """Of the schedule, in steps; a constant rate has no other end than that of its warm-up."""
        warmup = round(self.settings.warmup * self.steps_per_epoch)
        if self.settings.schedule == "constant":
            return warmup, warmup + 1
        horizon = max(1, self.settings.epochs * self.steps_per_epoch)
        checks.integer("epochs, in steps of a schedule,", horizon, 1, MOST)
        return min(warmup, horizon - 1), horizon
