"""A dense layer whose weight is divided by its largest singular value (Miyato et al. 2018).

:mod:`minigen.reference.spectral_norm` has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from minigen.backend import Array
from minigen.models.layers import INFERENCE, Context, Dense, Stored
from minigen.reference import random


@dataclass(frozen=True)
class SpectralStored(Stored):
    """Also what a forward pass made of the weight: ``normalized[I,O] = W / sigma[1]`` and ``v[I]``; in ``training`` a
    place for the gradient of ``normalized``, and ``ones[B,1]``."""

    normalized: Array
    v: Array
    sigma: Array
    dnormalized: Array | None
    ones: Array | None

    def rows(self, start: int, stop: int) -> Self:
        part = super().rows(start, stop)
        return part if self.ones is None else replace(part, ones=self.ones[start:stop])


class SpectralDense(Dense):
    """``y = act(x W / sigma + b)``. The parameter is ``W``, the running ``u[O]`` the estimate of a singular vector.

    Every forward pass of training takes one step of the power iteration, others none.
    """

    @property
    def running_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"u": (self.outputs,)}

    def initial_running(self, seed: int, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """A random direction: normals apart from those of the weights, whose step is the ``tensor`` itself."""
        u = random.normal((self.outputs,), seed, random.INIT, 2**32 + tensor, dtype)
        return {"u": u / np.linalg.norm(u)}

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> SpectralStored:
        stored, shape = super().store(rows, y, grad_rows, context), (self.inputs, self.outputs)
        normalized, v, sigma = (self.ops.empty(s) for s in (shape, (self.inputs,), (1,)))
        made = (stored.y, stored.dz, normalized, v, sigma)
        if not context.training:
            return SpectralStored(*made, None, None)
        return SpectralStored(*made, self.ops.empty(shape), self.ops.upload(np.ones((rows, 1), self.ops.dtype)))

    def forward(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, SpectralStored)
        trains = stored.dnormalized is not None
        self.ops.spectral_norm(
            self.params["W"], self.running["u"], stored.v, stored.sigma, stored.normalized, iterate=trains
        )
        self.ops.dense_forward(x, stored.normalized, self.params["b"], stored.y, self.activation)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, SpectralStored) and stored.dnormalized is not None
        self.ops.dense_wgrad(x, stored.dz, stored.dnormalized, self.grads["b"])
        made = (stored.normalized, self.running["u"], stored.v, stored.sigma)
        self.ops.spectral_norm_backward(stored.dnormalized, *made, self.grads["W"])

    def tangent(self, x: Array, x_tangent: Array, stored: Stored, z_tangent: Array) -> None:
        assert isinstance(stored, SpectralStored)
        self.ops.dense_forward(x_tangent, stored.normalized, None, z_tangent)

    def add_tangent_gradients(self, x: Array, x_tangent: Array, stored: Stored) -> None:
        self._add_weight_gradient(x_tangent, stored)

    def add_param_gradients(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, SpectralStored)
        self._add_weight_gradient(x, stored)
        b = self.grads["b"].reshape(1, -1)
        self.ops.dense_wgrad(stored.ones, stored.dz, b, None, accumulate=True)  # the sum over rows

    def _add_weight_gradient(self, x: Array, stored: Stored) -> None:
        """Through ``W / sigma`` of this forward pass, on top of what comes through that of another."""
        assert isinstance(stored, SpectralStored) and stored.dnormalized is not None
        self.ops.dense_wgrad(x, stored.dz, stored.dnormalized, None)
        made = (stored.normalized, self.running["u"], stored.v, stored.sigma)
        self.ops.spectral_norm_backward(stored.dnormalized, *made, self.grads["W"], accumulate=True)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        assert isinstance(stored, SpectralStored)
        self.ops.dense_dgrad(stored.dz, stored.normalized, dx, x, activation)

    def __str__(self) -> str:
        return f"spectral norm, {super().__str__()}"
