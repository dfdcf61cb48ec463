"""Maxout as a layer. :mod:`minigen.reference.maxout` has the formulas."""

from __future__ import annotations

from minigen.backend import Array
from minigen.models.layers import Parameterless, Stored, times_derivative


class Maxout(Parameterless):
    """Of the ``pieces`` columns ``o``, ``o + outputs``, ... of ``x`` the largest (Goodfellow et al. 2013).

    Behind a linear layer of ``pieces * outputs`` columns; without parameters of its own.
    """

    def __init__(self, outputs: int, pieces: int) -> None:
        super().__init__(pieces * outputs, outputs)
        self.pieces = pieces

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.maxout_forward(self._in_pieces(x), stored.y)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.maxout_backward(stored.dz, self._in_pieces(x), self._in_pieces(dx))
        times_derivative(self.ops, dx, x, activation)

    def tangent(self, x: Array, x_tangent: Array, stored: Stored, z_tangent: Array) -> None:
        self.ops.maxout_tangent(self._in_pieces(x_tangent), self._in_pieces(x), z_tangent)

    def _in_pieces(self, x: Array) -> Array:
        return x.reshape(len(x), self.pieces, self.outputs)

    def __str__(self) -> str:
        return f"maxout of {self.pieces}"
