"""The rows of the optimizers, of what goes with them: clipping, averages of weights, the learning rate.

How to read them: :mod:`minigen.ops`, whose :class:`~minigen.ops.Operations` has them all.
"""

from __future__ import annotations

from typing import Any

from minigen.errors import ArgumentError
from minigen.reference.schedule import SCHEDULES
from minigen.registry import OneOf, operation, real, whole, within
from minigen.step.record import Array


def _warmup_ends(sizes: dict[str, int], given: dict[str, Any]) -> None:
    if given["warmup"] >= given["horizon"]:
        raise ArgumentError("warmup", f"must be less than horizon, {given['horizon']} steps, not {given['warmup']}")


ADAM = "+p[n] g[n] +m[n] +v[n] lr[1] step:uint64[1]"
ADAM_SETTINGS: dict[str, Any] = {"beta1": real, "beta2": real, "eps": real, "flops": lambda n: 14 * n["n"]}


class OptimizerOperations:
    """Part of :class:`minigen.ops.Operations`."""

    # --- optimizer: all parameters of a network lie in one flat buffer -----------------------------------

    @operation(
        "+p[n] g[n] +velocity[n] lr[1]",
        "velocity = [{momentum} velocity + ]g[ + {weight_decay} p]; p = p - lr velocity",
        recorded_as="optimizer",
        implied={"optimizer": "sgd"},
        renamed={"velocity": "m"},
        momentum=real,
        weight_decay=real,
        flops=lambda n: 6 * n["n"],
    )
    def sgd(
        self, p: Array, g: Array, velocity: Array, lr: Array, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        """``g += weight_decay p; velocity = momentum velocity + g; p -= lr velocity`` (``g`` itself is left alone)."""

    @operation(
        ADAM,
        "m = {beta1} m + (1 - {beta1}) g; v = {beta2} v + (1 - {beta2}) g^2; p = p - lr m^ "
        "/ (sqrt(v^) + {eps}), m^ = m / (1 - {beta1}^t), v^ = v / (1 - {beta2}^t)",
        recorded_as="optimizer",
        implied={"optimizer": "adam", "weight_decay": 0.0},
        **ADAM_SETTINGS,
    )
    def adam(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: Array,
        step: Array,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        """Adam (Kingma and Ba 2015, algorithm 1) at t = ``step[0] + 1``; ``p, g, m, v`` flat and equally long."""

    @operation(
        ADAM,
        "p = p - lr {weight_decay} p; then m = {beta1} m + (1 - {beta1}) g; v = {beta2} v +"
        " (1 - {beta2}) g^2; p = p - lr m^ / (sqrt(v^) + {eps}), m^ = m / (1 - {beta1}^t), "
        "v^ = v / (1 - {beta2}^t)",
        recorded_as="optimizer",
        implied={"optimizer": "adam"},
        **ADAM_SETTINGS,
        weight_decay=real,
    )
    def adamw(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: Array,
        step: Array,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """Adam after ``p -= lr weight_decay p``, decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    @operation(
        "+p[...]", "p = min(max(p, -{limit}), {limit})", limit=within(0, exclude_low=True), flops=lambda n: n["n"]
    )
    def clip(self, p: Array, limit: float) -> None:
        """Every element of ``p`` into ``[-limit, limit]``."""

    @operation(
        "+p[n] g[n] +velocity[n] +v[n] lr[1]",
        "v = {beta2} v + (1 - {beta2}) h^2, h = g[ + {weight_decay} p]; velocity = "
        "[{momentum} velocity + ]h / (sqrt(v) + {eps}); p = p - lr velocity",
        recorded_as="optimizer",
        implied={"optimizer": "rmsprop"},
        renamed={"velocity": "m"},
        beta2=real,
        eps=real,
        momentum=real,
        weight_decay=real,
        flops=lambda n: 12 * n["n"],
    )
    def rmsprop(
        self,
        p: Array,
        g: Array,
        velocity: Array,
        v: Array,
        lr: Array,
        beta2: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """RMSProp (Tieleman and Hinton 2012) with momentum and L2 weight decay, as PyTorch has it."""

    @operation(
        "+p[n] g[n] +m[n] lr[1]",
        "p = p - lr (sign({beta1} m + (1 - {beta1}) g)[ + {weight_decay} p]); m = {beta2} m + (1 - {beta2}) g",
        recorded_as="optimizer",
        implied={"optimizer": "lion"},
        beta1=real,
        beta2=real,
        weight_decay=real,
        flops=lambda n: 11 * n["n"],
    )
    def lion(
        self,
        p: Array,
        g: Array,
        m: Array,
        lr: Array,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
    ) -> None:
        """Lion (Chen et al. 2023): ``p -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay p)``, and ``m`` decays by
        ``beta2``."""

    @operation(
        "+g[n] =norm[1]",
        "norm = |g|; g = g min(1, {most} / norm)",
        most=within(0, exclude_low=True),
        flops=lambda n: 3 * n["n"],
    )
    def clip_norm(self, g: Array, norm: Array, most: float) -> None:
        """``norm[0] = sqrt(sum g^2)``, and where that is larger than ``most``, ``g *= most / norm[0]``."""

    @operation(
        "+average[n] p[n] step:uint64[1]",
        "average = average + w (p - average), w = max(1 - {decay}, 10 / (10 + t))",
        decay=within(0, 1),
        flops=lambda n: 3 * n["n"],
    )
    def average(self, average: Array, p: Array, step: Array, decay: float) -> None:
        """``average += w (p - average)``, an exponential average of ``p`` with ``w = max(1 - decay, 10 / (10 + t))``.

        ``t = step[0]`` updates were done before; with ``t = 0`` the average becomes ``p``, up to rounding.
        """

    @operation(
        "=lr[1] base[1] step:uint64[1]",
        "lr = base (t + 1) / {warmup} while t < {warmup}; then {schedule}: base times a "
        "factor of what is left of {horizon} steps",
        schedule=OneOf(SCHEDULES),
        warmup=whole(0),
        horizon=whole(1),
        also=_warmup_ends,
        flops=lambda n: 10,
    )
    def scheduled_rate(self, lr: Array, base: Array, step: Array, schedule: str, warmup: int, horizon: int) -> None:
        """``lr[0]``, the learning rate after ``step[0]`` of ``horizon`` steps, from ``base[0]``: it rises in the first
        ``warmup`` steps and then follows the ``schedule``, see :mod:`minigen.reference.schedule`."""
