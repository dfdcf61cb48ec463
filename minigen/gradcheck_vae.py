"""The derivatives of :mod:`minigen.gradcheck` of a VAE: likelihoods, the latent, importance weighted draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minigen.backend import LIKELIHOODS
from minigen.gradcheck_tools import Derivative, normals, off_zero, sizes
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
