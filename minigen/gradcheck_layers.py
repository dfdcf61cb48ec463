"""The derivatives of :mod:`minigen.gradcheck` of what lies between dense layers, and of conditions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck_tools import Derivative, normals, off_zero, sizes
from minigen.reference import activations, condition, dropout, maxout, normalization, self_gated, spectral_norm

MOMENTUM, EPS = 0.3, 0.1  # a small eps makes functions so steep that a difference is a poor derivative


def layer_derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    """As :func:`minigen.gradcheck.derivatives`."""
    G, R, D = sizes(rng, 3, 3, 7)
    z, c, above = normals(rng, R, D), normals(rng, R, D), normals(rng, R, D)
    for kind in self_gated.SELF_GATED:

        def gated(z: np.ndarray, kind: str = kind) -> np.floating:
            return (c * self_gated.forward(z, kind)).sum()

        def slope_along(z: np.ndarray, kind: str = kind) -> np.floating:
            return (c * above * self_gated.derivative(z, kind)).sum()

        yield "self_gated", f"{kind} curvature", slope_along, z, self_gated.curvature(c, above, z, kind)
        yield "self_gated", kind, gated, z, self_gated.backward(c, z, kind)
    yield from _batch_norm(rng, G, R, D)
    yield from _layer_norm(rng, R, D)
    x, key = normals(rng, G, R, D), (int(rng.integers(2**32)), 7, int(rng.integers(2**60)), int(rng.integers(9)), 0.4)
    above = normals(rng, G, R, D)
    yield "dropout", "backward", lambda x: (above * dropout.forward(x, *key)).sum(), x, dropout.forward(above, *key)
    dy = normals(rng, G, D)
    apart = rng.permuted(np.broadcast_to(np.arange(R)[:, None], (G, R, D)), axis=1)  # no two pieces near each other
    x = apart + 0.2 * rng.random((G, R, D))
    yield "maxout", "backward", lambda x: (dy * maxout.forward(x)).sum(), x, maxout.backward(dy, x)
    t, weights = 0.1 * rng.random((G, R, D)), np.abs(dy)  # all positive: a sum that cancels has no relative error
    along = np.array([(weights * maxout.tangent(t, x)).sum()])
    yield "maxout", "tangent", lambda far: (weights * maxout.forward(x + far[0] * t)).sum(), np.zeros(1), along
    yield _spectral_norm(rng, R, D)


def _batch_norm(rng: np.random.Generator, G: int, R: int, D: int) -> Iterator[Derivative]:
    x, above, gamma, beta = normals(rng, G, R, D), normals(rng, G, R, D), normals(rng, D), normals(rng, D)
    running = np.zeros(D), np.ones(D)
    _, mean, inv_std, *_ = normalization.batch_forward(x, gamma, beta, *running, eps=EPS)

    def total(x: np.ndarray, gamma: np.ndarray = gamma, beta: np.ndarray = beta) -> np.floating:
        return (above * normalization.batch_forward(x, gamma, beta, *running, eps=EPS)[0]).sum()

    dgamma, dbeta = normalization.batch_wgrad(above, x, mean, inv_std)
    yield "normalization", "batch dgrad", total, x, normalization.batch_dgrad(above, x, gamma, mean, inv_std)
    yield "normalization", "batch wgrad dgamma", lambda gamma: total(x, gamma), gamma, dgamma
    yield "normalization", "batch wgrad dbeta", lambda beta: total(x, beta=beta), beta, dbeta


def _layer_norm(rng: np.random.Generator, B: int, D: int) -> Iterator[Derivative]:
    above, gamma, beta = normals(rng, B, D), normals(rng, D), normals(rng, D)
    # Apart: where a row's numbers are nearly equal, so much is divided by so little that differences tell nothing.
    x = rng.permuted(np.broadcast_to(np.arange(D), (B, D)), axis=1) + 0.2 * rng.random((B, D))
    _, mean, inv_std = normalization.layer_forward(x, gamma, beta, EPS)

    def total(x: np.ndarray, gamma: np.ndarray = gamma, beta: np.ndarray = beta) -> np.floating:
        return (above * normalization.layer_forward(x, gamma, beta, EPS)[0]).sum()

    dgamma, dbeta = normalization.layer_wgrad(above, x, mean, inv_std)
    yield "normalization", "layer dgrad", total, x, normalization.layer_dgrad(above, x, gamma, mean, inv_std)
    yield "normalization", "layer wgrad dgamma", lambda gamma: total(x, gamma), gamma, dgamma
    yield "normalization", "layer wgrad dbeta", lambda beta: total(x, beta=beta), beta, dbeta
    t = normals(rng, B, D)

    def moved(x: np.ndarray, gamma: np.ndarray = gamma) -> np.floating:
        _, mean, inv_std = normalization.layer_forward(x, gamma, beta, EPS)
        return (above * normalization.layer_tangent(t, x, gamma, mean, inv_std)).sum()

    curvature = normalization.layer_curvature(above, t, x, gamma, mean, inv_std)
    tangent = normalization.layer_tangent(t, x, gamma, mean, inv_std)

    def along(far: np.ndarray) -> np.floating:  # weights that no sum cancels with
        return (tangent * normalization.layer_forward(x + far[0] * t, gamma, beta, EPS)[0]).sum()

    yield "normalization", "layer tangent", along, np.zeros(1), np.array([(tangent**2).sum()])
    dgamma = normalization.layer_tangent_wgrad(above, t, x, mean, inv_std)
    yield "normalization", "layer tangent wgrad", lambda gamma: moved(x, gamma), gamma, dgamma
    yield "normalization", "layer curvature", moved, x, curvature


def _spectral_norm(rng: np.random.Generator, C: int, D: int) -> Derivative:
    """With ``u`` and ``v`` as constants, of which the iteration's are two of many."""
    W, above, u = normals(rng, C, D), normals(rng, C, D), normals(rng, D)
    u, v, sigma, normalized = spectral_norm.forward(W, u / np.linalg.norm(u))

    def total(W: np.ndarray) -> np.floating:
        return (above * W / (v @ W @ u)).sum()

    return "spectral_norm", "backward", total, W, spectral_norm.backward(above, normalized, u, v, sigma)


def condition_derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    """As :func:`minigen.gradcheck.derivatives`."""
    B, D, N = sizes(rng, 3, 1, 6)
    z, e, E, c = normals(rng, B, D), normals(rng, B, D), normals(rng, N, D), normals(rng, B, D)
    labels, s = rng.integers(0, N, B, np.int32), normals(rng, B, 1)
    yield "condition", "class sums", lambda E: (c * (z + E[labels])).sum(), E, condition.class_sums(c, labels, N)
    of_e = condition.projection_wgrad(z, s)
    yield "condition", "projection wgrad", lambda e: (s * condition.projection_forward(z, e)).sum(), e, of_e
    for name in DENSE_ACTIVATIONS:

        def logits(before: np.ndarray, name: str = name) -> np.floating:
            return (s * condition.projection_forward(activations.forward(before, name), e)).sum()

        before = off_zero(rng, B, D)
        y = activations.forward(before, name)
        yield "condition", f"projection dgrad {name}", logits, before, condition.projection_dgrad(s, e, y, name)
