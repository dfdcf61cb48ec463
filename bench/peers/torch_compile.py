"""PyTorch through torch.compile: losses, gradients and Adam traced into one compiled training step.

Adam is written out, because the compiler fuses the formula better than it traces ``torch.optim.Adam``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bench.peers import torch_eager
from bench.spec import Spec


class Contender(torch_eager.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        super().__init__(spec, data, weights)
        # On a GPU "reduce-overhead" replays the compiled kernels from CUDA graphs.
        self.step = torch.compile(self.step, mode="reduce-overhead" if spec.device == "cuda" else None)

    def reset(self, weights: list[np.ndarray]) -> None:
        if not hasattr(self, "t"):
            self.t = torch.zeros((), device=self.device)
            self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters()}
            for state in (self.t, *(tensor for pair in self.moments.values() for tensor in pair)):
                torch._dynamo.mark_static_address(state)
        with torch.no_grad():
            self.t.zero_()
            for parameter, w in zip(self.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
                for moment in self.moments[parameter]:
                    moment.zero_()

    def update(self, parameters: list[nn.Parameter], loss: torch.Tensor) -> None:
        s = self.spec.adam
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                m, v = self.moments[p]
                m.lerp_(g, 1 - s["beta1"])
                v.mul_(s["beta2"]).addcmul_(g, g, value=1 - s["beta2"])
                v_hat = v / (1 - s["beta2"] ** self.t)
                p.sub_(s["lr"] * (m / (1 - s["beta1"] ** self.t)) / (v_hat.sqrt() + s["eps"]))

    def gan_step(self, real: torch.Tensor, noise: torch.Tensor) -> list[torch.Tensor]:
        self.t += 1
        d_loss = self.discriminator_loss(real, noise[0])
        self.update(list(self.second.parameters()), d_loss)
        g_loss = self.generator_loss(noise[1])
        self.update(list(self.first.parameters()), g_loss)
        return [d_loss.detach(), g_loss.detach()]

    def vae_step(self, x: torch.Tensor, eps: torch.Tensor) -> list[torch.Tensor]:
        self.t += 1
        loss = self.vae_loss(x, eps)
        self.update(self.parameters(), loss)
        return [loss.detach()]
