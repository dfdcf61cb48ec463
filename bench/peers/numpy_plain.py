"""NumPy as a tutorial writes it: a class for a layer, arrays made as they are needed, one line for one formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.spec import Spec, pixels


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


class Dense:
    def __init__(self, W: np.ndarray, b: np.ndarray, relu: bool) -> None:
        self.W, self.b, self.relu = W.copy(), b.copy(), relu
        self.m = [np.zeros_like(W), np.zeros_like(b)]
        self.v = [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        self.y = x @ self.W + self.b
        if self.relu:
            self.y = np.maximum(self.y, 0)
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dz = dy * (self.y > 0) if self.relu else dy
        self.dW = self.x.T @ dz
        self.db = dz.sum(axis=0)
        return dz @ self.W.T

    def adam(self, t: int, lr: float, beta1: float, beta2: float, eps: float) -> None:
        for k, (p, g) in enumerate([(self.W, self.dW), (self.b, self.db)]):
            self.m[k] = beta1 * self.m[k] + (1 - beta1) * g
            self.v[k] = beta2 * self.v[k] + (1 - beta2) * g**2
            m_hat = self.m[k] / (1 - beta1**t)
            v_hat = self.v[k] / (1 - beta2**t)
            p -= lr * m_hat / (np.sqrt(v_hat) + eps)


class Network:
    def __init__(self, weights: list[np.ndarray]) -> None:
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        self.layers = [Dense(W, b, relu=k < len(pairs) - 1) for k, (W, b) in enumerate(pairs)]
        self.t = 0

    def forward(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def adam(self, **settings: float) -> None:
        self.t += 1
        for layer in self.layers:
            layer.adam(self.t, **settings)


class Contender:
    algorithm = "common"

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.spec = spec
        self.data = pixels(spec, data)
        self.rng = np.random.default_rng(spec.seed)
        self.step = self.gan_step if spec.model == "gan" else self.vae_step
        self.reset(weights)

    def reset(self, weights: list[np.ndarray]) -> None:
        split = 2 * (len(self.spec.networks[0]) - 1)
        self.first, self.second = Network(weights[:split]), Network(weights[split:])

    def gan_step(self, real: np.ndarray, noise: np.ndarray) -> list[float]:
        generator, discriminator = self.first, self.second
        batch = len(real)
        fake = np.tanh(generator.forward(noise[0]))
        logits = discriminator.forward(np.concatenate([real, fake]))
        d_loss = softplus(-logits[:batch]).mean() + softplus(logits[batch:]).mean()
        targets = np.concatenate([np.ones((batch, 1), np.float32), np.zeros((batch, 1), np.float32)])
        discriminator.backward((sigmoid(logits) - targets) / batch)
        discriminator.adam(**self.spec.adam)

        fake = np.tanh(generator.forward(noise[1]))
        logits = discriminator.forward(fake)
        g_loss = softplus(-logits).mean()
        dfake = discriminator.backward((sigmoid(logits) - 1) / batch)
        generator.backward(dfake * (1 - fake**2))
        generator.adam(**self.spec.adam)
        return [d_loss, g_loss]

    def vae_step(self, x: np.ndarray, eps: np.ndarray) -> list[float]:
        encoder, decoder = self.first, self.second
        batch = len(x)
        mu, logvar = np.split(encoder.forward(x), 2, axis=1)
        std = np.exp(logvar / 2)
        logits = decoder.forward(mu + std * eps)
        reconstruction = (softplus(logits) - x * logits).sum(axis=1)
        kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
        dz = decoder.backward((sigmoid(logits) - x) / batch)
        dmu = dz + mu / batch
        dlogvar = dz * eps * std / 2 + (np.exp(logvar) - 1) / 2 / batch
        encoder.backward(np.concatenate([dmu, dlogvar], axis=1))
        encoder.adam(**self.spec.adam)
        decoder.adam(**self.spec.adam)
        return [(reconstruction + kl).mean()]

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        steps = zip(indices, noise, strict=True)
        return np.array([self.step(self.data[rows], normals) for rows, normals in steps])

    def run(self, steps: int) -> None:
        for _ in range(steps):
            rows = self.rng.integers(0, self.spec.whole_rows, self.spec.batch)
            self.step(self.data[rows], self.rng.standard_normal(self.spec.noise_shape, dtype=np.float32))

    def weights(self) -> list[np.ndarray]:
        return [array for net in (self.first, self.second) for layer in net.layers for array in (layer.W, layer.b)]

    def device_peak_bytes(self) -> None:
        return None

    def versions(self) -> dict[str, Any]:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"numpy": np.__version__, "blas": f"{blas['name']} {blas['version']}"}
