"""What ten steps of the GAN's variants must come to, in float64 and independently of every contender.

Beside `bench.oracle`, whose GAN they change in one thing each:

- ``gan-r1``: half of `R1_WEIGHT` times the mean squared gradient of the logit at the real rows joins the
  discriminator's loss (Mescheder et al. 2018, equation 9).
- ``wgan-gp``: the critic's loss is ``mean s(fake) - mean s(real) + PENALTY_WEIGHT mean (|ds/dx| - 1)^2`` at rows
  between real and generated ones, with a place of its own for each row; the generator's is ``-mean s(fake)``
  (Gulrajani et al. 2017, algorithm 1). The critic takes one step for each of the generator's, as a step of the others
  does.
- ``gan-batch-norm``: the generator's hidden layers are normalized over their batch before the ReLU, each player's
  fakes by themselves (Ioffe and Szegedy 2015, algorithm 1).
- ``gan-conditional``: both networks see a row's class, one-hot, beside their input (Mirza and Osindero 2014): that
  is, a row of ``E`` is added in the first layer. Generated rows get the classes of the batch's real ones.

The gradient's own gradient: the logit of a network of ReLUs is piecewise linear in its input, so that the gradient
``g(x)`` does not change with the biases, and of the weights of layer k only through the products ``delta_k =
ds/dz_k``. With ``v = dP/dg`` sent forward through the same ReLUs, ``t_0 = v``, ``t_k = (t_(k-1) W_k) [z_k > 0]``, the
penalty's part is ``dW_k = t_(k-1)^T delta_k``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import oracle
from bench.oracle import sigmoid, softplus
from bench.spec import CLASSES, NORM_EPS, PENALTY_WEIGHT, R1_WEIGHT, Spec, labels, pixels

Layer = dict[str, np.ndarray]


def layers_of(spec: Spec, weights: list[np.ndarray]) -> tuple[list[Layer], list[Layer]]:
    given = iter(weights)
    first, second = ([{name: next(given) for name in names} for names in network] for network in spec.layers)
    return first, second


def forward(layers: list[Layer], x: np.ndarray, classes: np.ndarray | None = None) -> tuple[np.ndarray, list[Any]]:
    """The last layer's output and what each layer keeps: its input, and for batch norm the normalized values."""
    stored: list[Any] = []
    for k, layer in enumerate(layers):
        z = x @ layer["W"] + layer.get("b", 0)
        if "E" in layer:
            assert classes is not None
            z = z + np.eye(CLASSES)[classes] @ layer["E"]
        kept: dict[str, np.ndarray] = {"x": x}
        if "gamma" in layer:
            kept["scale"] = 1 / np.sqrt(z.var(axis=0) + NORM_EPS)
            kept["h"] = (z - z.mean(axis=0)) * kept["scale"]
            z = kept["h"] * layer["gamma"] + layer["beta"]
        kept["z"] = z
        stored.append(kept)
        x = np.maximum(z, 0) if k + 1 < len(layers) else z
    return x, stored


