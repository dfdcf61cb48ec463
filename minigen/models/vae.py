"""The variational autoencoder of Kingma and Welling 2014, one training step call by call.

    loss = -E_q log p(x | z) + beta KL(q(z | x) || N(0, I)),   q(z | x) = N(mu, exp(logvar))     (equation 3)

The encoder's last layer gives the ``heads = [mu | logvar]``, ``z = mu + exp(logvar / 2) eps`` is one sample of q, which
makes the first term the one-sample estimate of their equation 10, and the decoder's last layer gives the parameters of
``p(x | z)``: logits of a Bernoulli, or means of a Gaussian. The gradient runs back through the decoder to ``z``,
through the reparameterisation (where the KL joins it) to the heads, and through the encoder. ``beta`` = 1 is the
evidence lower bound (other values: Higgins et al. 2017).

A conditional VAE (Sohn, Lee and Yan 2015) has the condition of a row beside the input of both networks, ``q(z | x, c)``
and ``p(x | z, c)``; the prior of ``z`` stays N(0, I).
"""

from __future__ import annotations

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.layers import Context
from minigen.models.network import Network, Workspace
from minigen.models.optimizer import Optimizer, OptimizerSettings
from minigen.models.step import Step
from minigen.reference import random

LIKELIHOODS = ("bernoulli", "gaussian")


class VaeStep(Step):
    """A step of ``encoder`` and ``decoder`` on ``data[N, D]`` (uint8 or float), ``data * scale + shift``.

    Where columns of ``data`` were divided by numbers before, ``log_scale`` is the sum of their logarithms: the losses
    reported are then nats per unit of the columns as they were.
    """

    terms = ("reconstruction", "kl")
    loss_names = ("loss", "reconstruction", "kl")

    def __init__(
        self,
        ops: Backend,
        encoder: Network,
        decoder: Network,
        data: np.ndarray,
        *,
        batch_size: int,
        settings: OptimizerSettings,
        likelihood: str = "bernoulli",
        variance: float = 1.0,
        beta: float = 1.0,
        seed: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
        log_scale: float = 0.0,
        conditions: np.ndarray | None = None,
    ) -> None:
        self.encoder, self.decoder = encoder, decoder
        optimizers = [Optimizer(ops, net, settings) for net in (encoder, decoder)]
        self.encoder_optimizer, self.decoder_optimizer = optimizers
        super().__init__(
            ops,
            data,
            (encoder, decoder),
            optimizers,
            batch_size,
            seed,
            drop_last=False,
            scale=scale,
            shift=shift,
            conditions=conditions,
        )
        self.likelihood, self.variance, self.beta, self.log_scale = likelihood, variance, beta, log_scale
        latent = decoder.inputs
        self.x = ops.empty((batch_size, data.shape[1]))
        self.eps, self.z, self.dz = (ops.empty((batch_size, latent)) for _ in range(3))
        self.nats = ops.empty((batch_size,))
        self.condition = self.condition_buffer(batch_size)
        context = Context(training=True, condition=self.condition, counter=self.counter, seed=seed)
        self.encoder_work = encoder.workspace(batch_size, context=context)
        self.decoder_work = decoder.workspace(batch_size, context=context)

    def compute(self, rows: int) -> None:
        self.gradient(rows)
        self.encoder_optimizer.update(self.counter)
        self.decoder_optimizer.update(self.counter)
        self.ops.advance(self.counter, self.losses, self.ring)

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        return [(self.encoder, self.encoder_work.rows(0, rows)), (self.decoder, self.decoder_work.rows(0, rows))]

    def gradient(self, rows: int) -> None:
        """Both loss terms of the next batch, of ``rows``, and the gradients of both networks' parameters."""
        x, eps, z, dz, nats = (buffer[:rows] for buffer in (self.x, self.eps, self.z, self.dz, self.nats))
        encoder_work, decoder_work = self.encoder_work.rows(0, rows), self.decoder_work.rows(0, rows)
        self.gather(x)
        if self.condition is not None:
            self.gather_conditions(self.condition[:rows])
        self.ops.random_normal(eps, self.seed, random.LATENT, self.counter)
        heads = self.encoder.forward(x, encoder_work)
        self.ops.latent_forward(heads, eps, z, nats, self.losses[1:])
        self._reconstruct(z, x, decoder_work, nats)
        self.decoder.backward(z, decoder_work, dx=dz)
        self.ops.latent_backward(dz, heads, eps, encoder_work[-1].dz, self.beta)
        self.encoder.backward(x, encoder_work)

    def _reconstruct(self, z: Array, x: Array, work: Workspace, nats: Array) -> None:
        output = self.decoder.forward(z, work)
        self.ops.vae_loss(output, x, work[-1].dz, nats, self.losses[:1], self.likelihood, self.variance)

    def report(self, terms: np.ndarray) -> np.ndarray:
        reconstruction, kl = terms[:, 0] + np.float32(self.log_scale), terms[:, 1]
        return np.column_stack([reconstruction + self.beta * kl, reconstruction, kl])
