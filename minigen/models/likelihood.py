"""What a decoder's output says of the data: ``p(x | z)``, and the loss that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen.backend import LIKELIHOODS as BY_COLUMN
from minigen.backend import Array, Backend
from minigen.models.layers import Layer, Stored
from minigen.models.network import Network

LIKELIHOODS = (*BY_COLUMN, "categorical", "multinomial", "mixed")
LEARNED = ("learned", "learned_scalar")
"""Variances of a Gaussian that are parameters: one for each column, or one for all."""
WITH_VARIANCE = ("gaussian", "mixed")


class LogVariance(Layer):
    """The log variances of a Gaussian likelihood, parameters that no input leads to: the only layer of their network.

    There are ``count`` of them for ``columns`` columns of data: as many, or one.
    """

    def __init__(self, columns: int, count: int) -> None:
        super().__init__(columns, columns, "linear")
        self.count = count

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"logvar": (self.count,)}

    def initial(self, seed: int, init: str, tensor: int, dtype: Any) -> dict[str, np.ndarray]:
        """A variance of 1; an estimator sets them to those of the data before the first step."""
        return {"logvar": np.zeros(self.count, dtype)}

    def forward(self, x: Array, stored: Stored) -> None:
        raise NotImplementedError("log variances are no function of the data: the likelihood reads them")

    param_gradients = forward

    def input_gradient(self, x: Array, stored: Stored, dx: Array, activation: str) -> None:
        raise NotImplementedError("log variances are no function of the data: the likelihood reads them")


class Likelihood:
    """``p(x | z)`` of one of :data:`LIKELIHOODS`, whose parameters are the decoder's output.

    ``variance`` is a Gaussian's: a number, or a network of one :class:`LogVariance`. ``blocks`` are the widths of a
    categorical or mixed likelihood's blocks of columns; of a multinomial one, all columns are a block.
    """

    def __init__(
        self, ops: Backend, name: str, variance: float | Network = 1.0, blocks: Sequence[int] | None = None
    ) -> None:
        self.ops, self.name = ops, name
        self.noise = variance if isinstance(variance, Network) else None
        self.variance = 1.0 if isinstance(variance, Network) else variance
        self.ends = None if blocks is None else ops.upload(np.cumsum(blocks).astype(np.int32))
        self.fixed_logvar: Array | None = None
        if name == "mixed" and self.noise is None:
            self.fixed_logvar = ops.upload(np.log([self.variance]).astype(ops.dtype))

    @property
    def _logvar(self) -> Array:
        """The log variances of a mixed likelihood."""
        if self.noise is not None:
            return self.noise.layers[0].params["logvar"]
        return self.fixed_logvar

    def loss(self, output: Array, x: Array, doutput: Array, rows: Array, loss: Array) -> None:
        """``rows[B] = -log p(x | z)`` in nats, ``loss[0]`` their mean, ``doutput[B,D]`` its gradient."""
        if self.name in ("categorical", "multinomial"):
            self.ops.categorical_loss(output, x, self.ends, doutput, rows, loss)
        elif self.name == "mixed":
            self.ops.mixed_loss(output, x, self.ends, self._logvar, doutput, rows, loss)
        elif self.noise is not None:
            self.ops.gaussian_loss(output, x, self.noise.layers[0].params["logvar"], doutput, rows, loss)
        else:
            self.ops.vae_loss(output, x, doutput, rows, loss, self.name, self.variance)

    def noise_gradient(self, output: Array, x: Array, doutput: Array) -> None:
        """Of the learned log variances, where there are: from ``doutput``, whose rows may have been weighted."""
        if self.noise is not None:
            layer = self.noise.layers[0]
            logvar, gradient = layer.params["logvar"], layer.grads["logvar"]
            if self.name == "mixed":
                self.ops.mixed_logvar_gradient(doutput, output, x, self.ends, logvar, gradient)
            else:
                self.ops.gaussian_logvar_gradient(doutput, output, x, logvar, gradient)