def backward(
    layers: list[Layer], stored: list[Any], dz: np.ndarray, classes: np.ndarray | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradients in the order of the weights, and that of the network's input, from ``dz`` of the last layer."""
    grads: list[np.ndarray] = []
    for layer, kept in zip(reversed(layers), reversed(stored), strict=True):
        own: Layer = {}
        if "gamma" in layer:
            h, own["gamma"], own["beta"] = kept["h"], (dz * kept["h"]).sum(axis=0), dz.sum(axis=0)
            dh = dz * layer["gamma"]
            dz = kept["scale"] * (dh - dh.mean(axis=0) - h * (dh * h).mean(axis=0))
        own["W"] = kept["x"].T @ dz
        if "b" in layer:
            own["b"] = dz.sum(axis=0)
        if "E" in layer:
            own["E"] = np.eye(CLASSES)[classes].T @ dz
        grads = [*(own[name] for name in layer), *grads]
        dx = dz @ layer["W"].T
        dz = dx * (kept["x"] > 0)  # the input of all layers but the first is a ReLU's output
    return grads, dx


def penalty(layers: list[Layer], x: np.ndarray, kind: str) -> tuple[float, list[np.ndarray]]:
    """The penalty of the logit's gradient at the rows ``x``, and its gradients in the order of the weights."""
    _, stored = forward(layers, x)
    deltas = [np.ones((len(x), 1))]
    for layer, kept in zip(reversed(layers[1:]), reversed(stored[1:]), strict=True):
        deltas.insert(0, (deltas[0] @ layer["W"].T) * (kept["x"] > 0))
    g = deltas[0] @ layers[0]["W"].T
    norms = np.sqrt((g**2).sum(axis=1, keepdims=True))
    if kind == "r1":
        value, v = R1_WEIGHT / 2 * (norms**2).mean(), R1_WEIGHT * g / len(x)
    else:
        value = PENALTY_WEIGHT * ((norms - 1) ** 2).mean()
        v = 2 * PENALTY_WEIGHT * (norms - 1) * g / np.where(norms > 0, norms, 1) / len(x)  # 0 where g is
    grads: list[np.ndarray] = []
    t = v
    for layer, kept, delta in zip(layers, stored, deltas, strict=True):
        grads += [t.T @ delta, np.zeros_like(layer["b"])]
        t = (t @ layer["W"]) * (kept["z"] > 0)
    return float(value), grads


def discriminator(
    spec: Spec, first: list[Layer], second: list[Layer], real: np.ndarray, classes: Any, z: np.ndarray, u: Any
) -> tuple[float, list[np.ndarray]]:
    """The discriminator's loss and its gradients. ``classes[B]`` of a conditional model, ``u[B]`` of WGAN-GP."""
    B = len(real)
    fake = np.tanh(forward(first, z, classes)[0])
    both, sign = np.concatenate([real, fake]), np.concatenate([-np.ones((B, 1)), np.ones((B, 1))])
    twice = None if classes is None else np.concatenate([classes, classes])
    s, stored = forward(second, both, twice)
    if spec.model == "wgan-gp":
        loss, ds = (sign * s).sum() / B, sign / B
    else:
        loss, ds = softplus(sign * s).sum() / B, sign * sigmoid(sign * s) / B
    grads, _ = backward(second, stored, ds, twice)
    if spec.model == "gan-r1":
        added, more = penalty(second, real, "r1")
    elif spec.model == "wgan-gp":
        added, more = penalty(second, u[:, None] * real + (1 - u[:, None]) * fake, "two_sided")
    else:
        return float(loss), grads
    return float(loss) + added, [a + b for a, b in zip(grads, more, strict=True)]


def generator(
    spec: Spec, first: list[Layer], second: list[Layer], classes: Any, z: np.ndarray
) -> tuple[float, list[np.ndarray]]:
    """The generator's loss and its gradients."""
    output, stored = forward(first, z, classes)
    fake = np.tanh(output)
    s, judged = forward(second, fake, classes)
    if spec.model == "wgan-gp":
        loss, ds = -s.mean(), -np.ones_like(s) / len(z)
    else:
        loss, ds = softplus(-s).mean(), -sigmoid(-s) / len(z)
    _, dfake = backward(second, judged, ds, classes)
    return float(loss), backward(first, stored, dfake * (1 - fake**2), classes)[0]


def train(
    spec: Spec, data: np.ndarray, weights: list[np.ndarray], indices: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """As `bench.oracle.train`, of a variant: losses ``[steps, 2]`` and the weights after the last step."""
    copies = [w.astype(np.float64) for w in weights]
    first, second = layers_of(spec, copies)
    split = sum(map(len, first))
    adams = [oracle.Adam(spec, part, "common") for part in (copies[:split], copies[split:])]
    losses = []
    for rows, drawn in zip(indices, noise.astype(np.float64), strict=True):
        normals, u = spec.parts(drawn)
        real = pixels(spec, data[rows], np.float64)
        classes = labels(spec)[rows] if spec.model == "gan-conditional" else None
        d_loss, grads = discriminator(spec, first, second, real, classes, normals[0], u)
        adams[1].update(grads)
        g_loss, grads = generator(spec, first, second, classes, normals[1])
        adams[0].update(grads)
        losses.append([d_loss, g_loss])
    return np.array(losses), copies
