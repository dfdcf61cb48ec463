"""The layers that a network is a list of, and the plainest of them, :class:`Dense`.

A layer computes ``y = act(z(x))`` and keeps ``y``. With ``dz`` the gradient of the loss with respect to ``z``, its
value before its own activation, a backward pass goes through the layers from the last to the first. Each

1. has its ``dz``: the loss delivers that of the last layer, every other layer's was written by the layer after it;
2. computes the gradients of its parameters from its input and ``dz``;
3. writes the ``dz`` of the layer before: the gradient of its own input, times the derivative of that layer's
   activation, which is computed from its stored output (see :mod:`minigen.reference.activations`).

A new kind is one subclass of :class:`Layer`; networks, optimizers, model files, reports and gradient checks ask the
layers for what they need. A layer without an activation of its own calls it ``"linear"``. The other kinds are in
modules beside this one, and :mod:`minigen.models.hidden` puts hidden layers together from them.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from minigen.backend import Array, Backend
from minigen.reference import initializers


@dataclass(frozen=True)
class Context:
    """What a batch has beside its rows, for the layers that want it.

    ``training``: whether the batch is a step's, not one that is only judged or generated; ``groups``: into how many
    parts of equal size, one behind the other, the rows fall that are batches of their own, for layers in which a row
    depends on the others of its batch; ``condition``: a class for
    each row, ``int32[B]``, or numbers ``[B, C]``; ``counter``: the steps done, on the device, and ``seed`` the model's,
    for layers that draw random numbers.
    """

    training: bool = False
    condition: Array | None = None
    counter: Array | None = None
    seed: int = 0
    groups: int = 1


INFERENCE = Context()
RECTIFIERS = ("relu", "leaky_relu", "elu", "gelu", "silu", "maxout")


@dataclass(frozen=True)
class Stored:
    """What a layer keeps of a batch: its output ``y[B, outputs]``, and ``dz`` for the rows that have a gradient.

    Those are all rows, or the last ``len(dz)`` of them.
    """

    y: Array
    dz: Array

    def rows(self, start: int, stop: int) -> Self:
        """The same memory, rows ``start`` to ``stop``."""
        without = len(self.y) - len(self.dz)  # the first rows, which have no gradient
        return replace(self, y=self.y[start:stop], dz=self.dz[max(0, start - without) : max(0, stop - without)])


class Layer(ABC):
    """``inputs`` numbers a row to ``outputs``, with an ``activation``. A layer is made without memory.

    A network gives it memory with :meth:`bound`: then it has a ``name`` (``generator.0``), and ``params`` and
    ``grads`` hold, by the names in :attr:`shapes`, its parameters and their gradients, and ``running`` what it keeps
    from one batch to the next beside these, by the names in :attr:`running_shapes`.
    """

    couples_rows: ClassVar[bool] = False
    """Whether in training a row's output depends on the other rows of its batch."""
    name: str
    ops: Backend
    params: Mapping[str, Array]
    grads: Mapping[str, Array]
    running: Mapping[str, Array]

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        self.inputs, self.outputs, self.activation = inputs, outputs, activation

    def bound(
        self,
        ops: Backend,
        name: str,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        running: Mapping[str, Array],
    ) -> Self:
        """This layer on a device: a copy that computes with these buffers."""
        layer = copy.copy(self)
        layer.ops, layer.name, layer.params, layer.grads, layer.running = ops, name, params, grads, running
        return layer

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, in their order in memory. In a model file ``W`` of layer ``generator.0`` is
        ``generator.0.W``."""

    @abstractmethod
    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """First values of the parameters. Layers of one model differ in ``tensor``, so that none share their draws."""

    @property
    def running_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what a step changes and the next one reads, and no gradient descends on. Saved with the parameters."""
        return {}

    def initial_running(self, seed: int, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """First values of these, as :meth:`initial`."""
        return {}

    def store(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> Stored:
        """Buffers for a batch of ``rows``. The output goes into ``y`` where that is given, and the last ``grad_rows``
        of the rows have a gradient, or all of them. A layer that needs the ``context`` keeps it in its
        :class:`Stored`."""
        y = self.ops.empty((rows, self.outputs)) if y is None else y
        return Stored(y, self.ops.empty((rows if grad_rows is None else grad_rows, self.outputs)))

    @abstractmethod
    def forward(self, x: Array, stored: Stored) -> None:
        """``x[B, inputs]`` to ``stored.y[B, outputs]``."""

    @abstractmethod
    def param_gradients(self, x: Array, stored: Stored) -> None:
        """``grads``, from the input of the forward pass and ``stored.dz``."""

    @abstractmethod
    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        """``dx[B, inputs]``, from ``stored.dz``: the gradient of ``x`` times the derivative of the ``activation`` whose
        output ``x`` is. With ``"linear"`` that is the gradient of ``x`` itself."""

    @property
    def parameter_count(self) -> int:
        return sum(map(math.prod, self.shapes.values()))

    def __str__(self) -> str:
        return ", ".join([*(f"{name} {shape}" for name, shape in self.shapes.items()), self.activation])


class Parameterless(Layer):
    """A layer without parameters, linear as those see it that come behind."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, "linear")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        return {}

    def param_gradients(self, x: Array, stored: Stored) -> None:
        """There are none."""

    def add_tangent_gradients(self, x: Array, x_tangent: Array, stored: Stored) -> None:
        """There are none."""

    def add_param_gradients(self, x: Array, stored: Stored) -> None:
        """There are none."""

    no_tangent = ""


def times_derivative(ops: Backend, dx: Array, x: Array, activation: str) -> None:
    """Turn ``dx``, the gradient of ``x``, into that of the ``z`` before it, where ``x = act(z)``."""
    if activation != "linear":
        ops.activation_backward(dx, x, dx, activation)


class Dense(Layer):
    """``y = act(x W + b)`` with ``W[inputs, outputs]`` and ``b[outputs]``. By the chain rule (Rumelhart, Hinton and
    Williams 1986), with ``x`` the stored output of the layer before:

        dW = x^T dz                        (dense_wgrad)
        db = sum over rows of dz           (dense_wgrad)
        dz_before = (dz W^T) * act'_before (dense_dgrad)

    ``followed_by`` names what comes behind a layer that is linear itself, for its first weights: another activation, or
    ``"maxout"``.
    """

    def __init__(self, inputs: int, outputs: int, activation: str, followed_by: str | None = None) -> None:
        super().__init__(inputs, outputs, activation)
        self.followed_by = activation if followed_by is None else followed_by

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.inputs, self.outputs), "b": (self.outputs,)}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """He where a rectifier follows, Glorot elsewhere, or ``init`` for all; biases are zero.

        He's variance is ``2 / fan_in`` for both rectifiers. For a leaky one of slope ``a``, He et al. 2015 (equation
        15) have ``2 / ((1 + a^2) fan_in)``; at our slope of 0.2 that is 4 % less, and is left out. What is close to a
        rectifier counts as one.
        """
        rectified = self.followed_by in RECTIFIERS
        kind = init if init != "auto" else ("he_uniform" if rectified else "glorot_uniform")
        draw = getattr(initializers, kind)
        return {"W": draw(self.inputs, self.outputs, seed, tensor, dtype), "b": np.zeros(self.outputs, dtype)}

    def forward(self, x: Array, stored: Stored) -> None:
        self.ops.dense_forward(x, self.params["W"], self.params["b"], stored.y, self.activation)

    def param_gradients(self, x: Array, stored: Stored) -> None:
        self.ops.dense_wgrad(x, stored.dz, self.grads["W"], self.grads["b"])

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        self.ops.dense_dgrad(stored.dz, self.params["W"], dx, x, activation)
