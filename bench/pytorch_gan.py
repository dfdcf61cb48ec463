"""The peer of `bench.digits`: the dense GAN of PyTorch-GAN (github.com/eriklindernoren/PyTorch-GAN, ``gan.py``).

Written anew with its architecture and settings: a generator 100-128-256-512-1024-784 with batch norm after each hidden
layer but the first (``eps`` 0.8, as there), a discriminator 784-512-256-1, leaky rectifiers of slope 0.2, Adam at 2e-4
with beta1 0.5, batches of 64, pixels in [-1, 1]; the generator's step comes first, and the discriminator sees the same
fakes. Its 200 epochs are as many here as the others get. Samples are drawn as there, in batches of 64 that are
normalised by their own statistics; by the running ones they are no better.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

LATENT = 100
BATCH = 64


def generator(columns: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(LATENT, 128), nn.LeakyReLU(0.2)]
    for fan_in, fan_out in ((128, 256), (256, 512), (512, 1024)):
        layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out, 0.8), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(1024, columns), nn.Tanh())


def discriminator(columns: int) -> nn.Sequential:
    hidden = [nn.Linear(columns, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2)]
    return nn.Sequential(*hidden, nn.Linear(256, 1), nn.Sigmoid())


def train(images: np.ndarray, *, epochs: int, seed: int, threads: int = 1) -> Callable[[int], np.ndarray]:
    """Train on ``images[N, ...]`` (uint8); the result draws ``n`` samples of the images' shape and type."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1)
    G, D = generator(data.shape[1]), discriminator(data.shape[1])
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (G, D))
    loss = nn.BCELoss()
    for _ in range(epochs):
        for rows in torch.randperm(len(data)).split(BATCH):
            real = data[rows]
            one, zero = torch.ones(len(rows), 1), torch.zeros(len(rows), 1)
            fakes = G(torch.randn(len(rows), LATENT))
            adam_g.zero_grad()
            loss(D(fakes), one).backward()
            adam_g.step()
            adam_d.zero_grad()
            ((loss(D(real), one) + loss(D(fakes.detach()), zero)) / 2).backward()
            adam_d.step()

    def sample(n: int) -> np.ndarray:
        with torch.no_grad():
            batches = [G(torch.randn(BATCH, LATENT)).numpy() for _ in range(-(-n // BATCH))]
        rows = np.concatenate(batches)[:n]
        return np.clip(np.rint((rows + 1) * 127.5), 0, 255).astype(np.uint8).reshape(n, *images.shape[1:])

    return sample
