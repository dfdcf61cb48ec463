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

With ``pack = m`` the discriminator judges ``m`` rows together, all real or all generated, and so sees a lack of variety
(PacGAN, Lin et al. 2018, section 2): it takes ``m`` neighbouring rows side by side as one of ``m D`` numbers, which is
how they lie in memory, and its batch has ``1 / m`` of the rows. Nothing else changes.

With batch normalization each ``B`` rows are a batch with statistics of its own: the two of the generator, and the real
and the generated rows that the discriminator sees (apart, as in DCGAN, Radford et al. 2016).

A conditional GAN (Mirza and Osindero 2014, equation 2) has D judge pairs of a row and its condition, and G draw rows
for a condition. The real rows of a batch bring theirs, and both halves of the fakes are drawn for the same ones: of a
whole epoch these are as frequent as in the data, and D compares real and fake at equal conditions.
"""

from __future__ import annotations

import numpy as np

from minigen.backend import Array, Backend
from minigen.models.layers import Context
from minigen.models.network import Network, Workspace
from minigen.models.optimizer import Average, Optimizer, OptimizerSettings
from minigen.models.step import Step
from minigen.reference import random


class GanStep(Step):
    """A step of ``generator`` and ``discriminator`` on ``data[N, D]`` (uint8 or float), ``data * scale + shift``.

    ``average``: that of the generator's parameters, where one is kept.
    """

    terms = loss_names = ("discriminator", "generator")

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
        pack: int = 1,
        average: Average | None = None,
        seed: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
        conditions: np.ndarray | None = None,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
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
            scale=scale,
            shift=shift,
            conditions=conditions,
        )
        self.loss, self.average, self.pack = loss, average, pack
        B = batch_size
        self.noise = ops.empty((2 * B, generator.inputs))
        self.generator_noise = self.noise[B:]  # of the fakes that the generator learns from
        rows = ops.empty((3 * B, data.shape[1]))  # real ones, fakes for the discriminator, fakes for the generator
        self.real_rows, self.real_and_fake, self.generator_fakes = rows[:B], rows[: 2 * B], rows[2 * B :]
        self.condition = self.condition_buffer(2 * B)  # of two halves of a batch, both the same
        context = Context(training=True, condition=self.condition, counter=self.counter, seed=seed, groups=2)
        self.generator_work = generator.workspace(2 * B, y=rows[B:], grad_rows=B, context=context)
        self.generator_work_own = self.generator_work.rows(B, 2 * B)  # the part for ``generator_fakes``
        m = B // pack  # of these, the discriminator sees so many
        self.discriminator_work = discriminator.workspace(2 * m, context=context)
        self.discriminator_work_fakes = self.discriminator_work.rows(m, 2 * m)  # used again for ``generator_fakes``

    def compute(self, rows: int) -> None:
        self.generate()
        self.discriminator_gradient()
        self.discriminator_optimizer.update(self.counter)
        self.generator_gradient()
        self.generator_optimizer.update(self.counter)
        if self.average is not None:
            self.average.update(self.generator, self.counter)
        self.ops.advance(self.counter, self.losses, self.ring)

    def state_buffers(self) -> dict[str, Array]:
        buffers = super().state_buffers()
        if self.average is not None:
            buffers["generator.average"] = self.average.net.params
            if len(self.average.net.running):
                buffers["generator.average_running"] = self.average.net.running
        return buffers

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        return [(self.generator, self.generator_work), (self.discriminator, self.discriminator_work)]

    def generate(self) -> None:
        """Noise and fakes for both players."""
        if self.condition is not None:
            for half in (self.condition[: self.batch_size], self.condition[self.batch_size :]):
                self.gather_conditions(half)
        self.ops.random_normal(self.noise, self.seed, random.NOISE, self.counter)
        self.generator.forward(self.noise, self.generator_work)  # the fakes lie behind the real rows

    def packed(self, rows: Array) -> Array:
        """A view of ``rows[n, D]`` as the discriminator takes them, ``[n / pack, pack D]``."""
        return rows.reshape(len(rows) // self.pack, -1)

    def discriminator_gradient(self) -> None:
        """The discriminator's loss on real rows and its fakes, and the gradients of its parameters."""
        work = self.discriminator_work
        self.gather(self.real_rows)
        judged = self.packed(self.real_and_fake)
        logits = self.discriminator.forward(judged, work)
        self.ops.gan_loss_discriminator(logits, len(logits) // 2, work[-1].dz, self.losses[:1], self.loss)
        self.discriminator.backward(judged, work)

    def generator_gradient(self) -> None:
        """The generator's loss on its own fakes, and the gradients of its parameters, through the discriminator."""
        fakes, work, own = self.packed(self.generator_fakes), self.discriminator_work_fakes, self.generator_work_own
        logits = self.discriminator.forward(fakes, work)
        self.ops.gan_loss_generator(logits, work[-1].dz, self.losses[1:], self.loss)
        activation = self.generator.output_activation
        self.discriminator.backward(fakes, work, dx=self.packed(own[-1].dz), activation=activation, weights=False)
        self.generator.backward(self.generator_noise, own)
