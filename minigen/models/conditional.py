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


def buffer_for(ops: Backend, rows: int, condition: Condition) -> Array:
    """An uninitialised buffer for the conditions of so many rows."""
    return ops.empty((rows,), np.int32) if condition.labelled else ops.empty((rows, condition.size))


def with_condition_beside_input(layers: Sequence[Layer], condition: Condition) -> list[Layer]:
    """``layers`` with the condition added to what the first one makes of its input, before its activation."""
    first = copy.copy(layers[0])
    first.activation = "linear"
    bias = ConditionBias(first.outputs, layers[0].activation, condition)
    return [first, bias, *layers[1:]]


def with_projection(layers: Sequence[Layer], condition: Condition) -> list[Layer]:
    """The ``layers`` of a discriminator with a :class:`Projection` as the last one."""
    return [*layers[:-1], Projection(layers[-1].inputs, condition)]


@dataclass(frozen=True)
class StoredCondition(Stored):
    """Beside the output: the ``condition`` of each row, and ``e[B, I]``, what it adds; ``de`` is the gradient of ``e``
    where that is not ``dz``. ``zero`` and ``unused`` are the bias of the product ``c E``, always 0, and its gradient.
    """

    condition: Array
    e: Array
    de: Array | None = None
    zero: Array | None = None
    unused: Array | None = None

    def rows(self, start: int, stop: int) -> Self:
        mine = super().rows(start, stop)
        de = None if self.de is None else self.de[start:stop]
        return replace(mine, condition=self.condition[start:stop], e=self.e[start:stop], de=de)


def of_condition(stored: Stored) -> StoredCondition:
    """What a conditional layer stores, which is always of this kind."""
    assert isinstance(stored, StoredCondition)
    return stored


class Conditional(Layer):
    """What both layers share: the matrix ``E[size, width]`` and its gradient."""

    condition: Condition
    width: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"E": (self.condition.size, self.width)}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """Those of a dense layer from the condition, a label as a one-hot vector."""
        return {"E": self._drawn(self.condition.size, seed, init, tensor, dtype)}

    def _drawn(self, rows: int, seed: int, init: str, tensor: int, dtype: Any) -> np.ndarray:
        return Dense(rows, self.width, self.activation).initial(seed, init, tensor, dtype)["W"]

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> StoredCondition:
        if context.condition is None or len(context.condition) != rows:
            raise ValueError(f"{self.name} needs a condition for each of the {rows} rows")
        plain = super().store(rows, y, grad_rows, context)
        stored = StoredCondition(plain.y, plain.dz, context.condition, self.ops.empty((rows, self.width)))
        if self.condition.labelled:
            return stored
        zeros = np.zeros(self.width, self.ops.dtype)
        return replace(stored, zero=self.ops.upload(zeros), unused=self.ops.upload(zeros))

    def _add_of(self, stored: Stored) -> Array:
        """``e``, computed."""
        stored, E = of_condition(stored), self.params["E"]
        if self.condition.labelled:
            self.ops.batch_gather(E, stored.condition, stored.e)
        else:
            self.ops.dense_forward(stored.condition, E, stored.zero, stored.e)
        return stored.e

    def _gradient_of(self, de: Array, stored: Stored) -> None:
        """``grads["E"]`` from that of ``e``."""
        stored = of_condition(stored)
        if self.condition.labelled:
            self.ops.class_sums(de, stored.condition, self.grads["E"])
        else:
            self.ops.dense_wgrad(stored.condition, de, self.grads["E"], stored.unused)


class ConditionBias(Conditional):
    """``y = act(x + e)`` behind a linear layer, ``x`` its output."""

    def __init__(self, width: int, activation: str, condition: Condition) -> None:
        super().__init__(width, width, activation)
        self.condition, self.width = condition, width

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.activation_of_sum(x, self._add_of(stored), stored.y, self.activation)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        self._gradient_of(stored.dz, stored)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.activation_backward(stored.dz, x, dx, activation)


class Projection(Conditional):
    """``y_r = x_r W + b + x_r . e_r`` with ``W[inputs, 1]`` and ``b[1]``: a logit."""

    def __init__(self, inputs: int, condition: Condition) -> None:
        super().__init__(inputs, 1, "linear")
        self.condition, self.width = condition, inputs

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.inputs, 1), "b": (1,), **super().shapes}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """Those of dense layers; ``E`` takes the draws behind those of ``W``."""
        dense = Dense(self.inputs, 1, "linear").initial(seed, init, tensor, dtype)
        E = self._drawn(self.condition.size + 1, seed, init, tensor, dtype)[1:]
        return {**dense, "E": E}

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> StoredCondition:
        stored = super().store(rows, y, grad_rows, context)
        return replace(stored, de=self.ops.empty((rows, self.width)))

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.dense_forward(x, self.params["W"], self.params["b"], stored.y)
        self.ops.projection_forward(x, self._add_of(stored), stored.y)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        of_e = of_condition(stored).de
        self.ops.dense_wgrad(x, stored.dz, self.grads["W"], self.grads["b"])
        self.ops.projection_wgrad(x, stored.dz, of_e)
        self._gradient_of(of_e, stored)

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.dense_dgrad(stored.dz, self.params["W"], dx, x, activation)
        self.ops.projection_dgrad(stored.dz, of_condition(stored).e, dx, x, activation)
