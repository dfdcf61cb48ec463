"""A network of dense layers: what a GAN has two of, and a VAE too.

Layer ``l`` computes ``y_l = act_l(y_{l-1} W_l + b_l)`` with ``y_0 = x``. With ``dz_l`` the gradient of the loss
with respect to ``z_l = y_{l-1} W_l + b_l``, the chain rule gives, from the last layer to the first
(Rumelhart, Hinton and Williams 1986):

    dW_l     = y_{l-1}^T dz_l                        (dense_wgrad)
    db_l     = sum over rows of dz_l                 (dense_wgrad)
    dz_{l-1} = (dz_l W_l^T) * act'_{l-1}(z_{l-1})    (dense_dgrad)

``act'_{l-1}(z_{l-1})`` is computed from the stored output ``y_{l-1}`` (see :mod:`minigen.reference.activations`). The
backward pass therefore starts from ``dz`` of the last layer, which the loss delivers, and needs of the forward pass
only the stored outputs ``y``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from minigen.backend import Array, Backend
from minigen.reference import initializers

ALIGN = 16  # each parameter begins on a 64-byte line of the flat buffer


@dataclass(frozen=True)
class Layer:
    """One dense layer: views into the flat buffers of its network."""

    name: str
    W: Array
    b: Array
    dW: Array
    db: Array
    activation: str


@dataclass(frozen=True)
class Workspace:
    """The stored outputs ``y`` and the gradients ``dz`` of every layer, for one batch or, ``dz``, a part of it."""

    y: list[Array]
    dz: list[Array]

    def rows(self, start: int, stop: int) -> Workspace:
        """The same memory, rows ``start`` to ``stop`` of every buffer."""
        return Workspace([y[start:stop] for y in self.y], [dz[start:stop] for dz in self.dz])


def flat_size(sizes: Sequence[int]) -> int:
    """Elements of the flat buffer of a network with layers of these ``sizes``."""
    return _offsets(_shapes(sizes))[-1]


def _shapes(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Of ``W`` and ``b`` of each layer in turn."""
    return [shape for i, o in zip(sizes, sizes[1:], strict=False) for shape in ((i, o), (o,))]


