"""The rows of :mod:`minigen.gradcheck` of a VAE: likelihoods, the latent, importance weighted draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigen.backend import LIKELIHOODS
from minigen.gradcheck_tools import Derivative, InOut, Operation, Out, normals, off_zero, sizes
from minigen.reference import categorical_loss, gaussian_loss, importance, latent, mixed_loss, vae_loss


def vae_derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    """As :func:`minigen.gradcheck.derivatives`."""
    B, D = sizes(rng, 2, 1, 6)
    z = off_zero(rng, B, D)
    target = rng.random((B, D))
    for likelihood in LIKELIHOODS:

        def reconstruction(output: np.ndarray, likelihood: str = likelihood) -> np.floating:
            return vae_loss.forward(output, target, likelihood, 0.3)[1]

        yield "vae_loss", likelihood, reconstruction, z, vae_loss.forward(z, target, likelihood, 0.3)[2]

    for V in (D, 1):
        logvar = normals(rng, V)

        def of_means(mean: np.ndarray, logvar: np.ndarray = logvar) -> np.floating:
            return gaussian_loss.forward(mean, target, logvar)[1]

        def of_logvar(logvar: np.ndarray) -> np.floating:
            return gaussian_loss.forward(z, target, logvar)[1]

        dmean = gaussian_loss.forward(z, target, logvar)[2]
        yield "gaussian_loss", f"means, variances {V}", of_means, z, dmean
        gradient = gaussian_loss.logvar_gradient(dmean, z, target, logvar)
        yield "gaussian_loss", f"logvar, variances {V}", of_logvar, logvar, gradient

    logits, labels, ends = normals(rng, B, D + 4), rng.random((B, D + 4)), np.array([1, 3, D + 4])

    def cross_entropy(logits: np.ndarray) -> np.floating:
        return categorical_loss.forward(logits, labels, ends)[1]

    yield "categorical_loss", "logits", cross_entropy, logits, categorical_loss.forward(logits, labels, ends)[2]
    ends = np.array([1, 3, 4, D + 4])
    for V in (D + 4, 1):
        logvar = normals(rng, V)

        def of_output(output: np.ndarray, logvar: np.ndarray = logvar, ends: np.ndarray = ends) -> np.floating:
            return mixed_loss.forward(output, labels, ends, logvar)[1]

        def of_variances(logvar: np.ndarray, ends: np.ndarray = ends) -> np.floating:
            return mixed_loss.forward(logits, labels, ends, logvar)[1]

        doutput = mixed_loss.forward(logits, labels, ends, logvar)[2]
        yield "mixed_loss", f"output, variances {V}", of_output, logits, doutput
        gradient = mixed_loss.logvar_gradient(doutput, logits, labels, ends, logvar)
        yield "mixed_loss", f"logvar, variances {V}", of_variances, logvar, gradient

    heads, eps, dz, beta = normals(rng, B, 2 * D), normals(rng, B, D), normals(rng, B, D), 0.7

    def latent_total(heads: np.ndarray) -> np.floating:
        z, _, kl = latent.forward(heads, eps)
        return (dz * z).sum() + beta * kl

    yield "latent", "backward", latent_total, heads, latent.backward(dz, heads, eps, beta)
    # Each latent's mean KL is far from the next one's: where it passes the free bits there is a kink.
    apart = np.hstack([1 + np.arange(D) + 0.2 * rng.random((B, D)), 0.2 * rng.random((B, D))])
    mean_kl = (apart[:, :D] ** 2 + np.expm1(apart[:, D:]) - apart[:, D:]).mean(axis=0) / 2
    middle = np.sort(np.append(mean_kl, 0))[-2:].mean()  # the last latent is not within the free bits, the others are
    free_bits = float(middle)

    def freed(heads: np.ndarray) -> np.floating:
        return latent.kl_weights(heads, beta, free_bits)[1]

    weights = latent.kl_weights(apart, beta, free_bits)[0]
    yield "latent", "free bits", freed, apart, latent.backward(0 * dz, apart, eps, weights)

    draws = 3
    noise, seen = normals(rng, draws * B, D), normals(rng, draws * B, D)

    def bound(heads: np.ndarray) -> np.floating:
        z, ratios, _ = importance.sample(heads, noise)
        return importance.weights(_squares(z, seen), ratios, draws)[1]

    z, ratios, _ = importance.sample(heads, noise)
    shares = importance.weights(_squares(z, seen), ratios, draws)[0]
    through = (z - seen) * shares[:, None] / len(z)
    yield "importance", "bound", bound, heads, importance.backward(through, z, heads, noise, shares)


def _squares(z: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What stands for the decoder's loss of each draw."""
    return ((z - seen) ** 2).sum(axis=1) / 2


