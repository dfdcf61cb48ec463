"""A network: a list of layers whose parameters lie in one flat buffer. A GAN has two of them, and a VAE too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.layers import INFERENCE, Context, Layer, Stored

ALIGN = 16  # each parameter begins on a 64-byte line of the flat buffer


class Workspace(tuple[Stored, ...]):
    """What each layer of a network keeps of a batch, in the order of the layers."""

    def rows(self, start: int, stop: int) -> Workspace:
        """The same memory, rows ``start`` to ``stop`` of every buffer."""
        return Workspace(stored.rows(start, stop) for stored in self)


def parameter_shapes(name: str, layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """The parameters of a network of this name by their keys in a model file, in the order of the flat buffer."""
    return {f"{name}.{i}.{part}": shape for i, layer in enumerate(layers) for part, shape in layer.shapes.items()}


def running_shapes(name: str, layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """The same of what layers keep from batch to batch beside parameters."""
    return {
        f"{name}.{i}.{part}": shape for i, layer in enumerate(layers) for part, shape in layer.running_shapes.items()
    }


def running_size(layers: Sequence[Layer]) -> int:
    """Elements of the flat buffer of what they keep beside parameters."""
    return _offsets(running_shapes("", layers).values())[-1]


def flat_size(layers: Sequence[Layer]) -> int:
    """Elements of the flat buffer of a network of these ``layers``."""
    return _offsets(parameter_shapes("", layers).values())[-1]


def _offsets(shapes: Iterable[tuple[int, ...]]) -> list[int]:
    """Where each parameter begins in the flat buffer, and where the last one ends."""
    return list(accumulate((-(-math.prod(shape) // ALIGN) * ALIGN for shape in shapes), initial=0))


def _parts(flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Views into ``flat``, in which these shapes lie one after the other."""
    return {
        key: flat[start : start + math.prod(shape)].reshape(shape)
        for (key, shape), start in zip(shapes.items(), _offsets(shapes.values()), strict=False)
    }


