"""The two players' losses and their gradients by PyTorch's autograd, in double precision: the oracle of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

F = torch.nn.functional
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda z: z,
    "relu": torch.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.2),
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}
TERMS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "non_saturating": (lambda s: F.softplus(-s), F.softplus, lambda s: F.softplus(-s)),
    "minimax": (lambda s: F.softplus(-s), F.softplus, lambda s: -F.softplus(s)),
    "least_squares": (lambda s: (s - 1) ** 2 / 2, lambda s: s**2 / 2, lambda s: (s - 1) ** 2 / 2),
    "hinge": (lambda s: F.relu(1 - s), lambda s: F.relu(1 + s), lambda s: -s),
    "wasserstein": (lambda s: -s, lambda s: s, lambda s: -s),
}


def double(array: Any) -> Any:
    return torch.tensor(np.asarray(array, np.float64))


class TorchNet:
    """A dense network with the weights of ours, as they are now."""

    def __init__(self, net: Any) -> None:
        self.activations = [ACTIVATIONS[layer.activation] for layer in net.layers]
        self.parameters = {key: double(value).requires_grad_() for key, value in net.state().items()}

    def __call__(self, x: Any) -> Any:
        weights = iter(self.parameters.values())
        for activation in self.activations:
            x = activation(x @ next(weights) + next(weights))
        return x

    def gradients(self, loss: Any) -> dict[str, np.ndarray]:
        """Of the loss by the parameters; where it does not depend on one, zeros."""
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        pairs = zip(self.parameters.items(), found, strict=True)
        return {key: np.zeros(p.shape) if g is None else g.numpy() for (key, p), g in pairs}


def discriminator_loss(D: Any, real: Any, fake: Any, loss: str, smoothing: float = 0.0) -> Any:
    on_real, on_fake, _ = TERMS[loss]
    s = D(real)
    return ((1 - smoothing) * on_real(s) + smoothing * on_fake(s)).mean() + on_fake(D(fake)).mean()


def generator_loss(D: Any, fake: Any, loss: str) -> Any:
    return TERMS[loss][2](D(fake)).mean()


def r1(D: Any, real: Any, weight: float) -> Any:
    return weight / 2 * (input_gradient(D, real) ** 2).sum(dim=1).mean()


def two_sided(D: Any, x: Any, weight: float) -> Any:
    return weight * ((input_gradient(D, x).norm(dim=1) - 1) ** 2).mean()


def input_gradient(D: Any, x: Any) -> Any:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(D(x).sum(), x, create_graph=True)[0]


def gradients_of(net: Any) -> dict[str, np.ndarray]:
    """Ours, by the same keys."""
    parts = {f"{layer.name}.{name}": g for layer in net.layers for name, g in layer.grads.items()}
    return {key: np.asarray(net.ops.download(g), np.float64) for key, g in parts.items()}


def assert_gradients(net: Any, expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Relative to the largest gradient of the network: sums of either sign may cancel in one of them."""
    size = max(float(np.abs(value).max()) for value in expected.values())
    for key, ours in gradients_of(net).items():
        np.testing.assert_allclose(ours, expected[key], rtol=tolerance, atol=tolerance * size, err_msg=key)
