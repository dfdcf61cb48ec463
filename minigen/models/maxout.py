"""Maxout as a layer. :mod:`minigen.reference.maxout` has the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.models.layers import Layer, Stored, times_derivative


class Maxout(Layer):
    """Of the ``pieces`` columns ``o``, ``o + outputs``, ... of ``x`` the largest (Goodfellow et al. 2013).

    Behind a linear layer of ``pieces * outputs`` columns; without parameters of its own.
    """

    def __init__(self, outputs: int, pieces: int) -> None:
        super().__init__(pieces * outputs, outputs, "linear")
        self.pieces = pieces

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        return {}

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.maxout_forward(self._in_pieces(x), stored.y)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        """There are none."""

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.maxout_backward(stored.dz, self._in_pieces(x), self._in_pieces(dx))
        times_derivative(self.ops, dx, x, activation)

    def _in_pieces(self, x: Array) -> Array:
        return x.reshape(len(x), self.pieces, self.outputs)

    def __str__(self) -> str:
        return f"maxout of {self.pieces}"
