"""The output of a generator of tables as a layer. :mod:`minigen.reference.gumbel_softmax` has the formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.layers import INFERENCE, Context, Dense, Layer, Parameterless, Stored, times_derivative
from minigen.reference import random


@dataclass(frozen=True)
class GumbelStored(Stored):
    """Also the ``context``, and in training the uniforms ``u`` that the noise is made of."""

    context: Context = INFERENCE
    u: Array | None = None

    def rows(self, start: int, stop: int) -> Self:
        return replace(super().rows(start, stop), u=None if self.u is None else self.u[start:stop])


class GumbelSoftmax(Parameterless):
    """Numbers, ``y = act(x)``, in ``blocks`` of one column, and labels in wider ones.

    In training a label is a softmax at the ``temperature`` of its logits with Gumbel noise (Jang et al. 2017; Maddison
    et al. 2017), drawn anew each time; elsewhere the probabilities of its values, the softmax of the logits. The layers
    before it see a linear one.
    """

    def __init__(self, blocks: Sequence[int], output: str, temperature: float) -> None:
        super().__init__(sum(blocks), sum(blocks))
        self.blocks, self.output, self.temperature = tuple(blocks), output, temperature
        self.ends: Array = np.cumsum(self.blocks).astype(np.int32)

    def bound(self, ops: Backend, *buffers: Any) -> Self:
        layer = super().bound(ops, *buffers)
        layer.ends = ops.upload(self.ends)
        return layer

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> GumbelStored:
        stored = super().store(rows, y, grad_rows, context)
        u = self.ops.empty((rows, self.outputs)) if context.training else None
        return GumbelStored(stored.y, stored.dz, context, u)

    def forward(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, GumbelStored)
        context, u = stored.context, stored.u
        if u is not None:
            assert context.counter is not None, "Gumbel noise needs the step counter: see Context"
            self.ops.random_uniform(u, context.seed, random.GUMBEL, context.counter)
        self.ops.gumbel_softmax_forward(x, u, self.ends, stored.y, self.output, self.temperature)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        y = stored.y[len(stored.y) - len(stored.dz) :]
        self.ops.gumbel_softmax_backward(stored.dz, y, self.ends, dx, self.output, self.temperature)
        times_derivative(self.ops, dx, x, activation)

    def __str__(self) -> str:
        numbers = self.blocks.count(1)
        return f"{numbers} {self.output}, {len(self.blocks) - numbers} softmax, temperature {self.temperature:g}"


def with_labels(layers: Sequence[Layer], blocks: Sequence[int], temperature: float) -> list[Layer]:
    """The ``layers`` of a generator with the activation of the last one in a :class:`GumbelSoftmax` behind it."""
    *before, last = layers
    dense = Dense(last.inputs, last.outputs, "linear", followed_by=last.activation)
    return [*before, dense, GumbelSoftmax(blocks, last.activation, temperature)]
