"""The generative adversarial network of Goodfellow et al. 2014, one training step spelled out.

    min_G max_D  E_x log D(x) + E_z log(1 - D(G(z)))                               (equation 1)

``D(x) = sigmoid(s(x))`` is never formed: the losses work on the logits ``s``. One step, on ``B`` rows:

1. Draw noise and generate ``2B`` fakes, ``B`` for each player. The generator does not change while the discriminator
   learns, so both batches are one product; each player sees noise that the other has not.
2. Discriminator. Put its fakes below ``B`` real rows in one batch ``pair[2B, D]``, and descend
   ``-mean log D(real) - mean log(1 - D(fake))``. The generator is not part of this gradient.
3. Generator. Judge its fakes by the new discriminator and send that one's gradient on through its input into the
   generator: ``dz`` of the generator's last layer is D's input gradient times the derivative of G's output activation.
   The discriminator's own weights are left alone, so their gradients are not computed.
"""

from __future__ import annotations

import numpy as np

from minigen.backend import Backend
from minigen.models.mlp import Mlp, Workspace
from minigen.models.optimizer import Optimizer, OptimizerSettings
from minigen.reference import random
from minigen.training.run import TrainingRun


class GanTraining(TrainingRun):
    """``generator`` and ``discriminator`` trained on ``data[N, D]`` (uint8 or float), ``data * scale + shift``."""

    terms = loss_names = ("discriminator", "generator")

    def __init__(
        self,
        ops: Backend,
        generator: Mlp,
        discriminator: Mlp,
        data: np.ndarray,
        *,
        batch_size: int,
        settings: OptimizerSettings,
        loss: str = "non_saturating",
        seed: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
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
        )
        self.loss = loss
        B = batch_size
        self.noise = ops.empty((2 * B, generator.sizes[0]))
        rows = ops.empty((3 * B, data.shape[1]))
        self.real, self.pair, self.fake = rows[:B], rows[: 2 * B], rows[2 * B :]  # fake: the generator's own
        self.g = generator.workspace(2 * B, y=rows[B:], learnt=B)
        self.g_fake = Workspace([y[B:] for y in self.g.y], self.g.dz)
        self.d = discriminator.workspace(2 * B)
        self.d_fake = self.d.rows(B, 2 * B)

    def spell_step(self, rows: int) -> None:
        self.generate()
        self.discriminator_gradient()
        self.discriminator_optimizer.update(self.step)
        self.generator_gradient()
        self.generator_optimizer.update(self.step)
        self.ops.advance(self.step, self.losses, self.ring)

    def workspaces(self, rows: int) -> list[tuple[Mlp, Workspace]]:
        return [(self.generator, self.g), (self.discriminator, self.d)]

    def generate(self) -> None:
        self.ops.random_normal(self.noise, self.seed, random.NOISE, self.step)
        self.generator.forward(self.noise, self.g)  # writes the lower half of self.pair, and self.fake

    def discriminator_gradient(self) -> None:
        self.gather(self.real)
        logits = self.discriminator.forward(self.pair, self.d)
        self.ops.gan_loss_discriminator(logits, self.batch_size, self.d.dz[-1], self.losses[:1], self.loss)
        self.discriminator.backward(self.pair, self.d)

    def generator_gradient(self) -> None:
        logits = self.discriminator.forward(self.fake, self.d_fake)
        self.ops.gan_loss_generator(logits, self.d_fake.dz[-1], self.losses[1:], self.loss)
        self.discriminator.backward(
            self.fake, self.d_fake, dx=self.g_fake.dz[-1], activation=self.generator.output_activation, weights=False
        )
        self.generator.backward(self.noise[self.batch_size :], self.g_fake)
