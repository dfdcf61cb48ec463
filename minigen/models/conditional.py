"""Layers that see a label of each row, or numbers beside it: conditional models.

The condition of a batch, ``Context.condition``, is a class for each row, ``int32[B]``, or numbers ``[B, C]``.
:mod:`minigen.reference.condition` derives what follows. Both layers here have a matrix ``E`` with a row for each class,
or for each of the C numbers, and make of it what the condition adds to each row: ``e_r = E[label_r]``, or ``c_r E``.

- :class:`ConditionBias` adds it to a layer's output before the activation: the same as a one-hot label, or the numbers,
  beside that layer's input (Mirza and Osindero 2014; in both halves of a VAE: Sohn, Lee and Yan 2015).
- :class:`Projection` is a discriminator's last layer that judges by ``x_r . e_r`` too (Miyato and Koyama 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.layers import INFERENCE, Context, Dense, Layer, Stored

CONDITIONINGS = ("input", "projection")
"""How a discriminator takes the condition: beside its input, or by its last layer."""


@dataclass(frozen=True)
class Condition:
    """What a row's condition is: one of ``size`` classes where ``labelled``, else ``size`` numbers."""

    size: int
    labelled: bool


def side_by_side(condition: Condition, pack: int) -> Condition:
    """The condition of ``pack`` rows that are judged together: these concatenated, labels as one-hot vectors.

    So each place in the pack has a matrix ``E`` of its own, and what the pack's conditions add is the sum.
    """
    return condition if pack == 1 else Condition(pack * condition.size, labelled=False)


def with_condition_beside_input(layers: Sequence[Layer], condition: Condition, scale: float = 1.0) -> list[Layer]:
    """``layers`` with the condition added to what the first one makes of its input, before its activation. ``scale``
    multiplies the first values of ``E``."""
    first, *others = layers
    assert isinstance(first, Dense)
    linear = copy.copy(first)
    linear.activation = "linear"
    return [linear, ConditionBias(first.outputs, first.activation, condition, first.followed_by, scale), *others]


def with_projection(layers: Sequence[Layer], condition: Condition) -> list[Layer]:
    """The ``layers`` of a discriminator with a :class:`Projection` as the last one."""
    return [*layers[:-1], Projection(layers[-1], condition)]


@dataclass(frozen=True)
class StoredCondition(Stored):
    """Beside the output: the ``condition`` of each row, and ``e[B, width]``, what it adds. ``zero`` and ``unused`` are
    the bias of the product ``c E``, always 0, and its gradient."""

    condition: Array
    e: Array
    zero: Array | None
    unused: Array | None

    def rows(self, start: int, stop: int) -> Self:
        mine = super().rows(start, stop)
        return replace(mine, condition=self.condition[start:stop], e=self.e[start:stop])


@dataclass(frozen=True)
class StoredProjection(StoredCondition):
    """Also ``de``, the gradient of ``e``, and what the dense layer stores, with the same ``y`` and ``dz``."""

    de: Array
    inner: Stored

    def rows(self, start: int, stop: int) -> Self:
        return replace(super().rows(start, stop), de=self.de[start:stop], inner=self.inner.rows(start, stop))


