"""The importance weighted autoencoder of Burda, Grosse and Salakhutdinov 2016, one training step call by call.

    loss = -log 1/k sum_i p(x, z_i) / q(z_i | x),   k draws z_i of q(z | x) for each row      (equation 8)

A VAE's step but for the middle: the encoder sees each row once, the decoder every draw of it. What the decoder's rows
count for are the normalised importance weights, which scale the gradient that goes into it:
:mod:`minigen.reference.importance` derives both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Backend
from minigen.models.layers import Context
from minigen.models.network import Network, Workspace
from minigen.models.vae import VaeStep
from minigen.reference import random


class IwaeStep(VaeStep):
    """A :class:`~minigen.models.vae.VaeStep` with ``draws`` latents for each row, more than one.

    Of the losses reported, ``loss`` is that bound, and ``reconstruction`` and ``kl`` are the means over the draws of
    ``-log p(x | z)`` and of ``log q(z | x) - log p(z)``.
    """

    terms = ("reconstruction", "kl", "bound")

    def __init__(
        self, ops: Backend, encoder: Network, decoder: Network, data: np.ndarray, *, draws: int, **settings: Any
    ) -> None:
        super().__init__(ops, encoder, decoder, data, **settings)
        self.draws = draws
        rows, latent = draws * self.batch_size, decoder.inputs
        self.eps, self.z, self.dz = (ops.empty((rows, latent)) for _ in range(3))
        self.nats, self.ratios, self.weights = (ops.empty((rows,)) for _ in range(3))
        self.x_of_draws = ops.empty((rows, data.shape[1]))
        self.condition_of_draws = self.condition_buffer(rows)
        context = Context(training=True, condition=self.condition_of_draws, counter=self.counter, seed=self.seed)
        self.decoder_work = decoder.workspace(rows, context=context)

    def gradient(self, rows: int) -> None:
        """The loss of the next batch, of ``rows``, and the gradients of all parameters."""
        ops, draws = self.ops, self.draws * rows
        x, encoder_work, decoder_work = self.x[:rows], self.encoder_work.rows(0, rows), self.decoder_work.rows(0, draws)
        eps, z, dz, x_of_draws = (buffer[:draws] for buffer in (self.eps, self.z, self.dz, self.x_of_draws))
        nats, ratios, weights = (buffer[:draws] for buffer in (self.nats, self.ratios, self.weights))
        self.gather(x)
        if self.condition is not None and self.condition_of_draws is not None:
            self.gather_conditions(self.condition[:rows])
            for i in range(self.draws):
                self.gather_conditions(self.condition_of_draws[i * rows : (i + 1) * rows])
        ops.random_normal(eps, self.seed, random.LATENT, self.counter)
        heads = self.encoder.forward(x, encoder_work)
        ops.importance_sample(heads, eps, z, ratios, self.losses[1:2])
        ops.repeat_rows(x, x_of_draws)
        output, doutput = self.decoder.forward(z, decoder_work), decoder_work[-1].dz
        self.likelihood.loss(output, x_of_draws, doutput, nats, self.losses[:1])
        ops.importance_weights(nats, ratios, weights, self.losses[2:], self.draws)
        ops.scale_rows(doutput, weights)
        self.likelihood.noise_gradient(output, x_of_draws, doutput)
        self.decoder.backward(z, decoder_work, dx=dz)
        ops.importance_backward(dz, z, heads, eps, weights, encoder_work[-1].dz)
        self.encoder.backward(x, encoder_work)

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        encoder, _, *noise = super().workspaces(rows)
        return [encoder, (self.decoder, self.decoder_work.rows(0, self.draws * rows)), *noise]

    def report(self, terms: np.ndarray) -> np.ndarray:
        log_scale = np.float32(self.log_scale)
        return np.column_stack([terms[:, 2] + log_scale, terms[:, 0] + log_scale, terms[:, 1]])
