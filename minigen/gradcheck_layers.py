"""The rows of :mod:`minigen.gradcheck` of what lies between dense layers: :mod:`minigen.ops_layers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck_tools import Derivative, InOut, Operation, Out, normals, sizes
from minigen.reference import dropout, maxout, normalization, self_gated, spectral_norm

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


def layer_operations(rng: np.random.Generator, scale: int = 1) -> Iterator[Operation]:
    """As :func:`minigen.gradcheck.operations`, with ``scale`` times as many rows."""
    G, R, D = (int(n) for n in rng.integers((2, 9, 9), (4, 50, 70)))
    R *= scale
    z, dy = normals(rng, R, D), normals(rng, R, D)
    for kind in self_gated.SELF_GATED:
        forward, backward = self_gated.forward(z, kind), self_gated.backward(dy, z, kind)
        yield "self_gated", f"{kind} forward", "self_gated_forward", (z, Out(R, D), kind), [forward]
        yield "self_gated", f"{kind} backward", "self_gated_backward", (dy, z, Out(R, D), kind), [backward]
        along, held = normals(rng, R, D), normals(rng, R, D)
        bent = self_gated.curvature(dy, along, z, kind)
        yield "self_gated", f"{kind} curvature", "self_gated_curvature", (dy, along, z, Out(R, D), kind), [bent]
        arguments: tuple[Any, ...] = (dy, along, z, InOut(held), kind, True)
        yield "self_gated", f"{kind} curvature, added", "self_gated_curvature", arguments, [held + bent]
    yield from _normalizations(rng, G, R, D)
    seed, step, first = int(rng.integers(2**32)), int(rng.integers(2**60)), int(rng.integers(100))
    dropped = dropout.forward(z, seed, 1029, step, first, 0.3)
    arguments = (z, Out(R, D), seed, 1029, np.array([step], np.uint64), first, 0.3)
    yield "dropout", "forward", "dropout", arguments, [dropped]
    x = normals(rng, R, G, D)
    yield "maxout", "forward", "maxout_forward", (x, Out(R, D)), [maxout.forward(x)]
    yield "maxout", "backward", "maxout_backward", (dy, x, Out(R, G, D)), [maxout.backward(dy, x)]
    t = normals(rng, R, G, D)
    yield "maxout", "tangent", "maxout_tangent", (t, x, Out(R, D)), [maxout.tangent(t, x)]
    W, u = normals(rng, R, D), normals(rng, D)
    for iterate in (True, False):
        outputs = (InOut(u), Out(R), Out(1), Out(R, D), iterate)
        yield "spectral_norm", "forward", "spectral_norm", (W, *outputs), [*spectral_norm.forward(W, u, iterate)]
    made = [normals(rng, R, D), normals(rng, D), normals(rng, R), np.array([1.5])]
    gradient = [spectral_norm.backward(dy, *made)]
    yield "spectral_norm", "backward", "spectral_norm_backward", (dy, *made, Out(R, D)), gradient
    expected = [W + gradient[0]]
    yield "spectral_norm", "backward, added", "spectral_norm_backward", (dy, *made, InOut(W), True), expected


def _normalizations(rng: np.random.Generator, G: int, R: int, D: int) -> Iterator[Operation]:
    x, dz, gamma, beta = normals(rng, G, R, D), normals(rng, G, R, D), normals(rng, D), normals(rng, D)
    r, s = normals(rng, D), (normals(rng, D) ** 2).astype(np.float32).astype(np.float64)
    outputs: tuple[Any, ...] = (Out(G, R, D), Out(G, D), Out(G, D), InOut(r), InOut(s))
    forward: Callable[..., Any] = normalization.batch_forward
    for activation in DENSE_ACTIVATIONS:
        settings = (MOMENTUM, EPS, activation)
        expected = [*forward(x, gamma, beta, r, s, *settings)]
        arguments = (x, gamma, beta, *outputs, *settings)
        yield "normalization", f"batch forward {activation}", "batch_norm_forward", arguments, expected
    infer = (x[0], gamma, beta, r, s)
    expected = [normalization.batch_infer(*infer, EPS, "tanh")]
    yield "normalization", "batch infer", "batch_norm_infer", (*infer, Out(R, D), EPS, "tanh"), expected
    statistics = normals(rng, G, D), normals(rng, G, D)
    expected = [normalization.batch_dgrad(dz, x, gamma, *statistics)]
    yield "normalization", "batch dgrad", "batch_norm_dgrad", (dz, x, gamma, *statistics, Out(G, R, D)), expected
    expected = [*normalization.batch_wgrad(dz, x, *statistics)]
    yield "normalization", "batch wgrad", "batch_norm_wgrad", (dz, x, *statistics, Out(D), Out(D)), expected
    x, dz, statistics = x[0], dz[0], (normals(rng, R), normals(rng, R))
    expected = [*normalization.layer_forward(x, gamma, beta, EPS, "elu")]
    arguments = (x, gamma, beta, Out(R, D), Out(R), Out(R), EPS, "elu")
    yield "normalization", "layer forward", "layer_norm_forward", arguments, expected
    expected = [normalization.layer_dgrad(dz, x, gamma, *statistics)]
    yield "normalization", "layer dgrad", "layer_norm_dgrad", (dz, x, gamma, *statistics, Out(R, D)), expected
    expected = [*normalization.layer_wgrad(dz, x, *statistics)]
    yield "normalization", "layer wgrad", "layer_norm_wgrad", (dz, x, *statistics, Out(D), Out(D)), expected
    held = InOut(gamma), InOut(beta)
    expected = [gamma + expected[0], beta + expected[1]]
    yield "normalization", "layer wgrad, added", "layer_norm_wgrad", (dz, x, *statistics, *held, True), expected
    t, held_x = normals(rng, R, D), normals(rng, R, D)
    expected = [normalization.layer_tangent(t, x, gamma, *statistics)]
    yield "normalization", "layer tangent", "layer_norm_tangent", (t, x, gamma, *statistics, Out(R, D)), expected
    expected = [gamma + normalization.layer_tangent_wgrad(dz, t, x, *statistics)]
    arguments = (dz, t, x, *statistics, InOut(gamma))
    yield "normalization", "layer tangent wgrad", "layer_norm_tangent_wgrad", arguments, expected
    bent = normalization.layer_curvature(dz, t, x, gamma, *statistics)
    arguments = (dz, t, x, gamma, *statistics)
    yield "normalization", "layer curvature", "layer_norm_curvature", (*arguments, Out(R, D)), [bent]
    added = (*arguments, InOut(held_x), True)
    yield "normalization", "layer curvature, added", "layer_norm_curvature", added, [held_x + bent]
