"""The equivalence check: what ten steps must come to, computed in float64 and independently of every contender.

Plain backpropagation over a list of layers, with the Adam of Kingma and Ba (2015, algorithm 1). It shares no code with
minigen, so that minigen is checked like everybody else; `tests/test_bench.py` checks it against finite differences.
"""

from __future__ import annotations

import numpy as np

from bench.spec import VARIANTS, Spec, pixels

TOLERANCES = {"ieee": {"loss_error": 1e-4, "weight_error": 5e-3}, "tf32": {"loss_error": 1e-2, "weight_error": 0.2}}
"""Largest relative error of any step's loss; and of the way that all weights together have gone after the last step,
``||w - w64|| / ||w64 - w0||``. A learning rate 1 % off is about 1e-2 of it, whatever the model.

float32's part in it: 1 - beta2^t loses a few digits, and Adam's first steps are lr * sign(g) in effect, so that an
element whose gradient is rounding noise may go the other way.
"""


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-softplus(-x))


def forward(layers: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """Inputs of every layer, then the last layer's logits; hidden layers are ReLU."""
    stored = [x]
    for W, b in zip(layers[::2], layers[1::2], strict=True):
        stored.append(np.maximum(stored[-1], 0) @ W + b if len(stored) > 1 else x @ W + b)
    return stored


def backward(
    layers: list[np.ndarray], stored: list[np.ndarray], dlogits: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradients in the order of ``layers`` and the gradient of the network's input."""
    grads: list[np.ndarray] = []
    dz = dlogits
    for k in reversed(range(len(layers) // 2)):
        y = np.maximum(stored[k], 0) if k else stored[0]
        grads = [y.T @ dz, dz.sum(axis=0), *grads]
        dz = dz @ layers[2 * k].T
        if k:
            dz = dz * (stored[k] > 0)
    return grads, dz


class Adam:
    def __init__(self, spec: Spec, weights: list[np.ndarray], algorithm: str) -> None:
        self.settings = spec.adam
        self.algorithm = algorithm
        self.weights = weights
        self.m = [np.zeros_like(w) for w in weights]
        self.v = [np.zeros_like(w) for w in weights]
        self.t = 0

    def update(self, grads: list[np.ndarray]) -> None:
        b1, b2, eps = self.settings["beta1"], self.settings["beta2"], self.settings["eps"]
        self.t += 1
        if self.algorithm == "article":
            eps /= np.sqrt(1 - b2**self.t)
        for w, g, m, v in zip(self.weights, grads, self.m, self.v, strict=True):
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            w -= self.settings["lr"] * (m / (1 - b1**self.t)) / (np.sqrt(v / (1 - b2**self.t)) + eps)


def train(
    spec: Spec,
    data: np.ndarray,
    weights: list[np.ndarray],
    indices: np.ndarray,
    noise: np.ndarray,
    algorithm: str = "common",
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Losses ``[steps, 2]`` (discriminator, generator) or ``[steps, 1]`` (VAE), and the weights after the last step.

    ``algorithm="article"`` is the article's in two respects: the discriminator takes one Adam step on the real batch
    and then one on the generated batch, in place of one on both, and Adam is Keras': epsilon is added to sqrt(v) before
    v's bias is corrected ("epsilon hat" in Kingma and Ba 2015, section 2).
    """
    if spec.model in VARIANTS:
        from bench import oracle_variants

        return oracle_variants.train(spec, data, weights, indices, noise)
    split = 2 * (len(spec.networks[0]) - 1)
    copies = [w.astype(np.float64) for w in weights]
    first, second = copies[:split], copies[split:]
    losses = []
    adams = (Adam(spec, first, algorithm), Adam(spec, second, algorithm))
    for rows, normals in zip(indices, noise.astype(np.float64), strict=True):
        x = pixels(spec, data[rows], np.float64)
        if spec.model == "vae":
            loss, grads_first, grads_second = vae_gradients(first, second, x, normals)
            adams[0].update(grads_first)
            adams[1].update(grads_second)
            losses.append([loss])
        else:
            d_loss = discriminator_steps(first, second, adams[1], x, normals[0], algorithm)
            g_loss, grads = generator_gradients(first, second, normals[1])
            adams[0].update(grads)
            losses.append([d_loss, g_loss])
    return np.array(losses), copies


def discriminator_steps(
    generator: list[np.ndarray],
    discriminator: list[np.ndarray],
    adam: Adam,
    real: np.ndarray,
    z: np.ndarray,
    algorithm: str,
) -> float:
    """Train the discriminator once; the loss, mean softplus(-s_real) + mean softplus(s_fake)."""
    fake = np.tanh(forward(generator, z)[-1])
    sign = np.concatenate([-np.ones((len(real), 1)), np.ones((len(fake), 1))])
    both = np.concatenate([real, fake])
    parts = [slice(None)] if algorithm == "common" else [slice(len(real)), slice(len(real), None)]
    loss = 0.0
    for part in parts:
        stored = forward(discriminator, both[part])
        s = sign[part] * stored[-1]
        loss += float(softplus(s).sum() / len(real))
        adam.update(backward(discriminator, stored, sign[part] * sigmoid(s) / len(real))[0])
    return loss


def generator_gradients(
    generator: list[np.ndarray], discriminator: list[np.ndarray], z: np.ndarray
) -> tuple[float, list[np.ndarray]]:
    """The non-saturating loss, mean softplus(-s), and its gradient in the generator."""
    stored = forward(generator, z)
    fake = np.tanh(stored[-1])
    judged = forward(discriminator, fake)
    s = judged[-1]
    _, dfake = backward(discriminator, judged, -sigmoid(-s) / len(z))
    return float(softplus(-s).mean()), backward(generator, stored, dfake * (1 - fake**2))[0]


def vae_gradients(
    encoder: list[np.ndarray], decoder: list[np.ndarray], x: np.ndarray, eps: np.ndarray
) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
    """Negative ELBO in nats, mean over the batch, with Bernoulli pixels, and its gradients (encoder, decoder)."""
    encoded = forward(encoder, x)
    mu, logvar = np.split(encoded[-1], 2, axis=1)
    decoded = forward(decoder, mu + np.exp(logvar / 2) * eps)
    logits = decoded[-1]
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
    loss = ((softplus(logits) - x * logits).sum(axis=1) + kl).mean()
    decoder_grads, dz = backward(decoder, decoded, (sigmoid(logits) - x) / len(x))
    dmu = dz + mu / len(x)
    dlogvar = dz * eps * np.exp(logvar / 2) / 2 + (np.exp(logvar) - 1) / 2 / len(x)
    return float(loss), backward(encoder, encoded, np.concatenate([dmu, dlogvar], axis=1))[0], decoder_grads


def negative_elbo(spec: Spec, weights: list[np.ndarray], x: np.ndarray, eps: np.ndarray, rows: int = 2000) -> float:
    """Mean negative ELBO of the test rows ``x[N,D]`` (floats in [0, 1]) with one sample ``eps[N,L]`` each, in nats."""
    split = 2 * (len(spec.networks[0]) - 1)
    total = 0.0
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        mu, logvar = np.split(forward(weights[:split], x[part])[-1], 2, axis=1)
        logits = forward(weights[split:], mu + np.exp(logvar / 2) * eps[part])[-1]
        kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
        total += float(((softplus(logits) - x[part] * logits).sum(axis=1) + kl).sum())
    return total / len(x)


def errors(
    losses: np.ndarray,
    weights: list[np.ndarray],
    expected_losses: np.ndarray,
    expected_weights: list[np.ndarray],
    initial: list[np.ndarray],
) -> tuple[float, float]:
    """Largest relative error of a loss, and that of the weights; NaN where anything is NaN or has another shape.

    A loss below 0.1, which a critic's may be by chance, counts as 0.1.
    """
    if losses.shape != expected_losses.shape or [w.shape for w in weights] != [w.shape for w in expected_weights]:
        return float("nan"), float("nan")
    loss = np.max(np.abs(losses - expected_losses) / np.maximum(np.abs(expected_losses), 0.1))
    return float(loss), weight_error(weights, expected_weights, initial)


def weight_error(weights: list[np.ndarray], expected: list[np.ndarray], initial: list[np.ndarray]) -> float:
    """How far all weights together are off, as a part of the way that they should have gone; NaN if any is."""
    return distance(weights, expected) / distance(initial, expected)


def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return float(np.linalg.norm([np.linalg.norm(x.astype(np.float64) - y) for x, y in zip(a, b, strict=True)]))


def agrees(errors: dict[str, float], precision: str) -> bool:
    """Whether both errors are inside the stated tolerances; NaN is not."""
    return all(errors[kind] <= tolerance for kind, tolerance in TOLERANCES[precision].items())