def _offsets(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Where each parameter begins in the flat buffer, and where the last one ends."""
    return list(accumulate((-(-math.prod(shape) // ALIGN) * ALIGN for shape in shapes), initial=0))


class Mlp:
    """Dense layers of ``sizes[0]`` inputs, ``sizes[-1]`` outputs, and what lies between.

    All parameters lie in one flat buffer, all gradients in another, so that an optimizer is one pass over memory.
    """

    def __init__(self, ops: Backend, name: str, sizes: Sequence[int], hidden: str, output: str) -> None:
        self._made_of = ops, name, tuple(sizes), hidden, output
        self.ops = ops
        self.name = name
        self.sizes = tuple(sizes)
        shapes = _shapes(sizes)
        offsets = _offsets(shapes)
        # Zeros, so that the padding between two parameters stays zero under every optimizer.
        self.params = ops.upload(np.zeros(offsets[-1], ops.dtype))
        self.grads = ops.upload(np.zeros(offsets[-1], ops.dtype))

        def view(flat: Array, i: int) -> Array:
            return flat[offsets[i] : offsets[i] + math.prod(shapes[i])].reshape(shapes[i])

        count = len(sizes) - 1
        activations = [hidden] * (count - 1) + [output]
        self.layers = [
            Layer(
                f"{name}.{i}",
                view(self.params, 2 * i),
                view(self.params, 2 * i + 1),
                view(self.grads, 2 * i),
                view(self.grads, 2 * i + 1),
                activations[i],
            )
            for i in range(count)
        ]

    # A copy of the layers alone would no longer be views into the flat buffers, which the optimizer writes.

    def __getstate__(self) -> dict[str, Any]:
        return {"made_of": self._made_of, "parameters": self.state()}

    def __setstate__(self, copied: dict[str, Any]) -> None:
        self.__init__(*copied["made_of"])  # type: ignore[misc]
        self.load_state(copied["parameters"])

    @property
    def output_activation(self) -> str:
        return self.layers[-1].activation

    @property
    def parameter_count(self) -> int:
        return sum(i * o + o for i, o in zip(self.sizes, self.sizes[1:], strict=False))

    def initialize(self, seed: int, init: str, first: int) -> None:
        """Draw the weights: He where a rectifier follows, Glorot elsewhere, or ``init`` for all; biases are zero.

        He's variance is ``2 / fan_in`` for both rectifiers. For a leaky one of slope ``a``, He et al. 2015 (equation
        15) have ``2 / ((1 + a^2) fan_in)``; at our slope of 0.2 that is 4 % less, and is left out.

        Layer ``i`` is tensor number ``first + i`` of the model, so that no two layers share their draws.
        """
        state = {}
        for i, layer in enumerate(self.layers):
            rectified = layer.activation in ("relu", "leaky_relu")
            kind = init if init != "auto" else ("he_uniform" if rectified else "glorot_uniform")
            draw = getattr(initializers, kind)
            fan_in, fan_out = self.sizes[i], self.sizes[i + 1]
            state[f"{layer.name}.W"] = draw(fan_in, fan_out, seed, first + i, self.ops.dtype)
            state[f"{layer.name}.b"] = np.zeros(fan_out, self.ops.dtype)
        self.load_state(state)

    def named(self, flat: Array) -> list[tuple[str, Array]]:
        """The layer's name and the part of ``flat`` for each ``W`` and ``b``; ``flat`` is laid out as ``params`` is."""
        shapes = _shapes(self.sizes)
        starts = _offsets(shapes)
        return [
            (self.layers[i // 2].name, flat[starts[i] : starts[i] + math.prod(shape)]) for i, shape in enumerate(shapes)
        ]

    def state(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters: ``name.i.W[I,O]`` and ``name.i.b[O]``."""
        parts = ((f"{layer.name}.{part}", getattr(layer, part)) for layer in self.layers for part in "Wb")
        return {key: np.array(self.ops.download(buffer)) for key, buffer in parts}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Set every parameter from arrays as :meth:`state` gives them."""
        for layer in self.layers:
            for part in "Wb":
                value = np.ascontiguousarray(state[f"{layer.name}.{part}"], self.ops.dtype)
                buffer = getattr(layer, part)
                if value.shape != tuple(buffer.shape):
                    raise ValueError(f"{layer.name}.{part} must have shape {tuple(buffer.shape)}, not {value.shape}")
                self.ops.upload(value, out=buffer)

    def workspace(self, rows: int, y: Array | None = None, learnt: int | None = None) -> Workspace:
        """Buffers for a batch of ``rows``; the last layer writes into ``y`` when it is given.

        The network learns from ``learnt`` rows of the batch alone, where that is given: so many have a gradient.
        """
        new = [self.ops.empty((rows, size)) for size in self.sizes[1:]]
        outputs = new if y is None else [*new[:-1], y]
        return Workspace(outputs, [self.ops.empty((learnt or rows, size)) for size in self.sizes[1:]])

    def forward(self, x: Array, work: Workspace) -> Array:
        """``x[B, sizes[0]]`` to the last layer's output, keeping every layer's in ``work.y``."""
        for layer, y in zip(self.layers, work.y, strict=True):
            self.ops.dense_forward(x, layer.W, layer.b, y, layer.activation)
            x = y
        return x

    def backward(
        self, x: Array, work: Workspace, *, dx: Array | None = None, activation: str = "linear", weights: bool = True
    ) -> None:
        """Gradients from ``work.dz[-1]``, the loss's gradient before the last activation, down to the first layer.

        With ``weights``, fills ``dW`` and ``db`` of every layer. With ``dx``, goes on to the input: ``activation`` is
        that of the layer that produced ``x``, so that ``dx`` is that layer's ``dz``.
        """
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            y_before = work.y[i - 1] if i else x
            if weights:
                self.ops.dense_wgrad(y_before, work.dz[i], layer.dW, layer.db)
            if i:
                before = self.layers[i - 1].activation
                self.ops.dense_dgrad(work.dz[i], layer.W, work.dz[i - 1], y_before, before)
            elif dx is not None:
                self.ops.dense_dgrad(work.dz[0], layer.W, dx, x, activation)
