"""PyTorch, eager, for the GAN's variants: gradients' gradients by ``create_graph``, ``F.batch_norm``, embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from bench.peers import torch_eager
from bench.spec import CLASSES, NORM_EPS, PENALTY_WEIGHT, R1_WEIGHT, Spec, labels


class Network(nn.Module):
    """Dense layers with ReLU, as the spec names their parameters."""

    def __init__(self, sizes: tuple[int, ...], layers: list[tuple[str, ...]]) -> None:
        super().__init__()
        pairs = list(zip(sizes, sizes[1:], layers, strict=False))
        self.dense = nn.ModuleList(nn.Linear(fan_in, fan_out, bias="b" in names) for fan_in, fan_out, names in pairs)
        norms = (nn.BatchNorm1d(out, NORM_EPS) if "gamma" in names else nn.Identity() for _, out, names in pairs)
        self.norms = nn.ModuleList(norms)
        self.classes = nn.Embedding(CLASSES, sizes[1]) if "E" in layers[0] else None

    def forward(self, x: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        last = len(self.dense) - 1
        for k, (dense, norm) in enumerate(zip(self.dense, self.norms, strict=True)):
            x = dense(x)
            if k == 0 and self.classes is not None:
                x = x + self.classes(classes)
            x = F.relu(norm(x)) if k < last else x
        return x

    def in_order(self) -> list[nn.Parameter]:
        """The parameters in the order of the spec's."""
        found: list[Any] = []
        for k, (dense, norm) in enumerate(zip(self.dense, self.norms, strict=True)):
            found += [dense.weight, dense.bias, *norm.parameters()]
            if k == 0 and self.classes is not None:
                found.append(self.classes.weight)
        return [parameter for parameter in found if parameter is not None]


class Contender(torch_eager.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.labels = torch.from_numpy(labels(spec)).long().to(spec.device)
        super().__init__(spec, data, weights)

    def networks(self) -> list[nn.Module]:
        return [Network(sizes, names) for sizes, names in zip(self.spec.networks, self.spec.layers, strict=True)]

    def parameters(self) -> list[nn.Parameter]:
        return [*self.first.in_order(), *self.second.in_order()]

    def reset(self, weights: list[np.ndarray]) -> None:
        super().reset([self.turned(p, w) for p, w in zip(self.parameters(), weights, strict=True)])

    def weights(self) -> list[np.ndarray]:
        return [self.turned(p, w) for p, w in zip(self.parameters(), super().weights(), strict=True)]

    def turned(self, parameter: nn.Parameter, w: np.ndarray) -> np.ndarray:
        """An embedding's weights lie as the spec has them; a dense layer's lie the other way round."""
        embeddings = [net.classes.weight for net in (self.first, self.second) if net.classes is not None]
        return w.T if any(parameter is weight for weight in embeddings) else w

    def discriminator_loss(self, real: torch.Tensor, noise: torch.Tensor, classes: Any, u: Any) -> torch.Tensor:
        model = self.spec.model
        with torch.no_grad():
            fake = torch.tanh(self.first(noise, classes))
        if model == "gan-r1":
            real = real.detach().requires_grad_()
        twice = None if classes is None else torch.cat([classes, classes])
        real_logits, fake_logits = self.second(torch.cat([real, fake]), twice).chunk(2)
        if model == "wgan-gp":
            loss = fake_logits.mean() - real_logits.mean()
            between = (u[:, None] * real + (1 - u[:, None]) * fake).requires_grad_()
            slopes = torch.autograd.grad(self.second(between).sum(), between, create_graph=True)[0]
            return loss + PENALTY_WEIGHT * ((slopes.norm(dim=1) - 1) ** 2).mean()
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        if model == "gan-r1":
            slopes = torch.autograd.grad(real_logits.sum(), real, create_graph=True)[0]
            loss = loss + R1_WEIGHT / 2 * (slopes**2).sum(dim=1).mean()
        return loss

    def generator_loss(self, noise: torch.Tensor, classes: Any) -> torch.Tensor:
        logits = self.second(torch.tanh(self.first(noise, classes)), classes)
        return -logits.mean() if self.spec.model == "wgan-gp" else F.softplus(-logits).mean()

    def variant_step(self, real: torch.Tensor, classes: Any, noise: torch.Tensor, u: Any) -> list[torch.Tensor]:
        d_loss = self.discriminator_loss(real, noise[0], classes, u)
        self.adam_second.zero_grad()
        d_loss.backward()
        self.adam_second.step()
        g_loss = self.generator_loss(noise[1], classes)
        self.adam_first.zero_grad()
        g_loss.backward(inputs=list(self.first.parameters()))
        self.adam_first.step()
        return [d_loss, g_loss]

    def taken(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pixels and, of a conditional model, classes."""
        classes = self.labels[rows] if self.spec.model == "gan-conditional" else None
        return self.data.index_select(0, rows), classes

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        losses = []
        for rows, drawn in zip(torch.from_numpy(indices), torch.from_numpy(noise), strict=True):
            normals, u = self.spec.parts(drawn.to(self.device))
            result = self.variant_step(*self.taken(rows.to(self.device)), normals, u)
            losses.append([float(loss.detach()) for loss in result])
        return np.array(losses)

    def run(self, steps: int) -> None:
        spec = self.spec
        for _ in range(steps):
            rows = torch.randint(spec.whole_rows, (spec.batch,), device=self.device)
            normals = torch.randn((2, spec.batch, spec.latent), device=self.device)
            u = torch.rand(spec.extra_draws, device=self.device) if spec.extra_draws else None
            self.variant_step(*self.taken(rows), normals, u)
        self.wait()
