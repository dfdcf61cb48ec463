"""The variational autoencoder of Kingma and Welling 2014, one training step call by call.

    loss = -E_q log p(x | z) + beta KL(q(z | x) || N(0, I)),   q(z | x) = N(mu, exp(logvar))     (equation 3)

The encoder's last layer gives the ``heads = [mu | logvar]``, ``z = mu + exp(logvar / 2) eps`` is one sample of q, which
makes the first term the one-sample estimate of their equation 10, and the decoder's last layer gives the parameters of
``p(x | z)``: logits, or means of a Gaussian, whose variance may be learned too. The gradient runs back through the
decoder to ``z``, through the reparameterisation (where the KL joins it) to the heads, and through the encoder.
``beta`` = 1 is the evidence lower bound (other values: Higgins et al. 2017).

The weight of each latent's KL lies on the device: it may grow during a warm-up, and be 0 where a latent is within its
free bits (:mod:`minigen.reference.latent`). Then the step keeps the penalty, what the KL really counts for, as a
third loss.

A conditional VAE (Sohn, Lee and Yan 2015) has the condition of a row beside the input of both networks, ``q(z | x, c)``
and ``p(x | z, c)``; the prior of ``z`` stays N(0, I).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.layers import Context, Stored
from minigen.models.likelihood import Likelihood
from minigen.models.network import Network, Workspace
from minigen.models.optimizer import Optimizer, OptimizerSettings
from minigen.models.step import Step
from minigen.reference import random

NOISE_RATE = 10.0
"""Learned log variances move at so many times the learning rate of the weights. They start at the logarithms of the
data's variances and have a way of several units to go, where Adam moves a parameter by the rate in a step; there are
few of them, and each has a minimum of its own."""


class VaeStep(Step):
    """A step of ``encoder`` and ``decoder`` on ``data[N, D]`` (uint8 or float), ``data * scale + shift``.

    Where columns of ``data`` were divided by numbers before, ``log_scale`` is the sum of their logarithms: the losses
    reported are then nats per unit of the columns as they were. ``likelihood``, ``variance`` and ``blocks``: see
    :class:`~minigen.models.likelihood.Likelihood`. ``kl_warmup`` is in epochs, ``free_bits`` in nats a latent.
    """

    terms: tuple[str, ...] = ("reconstruction", "kl")
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
        variance: float | Network = 1.0,
        blocks: Sequence[int] | None = None,
        beta: float = 1.0,
        kl_warmup: float = 0.0,
        free_bits: float = 0.0,
        seed: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
        log_scale: float = 0.0,
        conditions: np.ndarray | None = None,
    ) -> None:
        self.encoder, self.decoder = encoder, decoder
        optimizers = [Optimizer(ops, net, settings) for net in (encoder, decoder)]
        self.encoder_optimizer, self.decoder_optimizer = optimizers
        networks = [encoder, decoder]
        self.noise_optimizer: Optimizer | None = None
        if isinstance(variance, Network):
            of_noise = replace(settings, learning_rate=NOISE_RATE * settings.learning_rate, weight_decay=0.0)
            self.noise_optimizer = Optimizer(ops, variance, of_noise)
            networks.append(variance)
            optimizers.append(self.noise_optimizer)
        self.weighs_kl = kl_warmup > 0 or free_bits > 0
        if self.weighs_kl:
            self.terms = (*self.terms, "penalty")
        super().__init__(
            ops,
            data,
            networks,
            optimizers,
            batch_size,
            seed,
            drop_last=False,
            scale=scale,
            shift=shift,
            conditions=conditions,
        )
        self.likelihood = Likelihood(ops, likelihood, variance, blocks)
        self.beta, self.free_bits, self.log_scale = beta, free_bits, log_scale
        self.warmup_steps = max(1, round(kl_warmup * self.steps_per_epoch)) if kl_warmup > 0 else 0
        latent = decoder.inputs
        self.beta_now = ops.upload(np.array([beta], ops.dtype))
        self.kl_weights = ops.upload(np.full(latent, beta, ops.dtype))
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
        if self.noise_optimizer is not None:
            self.noise_optimizer.update(self.counter)
        self.ops.advance(self.counter, self.losses, self.ring)

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        work = [(self.encoder, self.encoder_work.rows(0, rows)), (self.decoder, self.decoder_work.rows(0, rows))]
        if (noise := self.likelihood.noise) is not None:
            layer = noise.layers[0]
            work.append((noise, Workspace([Stored(layer.params["logvar"], layer.grads["logvar"])])))
        return work

    def set_learning_rate(self, rate: float | Sequence[float]) -> None:
        super().set_learning_rate(rate)
        if self.noise_optimizer is not None and not isinstance(rate, Sequence):
            self.noise_optimizer.set_learning_rate(NOISE_RATE * rate)

    def gradient(self, rows: int) -> None:
        """Both loss terms of the next batch, of ``rows``, and the gradients of both networks' parameters."""
        x, eps, z, dz, nats = (buffer[:rows] for buffer in (self.x, self.eps, self.z, self.dz, self.nats))
        encoder_work, decoder_work = self.encoder_work.rows(0, rows), self.decoder_work.rows(0, rows)
        self.gather(x)
        if self.condition is not None:
            self.gather_conditions(self.condition[:rows])
        self.ops.random_normal(eps, self.seed, random.LATENT, self.counter)
        heads = self.encoder.forward(x, encoder_work)
        self.ops.latent_forward(heads, eps, z, nats, self.losses[1:2])
        self._reconstruct(z, x, decoder_work, nats)
        self.decoder.backward(z, decoder_work, dx=dz)
        if self.weighs_kl:
            self._weigh_kl(heads)
        self.ops.latent_backward(dz, heads, eps, self.kl_weights, encoder_work[-1].dz)
        self.encoder.backward(x, encoder_work)

    def _weigh_kl(self, heads: Array) -> None:
        """What each latent's KL counts for in this step."""
        if self.warmup_steps:
            self.ops.ramp(self.counter, self.beta_now, self.beta, self.warmup_steps)
        self.ops.kl_weights(heads, self.beta_now, self.kl_weights, self.losses[2:], self.free_bits)

    def _reconstruct(self, z: Array, x: Array, work: Workspace, nats: Array) -> None:
        output, doutput = self.decoder.forward(z, work), work[-1].dz
        self.likelihood.loss(output, x, doutput, nats, self.losses[:1])
        self.likelihood.noise_gradient(output, x, doutput)

    def report(self, terms: np.ndarray) -> np.ndarray:
        reconstruction, kl = terms[:, 0] + np.float32(self.log_scale), terms[:, 1]
        penalty = terms[:, 2] if self.weighs_kl else self.beta * kl
        return np.column_stack([reconstruction + penalty, reconstruction, kl])
