"""The activations that are layers of their own, because their derivative does not follow from their output."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.models.layers import Layer, Stored, times_derivative


class SelfGated(Layer):
    """``y = x s(p(x))``: ``"gelu"`` or ``"silu"`` of each number, ``dx = dy act'(x)``, without parameters.

    See :mod:`minigen.reference.self_gated`. Before it stands a layer whose own activation is linear.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__(width, width, "linear")
        self.kind = kind

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        return {}

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.self_gated_forward(x, stored.y, self.kind)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        """There are none."""

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.self_gated_backward(stored.dz, x, dx, self.kind)
        times_derivative(self.ops, dx, x, activation)

    def __str__(self) -> str:
        return self.kind