class Conditional(Layer):
    """What both layers share: the matrix ``E[size, width]`` and its gradient."""

    condition: Condition
    width: int
    followed_by: str
    """What comes behind, for the first values; see :class:`Dense`."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"E": (self.condition.size, self.width)}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """Those of a dense layer from the condition, a label as a one-hot vector."""
        return {"E": self._drawn(self.condition.size, seed, init, tensor, dtype)}

    def _drawn(self, rows: int, seed: int, init: str, tensor: int, dtype: Any) -> np.ndarray:
        return Dense(rows, self.width, "linear", self.followed_by).initial(seed, init, tensor, dtype)["W"]

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> StoredCondition:
        if context.condition is None or len(context.condition) != rows:
            raise ValueError(f"{self.name} needs a condition for each of the {rows} rows")
        plain, zeros = super().store(rows, y, grad_rows, context), np.zeros(self.width, self.ops.dtype)
        zero, unused = (None if self.condition.labelled else self.ops.upload(zeros) for _ in range(2))
        return StoredCondition(plain.y, plain.dz, context.condition, self.ops.empty((rows, self.width)), zero, unused)

    def _add_of(self, stored: Stored) -> Array:
        """``e``, computed."""
        assert isinstance(stored, StoredCondition)
        E = self.params["E"]
        if self.condition.labelled:
            self.ops.batch_gather(E, stored.condition, stored.e)
        else:
            self.ops.dense_forward(stored.condition, E, stored.zero, stored.e)
        return stored.e

    def _gradient_of(self, de: Array, stored: Stored, accumulate: bool = False) -> None:
        """``grads["E"]`` from that of ``e``, or that on top of what they hold."""
        assert isinstance(stored, StoredCondition)
        if self.condition.labelled:
            self.ops.class_sums(de, stored.condition, self.grads["E"], accumulate)
        else:
            self.ops.dense_wgrad(stored.condition, de, self.grads["E"], stored.unused, accumulate)


class ConditionBias(Conditional):
    """``y = act(x + e)`` behind a linear layer, ``x`` its output."""

    def __init__(self, width: int, activation: str, condition: Condition, followed_by: str, scale: float = 1.0) -> None:
        super().__init__(width, width, activation)
        self.condition, self.width, self.followed_by, self.scale = condition, width, followed_by, scale

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """Those of a dense layer, times ``scale``."""
        return {"E": (super().initial(seed, init, tensor, dtype)["E"] * self.scale).astype(dtype)}

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.activation_of_sum(x, self._add_of(stored), stored.y, self.activation)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        self._gradient_of(stored.dz, stored)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.activation_backward(stored.dz, x, dx, activation)

    no_tangent = ""

    def tangent(self, x: Array, x_tangent: Array, stored: Stored, z_tangent: Array) -> None:
        """The condition does not move."""
        self.ops.activation_forward(x_tangent, z_tangent, "linear")

    def add_tangent_gradients(self, x: Array, x_tangent: Array, stored: Stored) -> None:
        """There are none: ``e`` is added, and is not in the tangent."""

    def add_param_gradients(self, x: Array, stored: Stored) -> None:
        self._gradient_of(stored.dz, stored, accumulate=True)


class Projection(Conditional):
    """``y_r = inner(x_r) + x_r . e_r``: a logit, with ``inner`` a dense layer of one output."""

    def __init__(self, inner: Layer, condition: Condition) -> None:
        super().__init__(inner.inputs, 1, "linear")
        self.inner, self.condition, self.width, self.followed_by = inner, condition, inner.inputs, "linear"

    def bound(self, ops: Backend, *buffers: Any) -> Self:
        layer = super().bound(ops, *buffers)
        layer.inner = self.inner.bound(ops, *buffers)
        return layer

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**self.inner.shapes, **super().shapes}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """Those of dense layers; ``E`` takes the draws behind those of ``W``."""
        E = self._drawn(self.condition.size + 1, seed, init, tensor, dtype)[1:]
        return {**self.inner.initial(seed, init, tensor, dtype), "E": E}

    @property
    def running_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.inner.running_shapes

    def initial_running(self, seed: int, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        return self.inner.initial_running(seed, tensor, dtype)

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> StoredProjection:
        mine, inner = super().store(rows, y, grad_rows, context), self.inner.store(rows, y, grad_rows, context)
        parts = vars(mine) | {"y": inner.y, "dz": inner.dz}
        return StoredProjection(**parts, de=self.ops.empty((rows, self.width)), inner=inner)

    def forward(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, StoredProjection)
        self.inner.forward(x, self._of_inner(stored))
        self.ops.projection_forward(x, self._add_of(stored), stored.y)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        assert isinstance(stored, StoredProjection)
        self.inner.param_gradients(x, self._of_inner(stored))
        self.ops.projection_wgrad(x, stored.dz, stored.de)
        self._gradient_of(stored.de, stored)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        assert isinstance(stored, StoredProjection)
        self.inner.input_gradient(x, self._of_inner(stored), dx, activation)
        self.ops.projection_dgrad(stored.dz, stored.e, dx, x, activation)

    def _of_inner(self, stored: StoredProjection) -> Stored:
        """With the logits and the gradient of ``stored``, which a penalty keeps apart from those of the loss."""
        return replace(stored.inner, y=stored.y, dz=stored.dz)

    @property
    def no_tangent(self) -> str:  # type: ignore[override]
        return self.inner.no_tangent

    def add_tangent_gradients(self, x: Array, x_tangent: Array, stored: Stored) -> None:
        """Of ``<dz, x_tangent W + x_tangent . e>``. The last layer: what its tangent is nobody asks."""
        assert isinstance(stored, StoredProjection)
        self.inner.add_tangent_gradients(x, x_tangent, self._of_inner(stored))
        self.ops.projection_wgrad(x_tangent, stored.dz, stored.de)
        self._gradient_of(stored.de, stored, accumulate=True)
