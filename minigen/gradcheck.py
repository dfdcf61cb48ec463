"""Are the gradients right? Every derivative of the reference against finite differences, every backend against it.

Two tables hold the operations:

- :func:`derivatives`: a function of the float64 reference, a point, and the reference's gradient there. It is compared
  with central differences, which know nothing of the derivation.
- :func:`~minigen.gradcheck_operations.operations`: calls on a backend, made from the rows of :mod:`minigen.ops`, and
  what the float64 reference gives. Every backend runs them into buffers that are poisoned with NaN, so an entry that is
  never written shows.

:mod:`minigen.gradcheck_formulas` compares the values of the reference, and :mod:`minigen.gradcheck_steps` whole steps
of a GAN and a VAE, with the formulas written out once more. Every line of the report knows the formula, and
the file that has it, that is wrong where the line fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from minigen.backend import DENSE_ACTIVATIONS, GAN_LOSSES, Backend
from minigen.gradcheck_formulas import check_values, formula_of, of_device
from minigen.gradcheck_layers import condition_derivatives, layer_derivatives
from minigen.gradcheck_operations import call, operations
from minigen.gradcheck_steps import check_backend, check_reference, check_steps
from minigen.gradcheck_tools import (
    BACKEND_TOLERANCE,
    DIFFERENCES_TOLERANCE,
    Derivative,
    Row,
    differences,
    normals,
    off_zero,
    relative_error,
    sizes,
)
from minigen.gradcheck_vae import vae_derivatives
from minigen.reference import activations, dense, gan_loss, gumbel_softmax, penalty
from minigen.reference.penalty import PENALTIES
from minigen.reference_backend import NumpyBackend


def run(backends: Iterable[Backend], seed: int | None = None) -> list[Row]:
    """All checks at random points: the reference itself, then each of ``backends``. ``seed`` None draws a fresh one."""
    rng = np.random.default_rng(seed)
    rows = [
        Row(
            operation,
            "reference",
            f"{check} vs central differences",
            relative_error(gradient, differences(f, point)),
            DIFFERENCES_TOLERANCE,
            formula_of(operation, check),
        )
        for operation, check, f, point, gradient in derivatives(rng)
    ]
    rows.extend(check_values(rng))
    rows.extend(check_reference(rng))
    rows.extend(check_steps(NumpyBackend(np.float64), "reference", int(rng.integers(1, 2**32))))
    for backend in backends:
        tolerance = BACKEND_TOLERANCE[backend.dtype.name]
        for operation, check, method, arguments, expected in operations(rng):
            outputs = call(backend, method, *arguments)
            error = float(np.max([relative_error(out, ref) for out, ref in zip(outputs, expected, strict=True)]))
            formula = of_device(backend.name, operation, method)
            rows.append(Row(operation, backend.name, f"{check} vs float64 reference", error, tolerance, formula))
        rows.extend(check_backend(backend, rng))
        rows.extend(check_steps(backend, backend.name, int(rng.integers(1, 2**32))))
    return rows


def derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    """(operation, what, scalar function, point, gradient by the reference) of every differentiable operation.

    An output that is an array is made a scalar by weights ``c``, which then are the gradient that comes from above.
    """
    B, n_in, n_out = sizes(rng, 3, 1, 6)
    x, W, b, c = normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, n_out), normals(rng, B, n_out)
    yield "dense", "dgrad", lambda x: (c * dense.forward(x, W, b)).sum(), x, dense.dgrad(c, W)
    yield "dense", "wgrad dW", lambda W: (c * dense.forward(x, W, b)).sum(), W, dense.wgrad(x, c)[0]
    yield "dense", "wgrad db", lambda b: (c * dense.forward(x, W, b)).sum(), b, dense.wgrad(x, c)[1]

    z = off_zero(rng, B, n_in)
    for name in DENSE_ACTIVATIONS:

        def layers(z: np.ndarray, name: str = name) -> np.floating:
            return (c * dense.forward(activations.forward(z, name), W, b)).sum()

        def elementwise(z: np.ndarray, name: str = name) -> np.floating:
            return (x * activations.forward(z, name)).sum()

        y = activations.forward(z, name)
        yield "dense", f"dgrad through {name}", layers, z, dense.dgrad(c, W, y, name)
        yield "activations", name, elementwise, z, activations.backward(x, y, name)

    n_real, n_fake = sizes(rng, 2, 1, 6)
    s = 3 * normals(rng, n_real + n_fake, 1)
    s = np.where(np.abs(s) < 1, 0.9 * s, s + 0.1 * np.sign(s))  # away from 1 and -1, where a loss may have a kink
    for kind in GAN_LOSSES:

        def discriminator(s: np.ndarray, kind: str = kind) -> np.floating:
            return gan_loss.discriminator(s, n_real, kind)[0]

        def generator(s: np.ndarray, kind: str = kind) -> np.floating:
            return gan_loss.generator(s, kind)[0]

        yield "gan_loss", f"discriminator {kind}", discriminator, s, gan_loss.discriminator(s, n_real, kind)[1]
        yield "gan_loss", f"generator {kind}", generator, s, gan_loss.generator(s, kind)[1]

    def smoothed(s: np.ndarray) -> np.floating:
        return gan_loss.discriminator(s, n_real, "non_saturating", 0.2)[0]

    smooth = gan_loss.discriminator(s, n_real, "non_saturating", 0.2)[1]
    yield "gan_loss", "discriminator with label smoothing", smoothed, s, smooth
    yield from _penalty_derivatives(rng)
    yield from _table_derivatives(rng)

    yield from vae_derivatives(rng)
    yield from layer_derivatives(rng)
    yield from condition_derivatives(rng)


def _penalty_derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    B, D = sizes(rng, 2, 1, 6)
    g, dy, moved, z = normals(rng, B, D), normals(rng, B, D), normals(rng, B, D), off_zero(rng, B, D)
    g /= 0.2 + np.linalg.norm(g, axis=1, keepdims=True)  # no norm near 0, where it has a kink
    for kind in PENALTIES:

        def mean(g: np.ndarray, kind: str = kind) -> np.floating:
            return penalty.penalty(g, kind, 0.7)[2]

        yield "penalty", kind, mean, g, penalty.penalty(g, kind, 0.7)[0]
    for name in DENSE_ACTIVATIONS:

        def tangent(z: np.ndarray, name: str = name) -> np.floating:
            return (dy * activations.backward(moved, activations.forward(z, name), name)).sum()

        y = activations.forward(z, name)
        dz = activations.backward(dy, y, name)
        yield "penalty", f"curvature {name}", tangent, z, activations.curvature(dz, moved, y, name)


def _table_derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    (B,), ends = sizes(rng, 1, 1, 6), np.array([1, 4, 5, 7])
    z, c, u = off_zero(rng, B, 7), normals(rng, B, 7), rng.random((B, 7), np.float32).astype(np.float64)
    for name in ("linear", "tanh", "sigmoid"):

        def weighed(z: np.ndarray, name: str = name) -> np.floating:
            return (c * gumbel_softmax.forward(z, u, ends, name, 0.7)).sum()

        y = gumbel_softmax.forward(z, u, ends, name, 0.7)
        yield "gumbel_softmax", name, weighed, z, gumbel_softmax.backward(c, y, ends, name, 0.7)
