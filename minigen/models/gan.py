"""The generative adversarial network of Goodfellow et al. 2014, one training step call by call.

    min_G max_D  E_x log D(x) + E_z log(1 - D(G(z)))                               (equation 1)

``D(x) = sigmoid(s(x))`` is never formed: the losses work on the logits ``s``. One step, on ``B`` rows:

1. Draw noise and generate ``2B`` fakes, ``B`` for each player. The generator does not change while the discriminator
   learns, so both batches are one product; each player sees noise that the other has not.
2. Discriminator. Put its fakes below ``B`` real rows in one batch ``[2B, D]``, and descend
   ``-mean log D(real) - mean log(1 - D(fake))``. The generator is not part of this gradient.
3. Generator. Judge its fakes by the new discriminator and send that one's gradient on through its input into the
   generator: ``dz`` of the generator's last layer is D's input gradient times the derivative of G's output activation.
   The discriminator's own weights are left alone, so their gradients are not computed.

With ``r1`` or ``gradient_penalty`` a penalty on the gradient of ``s`` by ``x`` joins the discriminator's loss
(:mod:`minigen.models.penalty`), as the third of the step's losses.

A step may train the discriminator ``n_critic`` times (Arjovsky, Chintala and Bottou 2017, algorithm 1), each time on
real rows and fakes of its own; all but the last time generate no fakes for the generator. Everything random in a step
is drawn by the count of the discriminator's updates.

With ``pack = m`` the discriminator judges ``m`` rows together, all real or all generated, and so sees a lack of variety
(PacGAN, Lin et al. 2018, section 2): it takes ``m`` neighbouring rows side by side as one of ``m D`` numbers, which is
how they lie in memory, and its batch has ``1 / m`` of the rows. Nothing else changes.

With batch normalization each ``B`` rows are a batch with statistics of its own: the two of the generator, and the real
and the generated rows that the discriminator sees (apart, as in DCGAN, Radford et al. 2016).

A conditional GAN (Mirza and Osindero 2014, equation 2) has D judge pairs of a row and its condition, and G draw rows
for a condition. The real rows of a batch bring theirs, and both halves of the fakes are drawn for the same ones: of a
whole epoch these are as frequent as in the data, and D compares real and fake at equal conditions. With ``pack`` the
conditions of its rows stand side by side as the rows do, labels as one-hot vectors; a projection
(:class:`~minigen.models.conditional.Projection`) is on the sum of what they have in ``E``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.conditional import ConditionBias
from minigen.models.instance_noise import InstanceNoise
from minigen.models.layers import Context
from minigen.models.network import Network, Workspace
from minigen.models.optimizer import Average, Optimizer, OptimizerSettings
from minigen.models.penalty import GradientPenalty, InterpolatedPenalty
from minigen.models.step import Step
from minigen.reference import random


def loss_names(penalty: Any) -> tuple[str, ...]:
    """The losses of a step, with a ``penalty`` or without."""
    return ("discriminator", "generator", *["penalty"] * bool(penalty))


class GanStep(Step):
    """A step of ``generator`` and ``discriminator`` on ``data[N, D]`` (uint8 or float), ``data * scale + shift``.

    ``average``: that of the generator's parameters, where one is kept.
    """

    def __init__(
        self,
        ops: Backend,
        generator: Network,
        discriminator: Network,
        data: np.ndarray,
        *,
        batch_size: int,
        settings: OptimizerSettings,
        loss: str = "non_saturating",
        r1: float = 0.0,
        gradient_penalty: float = 0.0,
        n_critic: int = 1,
        weight_clip: float = 0.0,
        label_smoothing: float = 0.0,
        instance_noise: float = 0.0,
        noise_steps: int = 0,
        pack: int = 1,
        average: Average | None = None,
        seed: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
        conditions: np.ndarray | None = None,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.terms = self.loss_names = loss_names(r1 or gradient_penalty)
        optimizers = [Optimizer(ops, net, settings) for net in (generator, discriminator)]
        self.generator_optimizer, self.discriminator_optimizer = optimizers
        super().__init__(
            ops,
            data,
            (generator, discriminator),
            optimizers,
            batch_size,
            seed,
            drop_last=True,
            batches=n_critic,
            scale=scale,
            shift=shift,
            conditions=conditions,
        )
        self.loss, self.average, self.pack = loss, average, pack
        self.label_smoothing, self.weight_clip, self.n_critic = label_smoothing, weight_clip, n_critic
        # Of the discriminator. One a step, and they are counted together.
        self.updates = self.counter if n_critic == 1 else ops.upload(np.zeros(1, np.uint64))
        self.discriminator_optimizer.steps_per_epoch *= n_critic  # a schedule, too, goes by that count
        self.unread = ops.empty((1, len(self.terms)))  # losses of an update that is not the step's last
        B = batch_size
        self.noise = ops.empty((2 * B, generator.inputs))
        self.generator_noise = self.noise[B:]  # of the fakes that the generator learns from
        rows = ops.empty((3 * B, data.shape[1]))  # real ones, fakes for the discriminator, fakes for the generator
        self.real_rows, self.real_and_fake, self.generator_fakes = rows[:B], rows[: 2 * B], rows[2 * B :]
        self.condition = self.condition_buffer(2 * B)  # of two halves of a batch, both the same
        self.one_hot, self.judged_condition = self._packed_conditions(pack)
        context = Context(training=True, condition=self.condition, counter=self.updates, seed=seed, groups=2)
        self.generator_work = generator.workspace(2 * B, y=rows[B:], grad_rows=B, context=context)
        self.generator_work_own = self.generator_work.rows(B, 2 * B)  # the part for ``generator_fakes``
        m = B // pack  # packs of real rows, and as many of generated ones
        judged = replace(context, condition=self.judged_condition)
        self.discriminator_work = discriminator.workspace(2 * m, context=judged)
        self.discriminator_work_fakes = self.discriminator_work.rows(m, 2 * m)  # used again for ``generator_fakes``
        self.penalty = self._penalty(r1, gradient_penalty)
        self.instance_noise: InstanceNoise | None = None
        self.seen_fakes = self.generator_fakes  # what the discriminator sees of them
        if instance_noise:
            self.instance_noise = InstanceNoise(ops, 3 * B, data.shape[1], instance_noise, noise_steps, seed)
            self.seen_fakes = ops.empty((B, data.shape[1]))

    def _penalty(self, r1: float, gradient_penalty: float) -> GradientPenalty | None:
        real, fake = self.packed(self.real_rows), self.packed(self.real_and_fake[self.batch_size :])
        if r1:
            on_real = self.discriminator_work.rows(0, len(real))
            return GradientPenalty(self.ops, self.discriminator, real, on_real, "r1", r1)
        if gradient_penalty:
            condition = None if self.judged_condition is None else self.judged_condition[: len(real)]
            context = Context(training=True, condition=condition, counter=self.updates, seed=self.seed)
            return InterpolatedPenalty(self.ops, self.discriminator, real, fake, gradient_penalty, context)
        return None

    def _packed_conditions(self, pack: int) -> tuple[tuple[Array, Array] | None, Array | None]:
        """Of labels judged side by side: a table of one-hot vectors, and those of the batch. And what of the
        ``condition`` the discriminator sees, which is that or a view of it."""
        if self.condition is None or pack == 1:
            return None, self.condition
        vectors, one_hot = self.condition, None
        if vectors.ndim == 1:
            classes = next(layer.condition.size for layer in self.generator.layers if isinstance(layer, ConditionBias))
            vectors = self.ops.empty((len(self.condition), classes))
            one_hot = self.ops.upload(np.eye(classes, dtype=self.ops.dtype)), vectors
        return one_hot, vectors.reshape(len(vectors) // pack, -1)

    def compute(self, rows: int) -> None:
        for _ in range(self.n_critic - 1):
            self.generate(batches=1)
            self.train_discriminator()
        self.generate()
        self.train_discriminator()
        self.generator_gradient()
        self.generator_optimizer.update(self.counter)
        if self.average is not None:
            self.average.update(self.generator, self.counter)
        self.ops.advance(self.counter, self.losses, self.ring)

    def train_discriminator(self) -> None:
        """One update of the discriminator."""
        self.discriminator_gradient()
        self.discriminator_optimizer.update(self.updates)
        if self.weight_clip:
            for _, parameter in self.discriminator.named(self.discriminator.params):
                self.ops.clip(parameter, self.weight_clip)
        if self.n_critic > 1:
            self.ops.advance(self.updates, self.losses, self.unread)

    def set_count(self, done: int) -> None:
        super().set_count(done)
        if self.n_critic > 1:
            self.ops.upload(np.array([self.n_critic * done], np.uint64), out=self.updates)

    def state_buffers(self) -> dict[str, Array]:
        buffers = super().state_buffers()
        if self.average is not None:
            buffers["generator.average"] = self.average.net.params
            if len(self.average.net.running):
                buffers["generator.average_running"] = self.average.net.running
        return buffers

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        return [(self.generator, self.generator_work), (self.discriminator, self.discriminator_work)]

    def generate(self, batches: int = 2) -> None:
        """Noise and fakes: a batch for the discriminator, and the second for the generator."""
        rows = batches * self.batch_size
        if self.condition is not None:
            for half in (self.condition[: self.batch_size], self.condition[self.batch_size :]):
                self.gather_conditions(half, self.updates)
        if self.one_hot is not None:
            table, vectors = self.one_hot
            self.ops.batch_gather(table, self.condition, vectors)
        noise = self.noise[:rows]
        self.ops.random_normal(noise, self.seed, random.NOISE, self.updates)
        self.generator.forward(noise, self.generator_work.rows(0, rows))  # the fakes lie behind the real rows
        if self.instance_noise:
            self.instance_noise.draw(self.batch_size + rows, self.updates)

    def packed(self, rows: Array) -> Array:
        """A view of ``rows[n, D]`` as the discriminator takes them, ``[n / pack, pack D]``."""
        return rows.reshape(len(rows) // self.pack, -1)

    def discriminator_gradient(self) -> None:
        """The discriminator's loss on real rows and its fakes, its penalty, and the gradients of its parameters."""
        work = self.discriminator_work
        self.gather(self.real_rows, self.updates)
        if self.instance_noise:
            self.instance_noise.add(self.real_and_fake, 0, self.counter, self.real_and_fake)
        judged = self.packed(self.real_and_fake)
        logits = self.discriminator.forward(judged, work)
        loss = self.losses[:1], self.loss, self.label_smoothing
        self.ops.gan_loss_discriminator(logits, len(logits) // 2, work[-1].dz, *loss)
        self.discriminator.backward(judged, work)
        if self.penalty:
            self.penalty.add_gradient(self.losses[2:])

    def generator_gradient(self) -> None:
        """The generator's loss on its own fakes, and the gradients of its parameters, through the discriminator."""
        fakes, work, own = self.packed(self.seen_fakes), self.discriminator_work_fakes, self.generator_work_own
        if self.instance_noise:
            self.instance_noise.add(self.generator_fakes, 2 * self.batch_size, self.counter, self.seen_fakes)
        logits = self.discriminator.forward(fakes, work)
        self.ops.gan_loss_generator(logits, work[-1].dz, self.losses[1:2], self.loss)
        activation, dz = self.generator.output_activation, own[-1].dz
        if self.instance_noise:  # the derivative is taken from the generator's output, not from what is seen of it
            self.discriminator.backward(fakes, work, dx=self.packed(dz), weights=False)
            self.ops.activation_backward(dz, self.generator_fakes, dz, activation)
        else:
            self.discriminator.backward(fakes, work, dx=self.packed(dz), activation=activation, weights=False)
        self.generator.backward(self.generator_noise, own)
