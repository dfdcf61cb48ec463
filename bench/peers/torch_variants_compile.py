"""PyTorch through torch.compile for the GAN's variants: the compiled step of `torch_compile`, Adam written out.

Not for the penalties: the compiler takes no gradient of a gradient ("torch.compile with aot_autograd does not currently
support double backward", PyTorch 2.13).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.peers import torch_compile, torch_variants
from bench.spec import Spec


class Contender(torch_variants.Contender):
    update = torch_compile.Contender.update

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        super().__init__(spec, data, weights)
        self.variant_step = torch.compile(  # type: ignore[method-assign]
            self.variant_step, mode="reduce-overhead" if spec.device == "cuda" else None
        )

    def reset(self, weights: list[np.ndarray]) -> None:
        turned = [self.turned(p, w) for p, w in zip(self.parameters(), weights, strict=True)]
        torch_compile.Contender.reset(self, turned)  # type: ignore[arg-type]

    def variant_step(self, real: torch.Tensor, classes: Any, noise: torch.Tensor, u: Any) -> list[torch.Tensor]:
        self.t += 1
        d_loss = self.discriminator_loss(real, noise[0], classes, u)
        self.update(list(self.second.parameters()), d_loss)
        g_loss = self.generator_loss(noise[1], classes)
        self.update(list(self.first.parameters()), g_loss)
        return [d_loss.detach(), g_loss.detach()]
