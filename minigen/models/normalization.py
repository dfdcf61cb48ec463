"""Batch and layer normalization as layers. :mod:`minigen.reference.normalization` has the formulas.

They stand behind a linear layer and apply the activation themselves: ``z = gamma h + beta``, ``y = act(z)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from minigen.backend import Array
from minigen.models.layers import INFERENCE, Context, Layer, Stored, times_derivative

MOMENTUM, EPS = 0.1, 1e-5
"""How far a batch moves the running statistics, and what is added to a variance."""


class _Normalization(Layer):
    """``y[B,O] = act(gamma h + beta)`` with ``gamma[O]`` and ``beta[O]``, ``h`` the normalised ``x[B,O]``."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__(width, width, activation)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"gamma": (self.outputs,), "beta": (self.outputs,)}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """``z = h`` at first."""
        return {"gamma": np.ones(self.outputs, dtype), "beta": np.zeros(self.outputs, dtype)}


@dataclass(frozen=True)
class BatchNormStored(Stored):
    """Also of each of the ``groups`` of rows that are a batch of their own ``mean`` and ``inv_std[groups, O]``.

    Not in inference, where there are none, and the rows may be any.
    """

    mean: Array | None = None
    inv_std: Array | None = None

    def rows(self, start: int, stop: int) -> Self:
        """Whole batches, or rows of one, which then are the batch. Raises ValueError for others."""
        part = super().rows(start, stop)
        if self.mean is None or self.inv_std is None:
            return part
        size = len(self.y) // len(self.mean)
        first, last = start // size, -(-stop // size)
        if last - first > 1 and (start % size or stop % size):
            raise ValueError(f"rows {start} to {stop} are no whole batches of {size} rows")
        return replace(part, mean=self.mean[first:last], inv_std=self.inv_std[first:last])


class BatchNorm(_Normalization):
    """Batch normalization (Ioffe and Szegedy 2015): ``h`` are columns with mean 0 and variance 1.

    In training over the rows of a batch, of which a forward pass may have several one after the other, each for itself:
    see :attr:`minigen.models.layers.Context.groups`. Elsewhere by running statistics, which every batch of training
    that goes through the layer moves, ``running_mean[O]`` and ``running_var[O]``.
    """

    couples_rows = True
    no_tangent = (
        "batch normalization makes a row's logit depend on the other rows of its batch, and a penalty is on the "
        "gradient of each row by itself (Gulrajani et al. 2017, section 4); take normalization_discriminator='layer'"
    )

    @property
    def running_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"running_mean": (self.outputs,), "running_var": (self.outputs,)}

    def initial_running(self, seed: int, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        return {"running_mean": np.zeros(self.outputs, dtype), "running_var": np.ones(self.outputs, dtype)}

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> BatchNormStored:
        stored = super().store(rows, y, grad_rows, context)
        if not context.training:
            return BatchNormStored(stored.y, stored.dz)
        if rows % context.groups or len(stored.dz) % (rows // context.groups):
            raise ValueError(f"{rows} rows, {len(stored.dz)} of which learn, are no {context.groups} whole batches")
        mean, inv_std = (self.ops.empty((context.groups, self.outputs)) for _ in range(2))
        return BatchNormStored(stored.y, stored.dz, mean, inv_std)

    def forward(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, BatchNormStored)
        gamma, beta = self.params["gamma"], self.params["beta"]
        mean, var = self.running["running_mean"], self.running["running_var"]
        if stored.mean is None or stored.inv_std is None:
            self.ops.batch_norm_infer(x, gamma, beta, mean, var, stored.y, EPS, self.activation)
        else:
            x, y = (_batches(rows, stored.mean) for rows in (x, stored.y))
            statistics = (stored.mean, stored.inv_std, mean, var)
            self.ops.batch_norm_forward(x, gamma, beta, y, *statistics, MOMENTUM, EPS, self.activation)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        mean, inv_std = _statistics(stored)
        dz, x = _batches(stored.dz, mean), _batches(x, mean)
        self.ops.batch_norm_wgrad(dz, x, mean, inv_std, self.grads["gamma"], self.grads["beta"])

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        mean, inv_std = _statistics(stored)
        dz, gamma = _batches(stored.dz, mean), self.params["gamma"]
        self.ops.batch_norm_dgrad(dz, _batches(x, mean), gamma, mean, inv_std, _batches(dx, mean))
        times_derivative(self.ops, dx, x, activation)

    def __str__(self) -> str:
        return f"batch norm, {super().__str__()}"


def _batches(rows: Array, statistics: Array) -> Array:
    """``rows[B,O]`` as batches ``[groups, B / groups, O]``."""
    groups, width = statistics.shape
    return rows.reshape(groups, len(rows) // groups, width)


def _statistics(stored: Stored) -> tuple[Array, Array]:
    assert isinstance(stored, BatchNormStored)
    if stored.mean is None:
        raise ValueError("batch normalization has a gradient in training alone: see Context.training")
    return stored.mean, stored.inv_std


@dataclass(frozen=True)
class LayerNormStored(Stored):
    """Also ``mean`` and ``inv_std[B]`` of each row."""

    mean: Array
    inv_std: Array

    def rows(self, start: int, stop: int) -> Self:
        part = super().rows(start, stop)
        return replace(part, mean=self.mean[start:stop], inv_std=self.inv_std[start:stop])


class LayerNorm(_Normalization):
    """Layer normalization (Ba et al. 2016): ``h`` are rows with mean 0 and variance 1, in training and elsewhere."""

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> LayerNormStored:
        stored = super().store(rows, y, grad_rows, context)
        return LayerNormStored(stored.y, stored.dz, self.ops.empty((rows,)), self.ops.empty((rows,)))

    def forward(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, LayerNormStored)
        gamma, beta = self.params["gamma"], self.params["beta"]
        self.ops.layer_norm_forward(x, gamma, beta, stored.y, stored.mean, stored.inv_std, EPS, self.activation)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, LayerNormStored)
        grads = self.grads["gamma"], self.grads["beta"]
        self.ops.layer_norm_wgrad(stored.dz, x, stored.mean, stored.inv_std, *grads)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        assert isinstance(stored, LayerNormStored)
        self.ops.layer_norm_dgrad(stored.dz, x, self.params["gamma"], stored.mean, stored.inv_std, dx)
        times_derivative(self.ops, dx, x, activation)

    no_tangent = ""
    is_curved = True

    def tangent(self, x: Array, x_tangent: Array, stored: Stored, z_tangent: Array) -> None:
        assert isinstance(stored, LayerNormStored)
        gamma, statistics = self.params["gamma"], (stored.mean, stored.inv_std)
        self.ops.layer_norm_tangent(x_tangent, x, gamma, *statistics, z_tangent)

    def add_tangent_gradients(self, x: Array, x_tangent: Array, stored: Stored) -> None:
        assert isinstance(stored, LayerNormStored)
        statistics = (stored.mean, stored.inv_std)
        self.ops.layer_norm_tangent_wgrad(stored.dz, x_tangent, x, *statistics, self.grads["gamma"])

    def add_param_gradients(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, LayerNormStored)
        grads = self.grads["gamma"], self.grads["beta"]
        self.ops.layer_norm_wgrad(stored.dz, x, stored.mean, stored.inv_std, *grads, accumulate=True)

    def curvature(
        self, x: Array, x_tangent: Array, stored: Stored, dx: Array, activation: str, accumulate: bool
    ) -> None:
        assert isinstance(stored, LayerNormStored)
        assert activation == "linear", "normalization stands behind a linear layer"
        gamma, statistics = self.params["gamma"], (stored.mean, stored.inv_std)
        self.ops.layer_norm_curvature(stored.dz, x_tangent, x, gamma, *statistics, dx, accumulate)

    def __str__(self) -> str:
        return f"layer norm, {super().__str__()}"


NORMALIZATIONS: dict[str, type[_Normalization]] = {"batch": BatchNorm, "layer": LayerNorm}
