"""Dropout as a layer. :mod:`minigen.reference.dropout` has the formulas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from minigen.backend import Array
from minigen.models.layers import INFERENCE, Context, Parameterless, Stored, times_derivative
from minigen.reference import random


@dataclass(frozen=True)
class DropoutStored(Stored):
    """Also the ``context``, and the number ``first`` of the first of these rows: part of a batch has that part of the
    mask."""

    context: Context = INFERENCE
    first: int = 0

    def rows(self, start: int, stop: int) -> Self:
        return replace(super().rows(start, stop), first=self.first + start)


class Dropout(Parameterless):
    """A share ``rate`` of the numbers becomes 0 in training, the others grow by ``1 / (1 - rate)`` (Srivastava et al.
    2014); elsewhere ``y = x``.

    The mask follows from the step counter, the layer's ``number`` in its model and the row, and is drawn again in the
    backward pass. A layer that is passed more than once in a step has the same mask for the same row of its buffers.
    """

    def __init__(self, width: int, rate: float, number: int) -> None:
        super().__init__(width, width)
        self.rate = rate
        self.stream = random.DROPOUT + (number + 1) * 256  # apart from the streams that have a name

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> DropoutStored:
        stored = super().store(rows, y, grad_rows, context)
        return DropoutStored(stored.y, stored.dz, context)

    def forward(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, DropoutStored)
        self._drop(x, stored.y, stored, stored.first)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        assert isinstance(stored, DropoutStored)
        self._drop(stored.dz, dx, stored, stored.first + len(stored.y) - len(stored.dz))
        times_derivative(self.ops, dx, x, activation)

    def tangent(self, x: Array, x_tangent: Array, stored: Stored, z_tangent: Array) -> None:
        assert isinstance(stored, DropoutStored)
        self._drop(x_tangent, z_tangent, stored, stored.first)

    def _drop(self, x: Array, y: Array, stored: DropoutStored, first_row: int) -> None:
        """``y`` from ``x``, whose rows begin at row ``first_row`` of the batch."""
        context = stored.context
        if context.training:
            assert context.counter is not None, "dropout in training needs the step counter: see Context"
            first = first_row * self.outputs
            self.ops.dropout(x, y, context.seed, self.stream, context.counter, first, self.rate)
        else:
            self.ops.activation_forward(x, y, "linear")

    def __str__(self) -> str:
        return f"dropout {self.rate:g}"
