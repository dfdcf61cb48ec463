"""Are the gradients right? Every derivative of the reference against finite differences, every backend against it.

Two tables hold the operations:

- :func:`derivatives`: a function of the float64 reference, a point, and the reference's gradient there. It is compared
  with central differences, which know nothing of the derivation.
- :func:`operations`: a call on a backend, and what the float64 reference gives. Every backend runs it into buffers that
  are poisoned with NaN, so an entry that is never written shows.

:mod:`minigen.gradcheck_formulas` compares the values of the reference, and :mod:`minigen.gradcheck_steps` whole steps
of a GAN and a VAE, with the formulas written out once more. Every line of the report knows the formula, and
the file that has it, that is wrong where the line fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minigen.backend import DENSE_ACTIVATIONS, GAN_LOSSES, SCHEDULES, Array, Backend
from minigen.gradcheck_condition import condition_derivatives, condition_operations
from minigen.gradcheck_formulas import check_values, formula_of
from minigen.gradcheck_layers import layer_derivatives, layer_operations
from minigen.gradcheck_steps import check_backend, check_reference, check_steps
from minigen.gradcheck_tools import (
    BACKEND_TOLERANCE,
    DIFFERENCES_TOLERANCE,
    Derivative,
    InOut,
    Operation,
    Out,
    Row,
    differences,
    normals,
    off_zero,
    relative_error,
    sizes,
)
from minigen.gradcheck_vae import vae_derivatives, vae_operations
from minigen.reference import (
    activations,
    averaging,
    batch,
    clipping,
    dense,
    gan_loss,
    gumbel_softmax,
    optimizer,
    penalty,
    random,
    schedule,
)
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
            formula = formula_of(operation, check, backend.name)
            rows.append(Row(operation, backend.name, f"{check} vs float64 reference", error, tolerance, formula))
        rows.extend(check_backend(backend, rng))
        rows.extend(check_steps(backend, backend.name, int(rng.integers(1, 2**32))))
    return rows


# --- tools ------------------------------------------------------------------------------------


def call(backend: Backend, method: str, *arguments: Any) -> list[np.ndarray]:
    """Call ``backend.method`` and return what it wrote into its :class:`Out` and :class:`InOut` arguments.

    Floating arrays are uploaded in the backend's dtype, integer arrays as they are, other arguments are passed on.
    """
    buffers = [_place(backend, argument) for argument in arguments]
    getattr(backend, method)(*buffers)
    return [
        backend.download(buffer)
        for argument, buffer in zip(arguments, buffers, strict=True)
        if isinstance(argument, (Out, InOut))
    ]


def _place(backend: Backend, argument: Any) -> Array:
    if isinstance(argument, Out):
        dtype = np.dtype(backend.dtype if argument.dtype is None else argument.dtype)
        argument = np.full(argument.shape, np.nan if dtype.kind == "f" else -1, dtype)
    elif isinstance(argument, InOut):
        argument = argument.array
    if not isinstance(argument, np.ndarray):
        return argument
    return backend.upload(argument.astype(backend.dtype) if argument.dtype.kind == "f" else argument)


# --- the tables -------------------------------------------------------------------------------


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


def operations(rng: np.random.Generator) -> Iterator[Operation]:
    """(operation, what, method of the backend, its arguments, outputs of the float64 reference) of every operation."""
    yield from _dense_operations(rng)
    yield from layer_operations(rng)
    yield from _gan_operations(rng)
    yield from vae_operations(rng)
    yield from _optimizer_operations(rng)
    yield from _training_operations(rng)
    yield from _random_operations(rng)
    yield from condition_operations(rng)


def _dense_operations(rng: np.random.Generator) -> Iterator[Operation]:
    B, n_in, n_out = sizes(rng, 3, 9, 70)
    x, W, b, dz = normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, n_out), normals(rng, B, n_out)
    z, dy = normals(rng, B, n_in), normals(rng, B, n_in)
    yield "dense", "wgrad", "dense_wgrad", (x, dz, Out(n_in, n_out), Out(n_out)), [*dense.wgrad(x, dz)]
    for name in DENSE_ACTIVATIONS:
        y = activations.forward(z, name).astype(np.float32).astype(np.float64)
        yield (
            "dense",
            f"forward {name}",
            "dense_forward",
            (x, W, b, Out(B, n_out), name),
            [dense.forward(x, W, b, name)],
        )
        yield ("dense", f"dgrad {name}", "dense_dgrad", (dz, W, Out(B, n_in), y, name), [dense.dgrad(dz, W, y, name)])
        yield (
            "activations",
            f"forward {name}",
            "activation_forward",
            (z, Out(B, n_in), name),
            [activations.forward(z, name)],
        )
        yield (
            "activations",
            f"backward {name}",
            "activation_backward",
            (dy, y, Out(B, n_in), name),
            [activations.backward(dy, y, name)],
        )
        e = activations.curvature(dy, z, y, name)
        yield ("penalty", f"curvature {name}", "activation_curvature", (dy, z, y, Out(B, n_in), name), [e])


def _gan_operations(rng: np.random.Generator) -> Iterator[Operation]:
    n_real, n_fake, D = sizes(rng, 3, 9, 70)
    B = n_real + n_fake
    s = 5 * normals(rng, B, 1)
    generated = s - 4  # shifted, so that the means of logits, which some losses are, do not cancel
    s[:n_real] -= 8
    outputs = Out(B, 1), Out(1)
    for kind in GAN_LOSSES:
        loss, dlogits = gan_loss.discriminator(s, n_real, kind)
        arguments = (s, n_real, *outputs, kind)
        yield "gan_loss", f"discriminator {kind}", "gan_loss_discriminator", arguments, [dlogits, [loss]]
        loss, dlogits = gan_loss.generator(generated, kind)
        yield "gan_loss", f"generator {kind}", "gan_loss_generator", (generated, *outputs, kind), [dlogits, [loss]]
    loss, dlogits = gan_loss.discriminator(s, n_real, GAN_LOSSES[0], 0.2)
    smoothed = (s, n_real, *outputs, GAN_LOSSES[0], 0.2)
    yield "gan_loss", "discriminator with label smoothing", "gan_loss_discriminator", smoothed, [dlogits, [loss]]
    g, other, u = normals(rng, B, D), normals(rng, B, D), rng.random(B, np.float32).astype(np.float64)
    for kind in PENALTIES:
        v, rows, loss = penalty.penalty(g, kind, 0.7)
        yield "penalty", kind, "gradient_penalty", (g, Out(B, D), Out(B), Out(1), kind, 0.7), [v, rows, [loss]]
    mixed = penalty.interpolate(g, other, u)
    yield "penalty", "interpolate", "interpolate", (g, other, u, Out(B, D)), [mixed]
    ends, uniforms = np.array([1, D // 2, D - 1, D], np.int32), rng.random((B, D), np.float32).astype(np.float64)
    for name in ("linear", "tanh", "sigmoid"):
        y = gumbel_softmax.forward(g, uniforms, ends, name, 0.7)
        given: tuple[Any, ...] = (g, uniforms, ends, Out(B, D), name, 0.7)
        yield "gumbel_softmax", f"forward {name}", "gumbel_softmax_forward", given, [y]
        y = y.astype(np.float32).astype(np.float64)
        dz = gumbel_softmax.backward(other, y, ends, name, 0.7)
        given = (other, y, ends, Out(B, D), name, 0.7)
        yield "gumbel_softmax", f"backward {name}", "gumbel_softmax_backward", given, [dz]
    given = (g, None, ends, Out(B, D), "tanh", 0.7)
    expected = [gumbel_softmax.forward(g, None, ends, "tanh", 0.7)]
    yield "gumbel_softmax", "without noise", "gumbel_softmax_forward", given, expected


def _optimizer_operations(rng: np.random.Generator) -> Iterator[Operation]:
    (n,) = sizes(rng, 1, 9, 5000)
    p, g, m, v = normals(rng, n), normals(rng, n), normals(rng, n), normals(rng, n) ** 2
    v = v.astype(np.float32).astype(np.float64)
    lr, step = np.array([2.0**-7]), np.array([9], np.uint64)
    state = InOut(p), g, InOut(m)
    yield "optimizer", "clip", "clip", (InOut(p), 0.5), [optimizer.clip(p, 0.5)]
    yield "optimizer", "sgd", "sgd", (*state, lr, 0.9, 0.01), [*optimizer.sgd(p, g, m, 2.0**-7, 0.9, 0.01)]
    yield (
        "optimizer",
        "rmsprop",
        "rmsprop",
        (*state, InOut(v), lr, 0.9, 1e-3, 0.5, 0.01),
        [*optimizer.rmsprop(p, g, m, v, 2.0**-7, 0.9, 1e-3, 0.5, 0.01)],
    )
    yield (
        "optimizer",
        "lion",
        "lion",
        (*state, lr, 0.9, 0.99, 0.01),
        [*optimizer.lion(p, g, m, 2.0**-7, 0.9, 0.99, 0.01)],
    )
    yield "optimizer", "adam", "adam", (*state, InOut(v), lr, step), [*optimizer.adam(p, g, m, v, 2.0**-7, 10)]
    yield "optimizer", "adamw", "adamw", (*state, InOut(v), lr, step), [*optimizer.adamw(p, g, m, v, 2.0**-7, 10)]


def _training_operations(rng: np.random.Generator) -> Iterator[Operation]:
    (n,) = sizes(rng, 1, 9, 5000)
    p, mean, base = normals(rng, n), normals(rng, n), np.array([2.0**-7])
    for what, most in (("longer", 1.0), ("shorter", 1e4)):
        clipped, norm = clipping.clip_norm(p, most)
        yield "clipping", what, "clip_norm", (InOut(p), Out(1), most), [clipped, np.array([norm])]
    for t in (0, 9, 10_000):
        averaged = InOut(mean), p, np.array([t], np.uint64), 0.999
        yield "averaging", f"step {t}", "average", averaged, [averaging.average(mean, p, t, 0.999)]
    for kind in SCHEDULES:
        t = int(rng.integers(0, 120))
        rate = schedule.rate(2.0**-7, t, kind, 7, 100)
        arguments = Out(1), base, np.array([t], np.uint64), kind, 7, 100
        yield "schedule", f"{kind}, step {t}", "scheduled_rate", arguments, [np.array([rate])]


def _random_operations(rng: np.random.Generator) -> Iterator[Operation]:
    B, D, n = sizes(rng, 3, 9, 70)
    seed, now = int(rng.integers(2**32)), int(rng.integers(2**60))
    step = np.array([now], np.uint64)
    for name, draw in (("uniform", random.uniform), ("normal", random.normal)):
        yield (
            "random",
            name,
            f"random_{name}",
            (Out(B, D), seed, random.LATENT, step),
            [draw((B, D), seed, random.LATENT, now, np.float64)],
        )
    x, noise, early = normals(rng, B, D), normals(rng, B, D), np.array([3], np.uint64)
    noisy = random.add_noise(x, noise, 3, 0.3, 5)
    yield "random", "add noise", "add_noise", (x, noise, early, Out(B, D), 0.3, 5), [noisy]
    order = seed, random.ORDER
    yield (
        "batch",
        "indices",
        "batch_indices",
        (Out(n, dtype=np.int32), n, *order, step, n, 1),
        [batch.indices(n, n, *order, now, n, 1)],
    )
    data, rows = rng.integers(0, 256, (n, D), np.uint8), rng.integers(0, n, B, np.int32)
    yield (
        "batch",
        "gather uint8",
        "batch_gather",
        (data, rows, Out(B, D), 2 / 255, -1.0),
        [batch.gather(data, rows, np.dtype(np.float64), 2 / 255, -1.0)],
    )
