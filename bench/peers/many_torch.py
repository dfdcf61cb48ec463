"""PyTorch: several models at once by torch.func's vmap over stacked weights, and one fused Adam over the stacks."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import grad_and_value, vmap
from torch.nn import functional as F  # noqa: N812

from bench.peers import torch_eager
from bench.spec import Spec

Weights = list[torch.Tensor]


def forward(layers: Weights, x: torch.Tensor) -> torch.Tensor:
    """``W[I,O]`` and ``b[O]`` of each layer in turn."""
    for W, b in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = torch.relu(torch.addmm(b, x, W))
    return torch.addmm(layers[-1], x, layers[-2])


def discriminator_loss(discriminator: Weights, generator: Weights, real: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    fake = torch.tanh(forward(generator, z))
    real_logits, fake_logits = forward(discriminator, torch.cat([real, fake])).chunk(2)
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(generator: Weights, discriminator: Weights, z: torch.Tensor) -> torch.Tensor:
    return F.softplus(-forward(discriminator, torch.tanh(forward(generator, z)))).mean()


class Contender(torch_eager.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.discriminator_slopes = vmap(grad_and_value(discriminator_loss))
        self.generator_slopes = vmap(grad_and_value(generator_loss))
        super().__init__(spec, data, weights)

    def parameters(self) -> Weights:
        """``[models, ...]`` of each weight."""
        return [*self.generators, *self.discriminators]

    def fill(self, weights: list[np.ndarray]) -> None:
        """The same weights for all; the draws are each model's own."""
        if not hasattr(self, "generators"):
            shapes = [(self.spec.at_once, *w.shape) for w in weights]
            stacks = [torch.empty(shape, device=self.device) for shape in shapes]
            split = 2 * (len(self.spec.networks[0]) - 1)
            self.generators, self.discriminators = stacks[:split], stacks[split:]
        for stack, w in zip(self.parameters(), weights, strict=True):
            stack.copy_(torch.from_numpy(w))

    def reset(self, weights: list[np.ndarray]) -> None:
        self.fill(weights)
        self.adam_first, self.adam_second = self.adam(self.generators), self.adam(self.discriminators)

    def gan_step(self, real: torch.Tensor, noise: torch.Tensor) -> list[torch.Tensor]:
        """``real[models, B, D]`` and ``noise[2, models, B, latent]``."""
        slopes, d_loss = self.discriminator_slopes(self.discriminators, self.generators, real, noise[0])
        self.update(self.adam_second, self.discriminators, slopes)
        slopes, g_loss = self.generator_slopes(self.generators, self.discriminators, noise[1])
        self.update(self.adam_first, self.generators, slopes)
        return [d_loss[-1], g_loss[-1]]

    def update(self, adam: torch.optim.Optimizer, weights: Weights, slopes: Weights) -> None:
        for weight, slope in zip(weights, slopes, strict=True):
            weight.grad = slope
        adam.step()

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        spec = self.spec
        rows = torch.randint(spec.whole_rows, (spec.at_once * spec.batch,), device=self.device)
        real = self.data.index_select(0, rows).view(spec.at_once, spec.batch, -1)
        return real, torch.randn((2, spec.at_once, spec.batch, spec.latent), device=self.device)

    def given(self, rows: torch.Tensor, normals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for all."""
        real, noise = super().given(rows, normals)
        return real.expand(self.spec.at_once, -1, -1), noise[:, None].expand(-1, self.spec.at_once, -1, -1)

    def weights(self) -> list[np.ndarray]:
        """Of the last model."""
        return [w[-1].detach().cpu().numpy().copy() for w in self.parameters()]
