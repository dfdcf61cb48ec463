"""PyTorch in a CUDA graph captured by hand: eager's kernels, draws and fused Adam, without the interpreter."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bench.peers import torch_eager
from bench.spec import Spec


class Contender(torch_eager.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        super().__init__(spec, data, weights)
        self.real, self.noise = self.draw()
        warm = torch.cuda.Stream()
        with torch.cuda.stream(warm):
            for _ in range(3):
                self.step(*self.draw())
        torch.cuda.synchronize()
        self.checked = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.checked):
            self.losses = self.step(self.real, self.noise)
        self.drawn = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.drawn):
            for _ in range(spec.steps_per_call):
                self.step(*self.draw())
        self.reset(weights)

    def adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        s = self.spec.adam
        betas = (s["beta1"], s["beta2"])
        return torch.optim.Adam(parameters, lr=s["lr"], betas=betas, eps=s["eps"], fused=True, capturable=True)

    def reset(self, weights: list[np.ndarray]) -> None:
        """In place: the graph knows the tensors by their addresses."""
        if not hasattr(self, "optimizers"):
            super().reset(weights)
            both = ("adam_first", "adam_second") if self.spec.model == "gan" else ("adam_all",)
            self.optimizers = [getattr(self, name) for name in both]
        self.fill(weights)
        with torch.no_grad():
            for optimizer in self.optimizers:
                for state in optimizer.state.values():
                    for tensor in state.values():
                        tensor.zero_()

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        losses = []
        for rows, normals in zip(torch.from_numpy(indices), torch.from_numpy(noise), strict=True):
            real, noise = self.given(rows, normals)
            self.real.copy_(real)
            self.noise.copy_(noise)
            self.checked.replay()
            losses.append([float(loss.detach()) for loss in self.losses])
        return np.array(losses)

    def run(self, steps: int) -> None:
        for _ in range(steps // self.spec.steps_per_call):
            self.drawn.replay()
        self.wait()
