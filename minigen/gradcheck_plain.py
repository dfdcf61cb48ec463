"""Both models' training steps written out once more, plainly: what whole steps are compared with.

From the formulas of the papers and of the random numbers alone, in float64, one number or one matrix at a time. Nothing
of ``minigen.reference``, ``minigen.models`` or ``minigen.training`` is used here, so that a mistake there shows as a
difference. Networks are lists of ``(W[I,O], b[O])``; the gradient of one has the same form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Net = list[tuple[np.ndarray, np.ndarray]]
Slots = dict[str, np.ndarray]

INIT, ORDER, NOISE, LATENT, SAMPLE = 0, 1, 2, 3, 4  # the streams of a seed
WORD = 2**32

# --- random numbers (Salmon et al. 2011; Box and Muller 1958) --------------------------------------


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """The four words of one block of Philox4x32-10."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * a, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c, WORD)
        a, b, c, d = high1 ^ b ^ k, low1, high0 ^ d ^ m, low0
        k, m = (k + 0x9E3779B9) % WORD, (m + 0xBB67AE85) % WORD
    return a, b, c, d


def words(n: int, seed: int, stream: int, step: int) -> list[int]:
    """The first ``n`` 32-bit words of a stream at a step."""
    high, low = divmod(step, WORD)
    return [word for block in range(-(-n // 4)) for word in philox((low, high, block, 0), (seed, stream))][:n]


def uniforms(shape: tuple[int, ...], seed: int, stream: int, step: int) -> np.ndarray:
    """In [0, 1): the upper 24 bits of each word."""
    return np.array([(word >> 8) / 2**24 for word in words(math.prod(shape), seed, stream, step)]).reshape(shape)


def normals(shape: tuple[int, ...], seed: int, stream: int, step: int) -> np.ndarray:
    """Standard normals: each two words give two."""
    n = math.prod(shape)
    bits = [word >> 8 for word in words(n + n % 2, seed, stream, step)]
    numbers: list[float] = []
    for first, second in zip(bits[::2], bits[1::2], strict=True):
        radius, angle = math.sqrt(-2 * math.log((first + 1) / 2**24)), 2 * math.pi * second / 2**24
        numbers += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(numbers[:n]).reshape(shape)


def order(n: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch takes ``n`` rows: a Feistel network of eight rounds, walked until it is below n."""
    bits = max(2, (n - 1).bit_length())
    high_bits, low_bits = bits // 2, bits - bits // 2
    keys = words(8, seed, ORDER, epoch)

    def network(x: int) -> int:
        high, low = divmod(x, 2**low_bits)
        for i in range(0, 8, 2):
            high ^= _mixed(low ^ keys[i]) % 2**high_bits
            low ^= _mixed(high ^ keys[i + 1]) % 2**low_bits
        return high * 2**low_bits + low

    def entry(x: int) -> int:
        x = network(x)
        while x >= n:
            x = network(x)
        return x

    return [entry(x) for x in range(n)]


def _mixed(h: int) -> int:
    """The finalizer of MurmurHash3."""
    h = (h ^ h >> 16) * 0x85EBCA6B % WORD
    h = (h ^ h >> 13) * 0xC2B2AE35 % WORD
    return h ^ h >> 16


def initial(sizes: Sequence[int], hidden: str, output: str, init: str, seed: int, first: int) -> Net:
    """Weights of layers numbered from ``first`` on, He et al. 2015 or Glorot and Bengio 2010; biases are 0."""
    net = []
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        activation = output if i == len(sizes) - 2 else hidden
        kind = init
        if init == "auto":
            kind = "he_uniform" if activation in ("relu", "leaky_relu") else "glorot_uniform"
        variance = 2 / fan_in if kind.startswith("he") else 2 / (fan_in + fan_out)
        shape, draw = (fan_in, fan_out), (seed, INIT, first + i)
        if kind.endswith("uniform"):
            W = math.sqrt(3 * variance) * (2 * uniforms(shape, *draw) - 1)
        else:
            W = math.sqrt(variance) * normals(shape, *draw)
        net.append((W, np.zeros(fan_out)))
    return net


# --- networks ------------------------------------------------------------------------------------------

Function = Callable[[np.ndarray], np.ndarray]


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, z)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-_softplus(-z))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "linear": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z: np.where(z > 0, 1, 0.2)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z: np.exp(np.minimum(z, 0))),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "softplus": (_softplus, _sigmoid),
}
"""Each activation and its derivative, both functions of z."""


def forward(net: Net, x: np.ndarray, hidden: str, output: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """``(z, y)`` of every layer."""
    layers = []
    for i, (W, b) in enumerate(net):
        z = x @ W + b
        x = ACTIVATIONS[output if i == len(net) - 1 else hidden][0](z)
        layers.append((z, x))
    return layers


def apply(net: Net, x: np.ndarray, hidden: str, output: str) -> np.ndarray:
    """The last layer's output."""
    return forward(net, x, hidden, output)[-1][1]


def backward(net: Net, x: np.ndarray, dy: np.ndarray, hidden: str, output: str) -> tuple[Net, np.ndarray]:
    """The gradients of the weights and of ``x``, from ``dy``, that of the output."""
    layers = forward(net, x, hidden, output)
    gradient: Net = []
    for i in reversed(range(len(net))):
        z = layers[i][0]
        before = layers[i - 1][1] if i else x
        dz = dy * ACTIVATIONS[output if i == len(net) - 1 else hidden][1](z)
        gradient.insert(0, (np.einsum("ri,ro->io", before, dz), np.einsum("ro->o", dz)))
        dy = np.einsum("ro,io->ri", dz, net[i][0])
    return gradient, dy


def flat(net: Net) -> np.ndarray:
    """All weights of a network, layer after layer, W before b."""
    return np.concatenate([tensor.ravel() for layer in net for tensor in layer])


# --- losses and their gradients --------------------------------------------------------------------------


Term = tuple[Function, Function]
_LOG_D = (lambda s: _softplus(-s), lambda s: -_sigmoid(-s))
_LOG_NOT_D = (_softplus, _sigmoid)


def _square_to(label: float) -> Term:
    return lambda s: (s - label) ** 2 / 2, lambda s: s - label


GAMES: dict[str, tuple[Term, Term, Term]] = {
    "non_saturating": (_LOG_D, _LOG_NOT_D, _LOG_D),
    "minimax": (_LOG_D, _LOG_NOT_D, (lambda s: -_softplus(s), lambda s: -_sigmoid(s))),
    "least_squares": (_square_to(1), _square_to(0), _square_to(1)),
    "hinge": (
        (lambda s: np.where(s < 1, 1 - s, 0), lambda s: np.where(s < 1, -1.0, 0)),
        (lambda s: np.where(s > -1, 1 + s, 0), lambda s: np.where(s > -1, 1.0, 0)),
        (lambda s: -s, lambda s: -np.ones_like(s)),
    ),
    "wasserstein": (
        (lambda s: -s, lambda s: np.full_like(s, -1)),
        (lambda s: s, lambda s: np.full_like(s, 1)),
        (lambda s: -s, lambda s: np.full_like(s, -1)),
    ),
}
"""The terms of a real logit, of a generated one, and the generator's, each with its derivative."""


def gan_discriminator(
    generator: Net, discriminator: Net, real: np.ndarray, noise: np.ndarray, hidden: str, output: str, kind: str
) -> tuple[float, Net]:
    """The discriminator's loss and its gradient. It may take several neighbouring rows as one (Lin et al. 2018)."""
    fake = apply(generator, noise, hidden, output)
    width = len(discriminator[0][0])
    real, fake = real.reshape(-1, width), fake.reshape(-1, width)
    loss, gradients = 0.0, []
    for rows, (value, slope) in zip((real, fake), GAMES[kind][:2], strict=True):
        s = apply(discriminator, rows, hidden, "linear")
        loss += float(value(s).mean())
        gradients.append(backward(discriminator, rows, slope(s) / len(s), hidden, "linear")[0])
    return loss, [(W + V, b + c) for (W, b), (V, c) in zip(*gradients, strict=True)]


def gan_generator(
    generator: Net, discriminator: Net, noise: np.ndarray, hidden: str, output: str, kind: str
) -> tuple[float, Net]:
    """The generator's loss and its gradient."""
    rows = apply(generator, noise, hidden, output)
    fake = rows.reshape(-1, len(discriminator[0][0]))
    s = apply(discriminator, fake, hidden, "linear")
    value, slope = GAMES[kind][2]
    loss, ds = value(s).mean(), slope(s) / len(s)
    _, dfake = backward(discriminator, fake, ds, hidden, "linear")
    return float(loss), backward(generator, noise, dfake.reshape(rows.shape), hidden, output)[0]


def continuous_bernoulli(logits: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``-log p(x|l)`` of each column and its derivative, from ``e^(l x)`` and its integral over [0, 1] by quadrature.

    Loaiza-Ganem and Cunningham 2019. Good for logits of up to 200: a hundred points of Gauss and Legendre.
    """
    points, widths = np.polynomial.legendre.leggauss(100)
    at, top = (points + 1) / 2, np.maximum(logits, 0)
    density = np.exp(logits[..., None] * at - top[..., None]) * widths / 2
    integral = density.sum(axis=-1)
    return top + np.log(integral) - x * logits, (density * at).sum(axis=-1) / integral - x


def reconstruction(
    likelihood: str, out: np.ndarray, x: np.ndarray, variance: Any, blocks: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """``-log p(x | z)`` of each row, and its derivative by the decoder's output; ``variance`` a number or ``[D]``."""
    if likelihood == "bernoulli":
        return (x * _softplus(-out) + (1 - x) * _softplus(out)).sum(axis=1), _sigmoid(out) - x
    if likelihood == "continuous_bernoulli":
        nats, slope = continuous_bernoulli(out, x)
        return nats.sum(axis=1), slope
    if likelihood == "gaussian":
        squares = (x - out) ** 2 / variance
        return (squares / 2 + np.log(2 * math.pi * variance) / 2).sum(axis=1), (out - x) / variance
    nats, slope, start = np.zeros(len(x)), np.empty_like(out), 0
    for width in blocks:
        block = slice(start, start + width)
        if likelihood == "mixed" and width == 1:
            v, error = np.broadcast_to(variance, out.shape[1:])[start], out[:, start] - x[:, start]
            nats += error**2 / v / 2 + np.log(2 * math.pi * v) / 2
            slope[:, start] = error / v
            start += 1
            continue
        p = np.exp(out[:, block]) / np.exp(out[:, block]).sum(axis=1, keepdims=True)
        nats -= (x[:, block] * np.log(p)).sum(axis=1)
        slope[:, block] = x[:, block].sum(axis=1, keepdims=True) * p - x[:, block]
        start += width
    return nats, slope


class VaeGradient(NamedTuple):
    """The losses that a step keeps, and its gradients; ``logvar[D]`` is that of a Gaussian's log variances."""

    terms: tuple[float, ...]
    encoder: Net
    decoder: Net
    logvar: np.ndarray


def vae(
    encoder: Net,
    decoder: Net,
    x: np.ndarray,
    eps: np.ndarray,
    hidden: str,
    likelihood: str,
    variance: Any,
    beta: float,
    free_bits: float = 0.0,
    blocks: Sequence[int] = (),
) -> VaeGradient:
    """Reconstruction term, KL and penalty, nats a row, and the gradients of the first plus the penalty.

    Kingma and Welling 2014, equation 10 and appendices B and C; beta of Higgins et al. 2017; free bits of Kingma et al.
    2016, equation 15.
    """
    rows = len(x)
    heads = apply(encoder, x, hidden, "linear")
    mu, logvar = np.split(heads, 2, axis=1)
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps
    out = apply(decoder, z, hidden, "linear")
    nats, dout = reconstruction(likelihood, out, x, variance, blocks)
    kl = ((mu**2 + sigma**2 - 1 - logvar) / 2).mean(axis=0)  # of each latent
    weight = np.where(kl > free_bits, beta, 0)
    of_decoder, dz = backward(decoder, z, dout / rows, hidden, "linear")
    dmu = dz + weight * mu / rows
    dlogvar = dz * eps * sigma / 2 + weight * (sigma**2 - 1) / (2 * rows)
    of_encoder, _ = backward(encoder, x, np.hstack([dmu, dlogvar]), hidden, "linear")
    terms = float(nats.mean()), float(kl.sum()), float(beta * np.maximum(kl, free_bits).sum())
    return VaeGradient(terms, of_encoder, of_decoder, (1 - (x - out) ** 2 / variance).mean(axis=0) / 2)


def iwae(
    encoder: Net,
    decoder: Net,
    x: np.ndarray,
    eps: np.ndarray,
    hidden: str,
    likelihood: str,
    variance: Any,
    blocks: Sequence[int] = (),
) -> VaeGradient:
    """Mean reconstruction term, mean log q(z | x) / p(z), and the loss, with the gradients of the loss.

    Burda et al. 2016, equations 8, 13 and 14, with as many draws as ``eps`` has blocks of the rows of ``x``.
    """
    draws = len(eps) // len(x)
    repeated = np.tile(x, (draws, 1))
    mu, logvar = np.split(apply(encoder, repeated, hidden, "linear"), 2, axis=1)
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps
    out = apply(decoder, z, hidden, "linear")
    nats, dout = reconstruction(likelihood, out, repeated, variance, blocks)
    ratio = (z**2 - eps**2 - logvar).sum(axis=1) / 2
    w = np.exp(-nats - ratio).reshape(draws, len(x))
    share = (w / w.sum(axis=0) / len(x)).reshape(-1, 1)  # what each draw's loss counts for
    of_decoder, dz = backward(decoder, z, dout * share, hidden, "linear")
    dmu = dz + share * z
    dlogvar = dmu * eps * sigma / 2 - share / 2
    of_encoder, _ = backward(encoder, repeated, np.hstack([dmu, dlogvar]), hidden, "linear")
    terms = float(nats.mean()), float(ratio.mean()), float(-np.log(w.mean(axis=0)).mean())
    of_logvar = (share * (1 - (repeated - out) ** 2 / variance)).sum(axis=0) / 2
    return VaeGradient(terms, of_encoder, of_decoder, of_logvar)


# --- the update --------------------------------------------------------------------------------------------


def update(p: np.ndarray, g: np.ndarray, slots: Slots, t: int, settings: Any) -> tuple[np.ndarray, Slots]:
    """Parameters and slots after update number ``t``, counted from 1; ``settings`` as ``OptimizerSettings`` has them.

    Polyak 1964; Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2; Tieleman and Hinton 2012;
    Chen et al. 2023, algorithm 2; the longest gradient of Pascanu et al. 2013, algorithm 1.
    """
    s = settings
    norm = math.sqrt(sum(float(x) ** 2 for x in g))
    if s.clip_norm and norm > s.clip_norm:
        g = g * (s.clip_norm / norm)
    if s.optimizer == "rmsprop":
        g = g + s.weight_decay * p
        v = s.beta2 * slots["v"] + (1 - s.beta2) * g**2
        velocity = s.momentum * slots["velocity"] + g / (np.sqrt(v) + s.eps)
        return p - s.learning_rate * velocity, {"velocity": velocity, "v": v}
    if s.optimizer == "lion":
        c = s.beta1 * slots["m"] + (1 - s.beta1) * g
        moved = p - s.learning_rate * (np.where(c > 0, 1.0, 0.0) - np.where(c < 0, 1.0, 0.0) + s.weight_decay * p)
        return moved, {"m": s.beta2 * slots["m"] + (1 - s.beta2) * g}
    if s.optimizer == "sgd":
        velocity = s.momentum * slots["velocity"] + g + s.weight_decay * p
        return p - s.learning_rate * velocity, {"velocity": velocity}
    m = s.beta1 * slots["m"] + (1 - s.beta1) * g
    v = s.beta2 * slots["v"] + (1 - s.beta2) * g**2
    direction = (m / (1 - s.beta1**t)) / (np.sqrt(v / (1 - s.beta2**t)) + s.eps)
    decay = s.weight_decay if s.optimizer == "adamw" else 0.0
    return p - s.learning_rate * decay * p - s.learning_rate * direction, {"m": m, "v": v}


def average_weight(t: int, decay: float) -> float:
    """Of the new parameters in their average, after ``t`` updates of it (Shamir and Zhang 2013, eta = 9)."""
    return max(10 / (t + 10), 1 - decay)


def rate(base: float, t: int, schedule: str, warmup: int, horizon: int) -> float:
    """The learning rate of step ``t``, counted from 0; Loshchilov and Hutter 2017, equation 5 for the cosine."""
    t = min(t, horizon - 1)
    if t < warmup:
        return base * (t + 1) / warmup
    past = (t - warmup) / (horizon - warmup)
    factors = {
        "constant": 1.0,
        "linear": 1 - past,
        "cosine": 0.5 * (1 + math.cos(math.pi * past)),
        "step": 0.1 if t >= 0.9 * horizon else 1.0,
    }
    return base * factors[schedule]
