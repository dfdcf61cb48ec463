"""The activations that are layers of their own, because their derivative does not follow from their output."""

from __future__ import annotations

from minigen.backend import Array
from minigen.models.layers import Parameterless, Stored, times_derivative


class SelfGated(Parameterless):
    """``y = z s(p(z))`` of its input ``z``: ``"gelu"`` or ``"silu"``, ``dz = dy act'(z)``, without parameters.

    See :mod:`minigen.reference.self_gated`. Before it stands a layer whose own activation is linear.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__(width, width)
        self.kind = kind

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.self_gated_forward(x, stored.y, self.kind)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.self_gated_backward(stored.dz, x, dx, self.kind)
        times_derivative(self.ops, dx, x, activation)

    is_curved = True

    def tangent(self, x: Array, x_tangent: Array, stored: Stored, z_tangent: Array) -> None:
        self.ops.self_gated_backward(x_tangent, x, z_tangent, self.kind)

    def curvature(
        self, x: Array, x_tangent: Array, stored: Stored, dx: Array, activation: str, accumulate: bool
    ) -> None:
        assert activation == "linear", "a self-gated activation stands behind a linear layer"
        self.ops.self_gated_curvature(stored.dz, x_tangent, x, dx, self.kind, accumulate)

    def __str__(self) -> str:
        return self.kind
