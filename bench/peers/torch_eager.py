"""PyTorch, eager: nn.Sequential, autograd, and the fused Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from bench.spec import Spec, pixels


def network(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Contender:
    algorithm = "common"

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.spec = spec
        self.device = torch.device(spec.device)
        torch.manual_seed(spec.seed)
        torch.set_float32_matmul_precision({"ieee": "highest", "tf32": "high"}[spec.precision])
        if spec.device == "cpu":
            torch.set_num_threads(spec.threads)
        self.data = torch.from_numpy(pixels(spec, data)).to(self.device)
        self.first, self.second = (net.to(self.device) for net in self.networks())
        self.step = self.vae_step if spec.model == "vae" else self.gan_step
        self.reset(weights)

    def networks(self) -> list[nn.Module]:
        return [network(sizes) for sizes in self.spec.networks]

    def parameters(self) -> list[nn.Parameter]:
        return [*self.first.parameters(), *self.second.parameters()]

    def adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        s = self.spec.adam
        return torch.optim.Adam(parameters, lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], fused=True)

    def fill(self, weights: list[np.ndarray]) -> None:
        """Put them in their places."""
        with torch.no_grad():
            for parameter, w in zip(self.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))

    def reset(self, weights: list[np.ndarray]) -> None:
        self.fill(weights)
        if self.spec.model != "vae":
            self.adam_first = self.adam(list(self.first.parameters()))
            self.adam_second = self.adam(list(self.second.parameters()))
        else:
            self.adam_all = self.adam(self.parameters())

    def discriminator_loss(self, real: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            fake = torch.tanh(self.first(noise))
        real_logits, fake_logits = self.second(torch.cat([real, fake])).chunk(2)
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def generator_loss(self, noise: torch.Tensor) -> torch.Tensor:
        return F.softplus(-self.second(torch.tanh(self.first(noise)))).mean()

    def vae_loss(self, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        mu, logvar = self.first(x).chunk(2, dim=1)
        logits = self.second(mu + torch.exp(logvar / 2) * eps)
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mu**2 + torch.exp(logvar) - 1 - logvar).sum()
        return (reconstruction + kl) / len(x)

    def gan_step(self, real: torch.Tensor, noise: torch.Tensor) -> list[torch.Tensor]:
        d_loss = self.discriminator_loss(real, noise[0])
        self.adam_second.zero_grad()
        d_loss.backward()
        self.adam_second.step()
        # The generator's step needs no weight gradients of the discriminator: `inputs` leaves them out.
        g_loss = self.generator_loss(noise[1])
        self.adam_first.zero_grad()
        g_loss.backward(inputs=list(self.first.parameters()))
        self.adam_first.step()
        return [d_loss, g_loss]

    def vae_step(self, x: torch.Tensor, eps: torch.Tensor) -> list[torch.Tensor]:
        loss = self.vae_loss(x, eps)
        self.adam_all.zero_grad()
        loss.backward()
        self.adam_all.step()
        return [loss]

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randint(self.spec.whole_rows, (self.spec.batch,), device=self.device)
        return self.data.index_select(0, rows), torch.randn(self.spec.noise_shape, device=self.device)

    def given(self, rows: torch.Tensor, normals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What :meth:`draw` would give, of these numbers."""
        return self.data[rows.to(self.device)], normals.to(self.device)

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        losses = []
        for rows, normals in zip(torch.from_numpy(indices), torch.from_numpy(noise), strict=True):
            result = self.step(*self.given(rows, normals))
            losses.append([float(loss.detach()) for loss in result])
        return np.array(losses)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step(*self.draw())
        self.wait()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def weights(self) -> list[np.ndarray]:
        return [np.ascontiguousarray(p.detach().cpu().numpy().T) for p in self.parameters()]

    def device_peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_reserved() if self.device.type == "cuda" else None

    def versions(self) -> dict[str, Any]:
        return {"torch": torch.__version__}
