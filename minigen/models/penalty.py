"""Penalties on the gradient of the discriminator's logit by its input, and the double backward pass that they take.

:mod:`minigen.reference.penalty` derives it, in the same names. With ``s`` the logits of the rows ``x``, a penalty is
added to the discriminator's gradient in four parts:

1. the gradient pass: ``delta_l = ds/dz_l`` of every layer, and ``g = ds/dx``;
2. the penalty of ``g``, and ``v``, its gradient by ``g``;
3. the tangent pass: how ``z_l`` and ``y_l`` move when ``x`` moves along ``v``. Each layer's parameters get what they do
   to the tangent;
4. the curvature pass, from the last layer that is curved down to the first: what the values do to the tangent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigen.backend import Array, Backend
from minigen.errors import ArgumentError
from minigen.models.layers import Context, Layer
from minigen.models.network import Network, Workspace
from minigen.reference import random
from minigen.reference.activations import CURVED


def check_layers(name: str, layers: Sequence[Layer]) -> None:
    """Raise ArgumentError, with the reason, where a discriminator of ``layers`` cannot have the penalty ``name``."""
    for layer in layers:
        if layer.no_tangent:
            raise ArgumentError(name, f"must be 0 with such a discriminator: {layer.no_tangent}")


@dataclass(frozen=True)
class Tangent:
    """How a layer's ``z`` and ``y`` move, ``[B, outputs]`` both; one buffer where no one asks for ``z``'s later."""

    z: Array
    y: Array


class GradientPenalty:
    """The penalty ``kind`` with ``weight`` on rows ``x[B, inputs]``, of which ``work`` holds the forward pass."""

    def __init__(self, ops: Backend, net: Network, x: Array, work: Workspace, kind: str, weight: float) -> None:
        self.ops, self.net, self.x, self.kind, self.weight = ops, net, x, kind, weight
        self.g, self.v = ops.empty(x.shape), ops.empty(x.shape)
        self.rows = ops.empty((len(x),))  # the penalty of each
        self.logit = Workspace(replace(stored, dz=ops.empty(stored.y.shape)) for stored in work)  # dz is delta
        ops.upload(np.ones(work[-1].y.shape, ops.dtype), out=self.logit[-1].dz)
        self.tangents = [self._tangent(layer, len(x)) for layer in net.layers[:-1]]
        pairs = zip(net.layers[:-1], net.layers[1:], strict=True)
        curved = [i for i, (layer, above) in enumerate(pairs) if layer.activation in CURVED or above.is_curved]
        last = max(curved, default=-1)
        self.values = Workspace(replace(s, dz=ops.empty(s.y.shape)) for s in work[: last + 1])  # dz is d

    def _tangent(self, layer: Layer, rows: int) -> Tangent:
        z = self.ops.empty((rows, layer.outputs))
        return Tangent(z, self.ops.empty(z.shape) if layer.activation in CURVED else z)

    def add_gradient(self, loss: Array) -> None:
        """The penalty into ``loss[1]``, and its gradient on top of that of the network's parameters."""
        self.net.backward(self.x, self.logit, dx=self.g, weights=False)
        self.ops.gradient_penalty(self.g, self.v, self.rows, loss, self.kind, self.weight)
        self.tangent_pass()
        self.curvature_pass()

    def tangent_pass(self) -> None:
        """The tangents of all layers, and the gradients of the parameters through them."""
        for i, layer in enumerate(self.net.layers):
            x, x_tangent = self._input(i)
            layer.add_tangent_gradients(x, x_tangent, self.logit[i])
            if i < len(self.tangents):  # nobody needs the last layer's
                moved = self.tangents[i]
                layer.tangent(x, x_tangent, self.logit[i], moved.z)
                if layer.activation != "linear":
                    self.ops.activation_backward(moved.z, self.logit[i].y, moved.y, layer.activation)

    def curvature_pass(self) -> None:
        """``d_l``, the gradient of the logits' tangent by ``z_l``, and the gradients of the parameters from it."""
        layers = self.net.layers
        for i in reversed(range(len(self.values))):
            layer, above, d = layers[i], layers[i + 1], self.values[i]
            begun = i + 1 < len(self.values)  # d.dz holds a sum already
            if begun:
                above.input_gradient(d.y, self.values[i + 1], d.dz, layer.activation)
            if above.is_curved:
                above.curvature(d.y, self.tangents[i].y, self.logit[i + 1], d.dz, layer.activation, begun)
                begun = True
            if layer.activation in CURVED:
                z_tangent = self.tangents[i].z
                self.ops.activation_curvature(self.logit[i].dz, z_tangent, d.y, d.dz, layer.activation, begun)
            layer.add_param_gradients(self._input(i)[0], d)

    def _input(self, i: int) -> tuple[Array, Array]:
        """What layer ``i`` takes, and how that moves."""
        return (self.logit[i - 1].y, self.tangents[i - 1].y) if i else (self.x, self.v)


class InterpolatedPenalty(GradientPenalty):
    """The two-sided penalty on rows between ``real[B, inputs]`` and ``fake[B, inputs]``, drawn anew for each step.

    ``context``: of the rows between, whose condition is that of both.
    """

    def __init__(self, ops: Backend, net: Network, real: Array, fake: Array, weight: float, context: Context) -> None:
        self.real, self.fake, self.context = real, fake, context
        self.u = ops.empty((len(real),))
        self.work = net.workspace(len(real), context=context)
        super().__init__(ops, net, ops.empty(real.shape), self.work, "two_sided", weight)

    def add_gradient(self, loss: Array) -> None:
        """As :meth:`GradientPenalty.add_gradient`, of the step's own rows."""
        assert self.context.counter is not None
        self.ops.random_uniform(self.u, self.context.seed, random.INTERPOLATION, self.context.counter)
        self.ops.interpolate(self.real, self.fake, self.u, self.x)
        self.net.forward(self.x, self.work)
        super().add_gradient(loss)