class Network:
    """``layers`` one after the other, on the device of ``ops``.

    All parameters lie in one flat buffer, ``params``, and all gradients in another, ``grads``, so that an optimizer is
    one pass over memory. Between two parameters there may be padding: see :meth:`minigen.backend.Backend.capture`. What
    layers keep beside them from one batch to the next, such as running statistics, lies in a third, ``running``.
    """

    def __init__(self, ops: Backend, name: str, layers: Sequence[Layer]) -> None:
        self._made_of = ops, name, tuple(layers)
        self.ops = ops
        self.name = name
        self._shapes, self._running_shapes = parameter_shapes(name, layers), running_shapes(name, layers)
        size = flat_size(layers)
        # Zeros, so that the padding between two parameters stays zero under every optimizer.
        self.params = ops.upload(np.zeros(size, ops.dtype))
        self.grads = ops.upload(np.zeros(size, ops.dtype))
        self.running = ops.upload(np.zeros(_offsets(self._running_shapes.values())[-1], ops.dtype))
        self.layers: list[Layer] = []
        params, grads = self._split(self.params), self._split(self.grads)
        running = _parts(self.running, self._running_shapes)
        for i, layer in enumerate(layers):
            parts = {part: f"{name}.{i}.{part}" for part in layer.shapes}
            mine, gradients = ({part: flat[key] for part, key in parts.items()} for flat in (params, grads))
            kept = {part: running[f"{name}.{i}.{part}"] for part in layer.running_shapes}
            self.layers.append(layer.bound(ops, f"{name}.{i}", mine, gradients, kept))

    def twin(self) -> Network:
        """Another network of the same layers, whose parameters are zeros."""
        return Network(*self._made_of)

    # A copy of the layers alone would no longer be views into the flat buffers, which the optimizer writes.

    def __getstate__(self) -> dict[str, Any]:
        return {"made_of": self._made_of, "parameters": self.state()}

    def __setstate__(self, copied: dict[str, Any]) -> None:
        self.__init__(*copied["made_of"])  # type: ignore[misc]
        self.load_state(copied["parameters"])

    def _split(self, flat: Array) -> dict[str, Array]:
        """Views into ``flat``, which is laid out as ``params`` is, by the parameters' keys."""
        return _parts(flat, self._shapes)

    def _buffers(self) -> dict[str, Array]:
        """Views of all that a model file holds of the network."""
        return self._split(self.params) | _parts(self.running, self._running_shapes)

    def named(self, flat: Array) -> list[tuple[str, Array]]:
        """The layer's name and the part of ``flat`` for each parameter; ``flat`` is laid out as ``params`` is."""
        return [(key.rpartition(".")[0], part) for key, part in self._split(flat).items()]

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs

    @property
    def sizes(self) -> tuple[int, ...]:
        """The width of the input and of each layer's output."""
        return (self.inputs, *(layer.outputs for layer in self.layers))

    @property
    def output_activation(self) -> str:
        return self.layers[-1].activation

    @property
    def couples_rows(self) -> bool:
        """Whether in training a row's output depends on the other rows of its batch."""
        return any(layer.couples_rows for layer in self.layers)

    @property
    def parameter_count(self) -> int:
        return sum(layer.parameter_count for layer in self.layers)

    def initialize(self, seed: int, init: str, first: int) -> None:
        """Draw every layer's first parameters. Layer ``i`` is number ``first + i`` of the model's layers, so that no
        two share their draws."""
        state = {}
        for i, layer in enumerate(self.layers):
            values = layer.initial(seed, init, first + i, self.ops.dtype)
            values |= layer.initial_running(seed, first + i, self.ops.dtype)
            state.update({f"{layer.name}.{part}": value for part, value in values.items()})
        self.load_state(state)

    def state(self) -> dict[str, np.ndarray]:
        """Host copies of parameters and running values, by their keys in a model file: ``generator.0.W`` and so on."""
        return {key: self.ops.download(buffer) for key, buffer in self._buffers().items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Set all from arrays as :meth:`state` gives them. Raises ValueError for one of another shape."""
        for key, buffer in self._buffers().items():
            value = np.ascontiguousarray(state[key], self.ops.dtype)
            if value.shape != tuple(buffer.shape):
                raise ValueError(f"{key} must have shape {tuple(buffer.shape)}, not {value.shape}")
            self.ops.upload(value, out=buffer)

    def workspace(
        self, rows: int, y: Array | None = None, grad_rows: int | None = None, context: Context = INFERENCE
    ) -> Workspace:
        """Buffers for a batch of ``rows``; the last layer writes into ``y`` where that is given.

        With ``grad_rows`` only the last ``grad_rows`` rows of the batch have gradients: the network learns from these.
        0 is for a batch that is not trained on.
        """
        *before, last = self.layers
        stored = [layer.store(rows, None, grad_rows, context) for layer in before]
        return Workspace([*stored, last.store(rows, y, grad_rows, context)])

    def forward(self, x: Array, work: Workspace) -> Array:
        """``x[B, inputs]`` to the last layer's output, keeping every layer's in ``work``."""
        for layer, stored in zip(self.layers, work, strict=True):
            layer.forward(x, stored)
            x = stored.y
        return x

    def backward(
        self, x: Array, work: Workspace, *, dx: Array | None = None, activation: str = "linear", weights: bool = True
    ) -> None:
        """Gradients from ``work[-1].dz``, the loss's gradient before the last activation, down to the first layer.

        With ``weights``, fills the gradients of every layer's parameters. With ``dx``, goes on to the input:
        ``activation`` is that of the layer that produced ``x``, so that ``dx`` is that layer's ``dz``.
        """
        for i in reversed(range(len(self.layers))):
            layer, stored = self.layers[i], work[i]
            y_before = work[i - 1].y if i else x
            if weights:
                layer.param_gradients(y_before, stored)
            if i:
                layer.input_gradient(y_before, stored, work[i - 1].dz, self.layers[i - 1].activation)
            elif dx is not None:
                layer.input_gradient(x, stored, dx, activation)