def vae_operations(rng: np.random.Generator) -> Iterator[Operation]:
    """As :func:`minigen.gradcheck.operations`."""
    yield from _likelihood_operations(rng)
    yield from _latent_operations(rng)
    yield from _importance_operations(rng)


def _likelihood_operations(rng: np.random.Generator) -> Iterator[Operation]:
    B, D = sizes(rng, 2, 9, 70)
    output, x = normals(rng, B, D), rng.random((B, D), np.float32).astype(np.float64)
    for likelihood in LIKELIHOODS:
        rows, loss, doutput = vae_loss.forward(output, x, likelihood, 0.3)
        terms = (output, x, Out(B, D), Out(B), Out(1), likelihood, 0.3)
        yield "vae_loss", likelihood, "vae_loss", terms, [doutput, rows, [loss]]
    for V in (D, 1):
        logvar = normals(rng, V)
        rows, loss, doutput = gaussian_loss.forward(output, x, logvar)
        given: tuple[Any, ...] = (output, x, logvar, Out(B, D), Out(B), Out(1))
        yield "gaussian_loss", f"means, variances {V}", "gaussian_loss", given, [doutput, rows, [loss]]
        doutput = doutput.astype(np.float32).astype(np.float64)
        expected = gaussian_loss.logvar_gradient(doutput, output, x, logvar)
        given = (doutput, output, x, logvar, Out(V))
        yield "gaussian_loss", f"logvar, variances {V}", "gaussian_logvar_gradient", given, [expected]
    ends = np.array([1, D // 2, D], np.int32)
    rows, loss, doutput = categorical_loss.forward(output, x, ends)
    given = (output, x, ends, Out(B, D), Out(B), Out(1))
    yield "categorical_loss", "logits", "categorical_loss", given, [doutput, rows, [loss]]
    ends = np.array([1, 2, D - 2, D - 1, D], np.int32)
    for V in (D, 1):
        logvar = normals(rng, V)
        rows, loss, doutput = mixed_loss.forward(output, x, ends, logvar)
        given = (output, x, ends, logvar, Out(B, D), Out(B), Out(1))
        yield "mixed_loss", f"output, variances {V}", "mixed_loss", given, [doutput, rows, [loss]]
        doutput = doutput.astype(np.float32).astype(np.float64)
        expected = mixed_loss.logvar_gradient(doutput, output, x, ends, logvar)
        given = (doutput, output, x, ends, logvar, Out(V))
        yield "mixed_loss", f"logvar, variances {V}", "mixed_logvar_gradient", given, [expected]


def _latent_operations(rng: np.random.Generator) -> Iterator[Operation]:
    B, L = sizes(rng, 2, 9, 70)
    heads, eps, dz, weights = normals(rng, B, 2 * L), normals(rng, B, L), normals(rng, B, L), normals(rng, L)
    z, rows, loss = latent.forward(heads, eps)
    yield "latent", "forward", "latent_forward", (heads, eps, Out(B, L), Out(B), Out(1)), [z, rows, [loss]]
    yield (
        "latent",
        "backward",
        "latent_backward",
        (dz, heads, eps, weights, Out(B, 2 * L)),
        [latent.backward(dz, heads, eps, weights)],
    )
    beta, free_bits = np.array([0.75]), 0.8
    expected = latent.kl_weights(heads, beta[0], free_bits)
    yield "latent", "free bits", "kl_weights", (heads, beta, Out(L), Out(1), free_bits), [expected[0], [expected[1]]]
    step = np.array([3], np.uint64)
    yield "latent", "warm-up", "ramp", (step, Out(1), 1.5, 7), [[latent.ramp(3, 1.5, 7)]]


def _importance_operations(rng: np.random.Generator) -> Iterator[Operation]:
    B, L, draws = *sizes(rng, 2, 9, 70), 3
    R = draws * B
    heads, x = normals(rng, B, 2 * L), normals(rng, B, L)
    eps, dz, z, nats, ratios = normals(rng, R, L), normals(rng, R, L), normals(rng, R, L), *normals(rng, 2, R)
    yield "importance", "rows", "repeat_rows", (x, Out(R, L)), [importance.repeat(x, R)]
    drawn = importance.sample(heads, eps)
    given: tuple[Any, ...] = (heads, eps, Out(R, L), Out(R), Out(1))
    yield "importance", "sample", "importance_sample", given, [drawn[0], drawn[1], [drawn[2]]]
    shares, loss = importance.weights(nats, ratios, draws)
    yield "importance", "weights", "importance_weights", (nats, ratios, Out(R), Out(1), draws), [shares, [loss]]
    yield "importance", "scaling", "scale_rows", (InOut(z), nats), [z * nats[:, None]]
    given = (dz, z, heads, eps, nats, Out(B, 2 * L))
    yield "importance", "backward", "importance_backward", given, [importance.backward(dz, z, heads, eps, nats)]
