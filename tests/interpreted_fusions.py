"""Fused launches against the operations that they replace, on Triton's interpreter: run by test_cuda_interpreter.py.

Each test spells a few operations out twice: as a captured step of the CUDA backend, whose memory holds NaN before, and
in float64 on the NumPy reference. The results must agree, and the step must have been fused as expected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import without_gpu

from helpers import normals, relative_error
from minigen.backend import DENSE_ACTIVATIONS
from minigen.cuda.backend import PRECISIONS
from minigen.cuda.plan import tiles
from minigen.reference_backend import NumpyBackend

TOLERANCE = 3e-6
STEP = 2**33 + 5
ADAM = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-6}


class Spelled:
    """The buffers of one test on a backend, by attribute; ``ops`` is the backend."""

    def __init__(self, ops: Any, **buffers: Any) -> None:
        self.ops = ops
        for name, value in {"step": np.array([STEP], np.uint64), **buffers}.items():
            setattr(self, name, self.place(value))

    def place(self, value: Any) -> Any:
        """A shape becomes an uninitialised buffer, an array a buffer that holds it."""
        if isinstance(value, tuple):
            return self.ops.empty(value)
        return self.ops.upload(value.astype(self.ops.dtype) if value.dtype.kind == "f" else value)


def check(step: Any, results: str, fused: str, launches: int | None = None, **buffers: Any) -> Any:
    """Capture ``step``, run it once, and compare the buffers named in ``results``; returns the schedule."""
    ours, reference = Spelled(without_gpu(), **buffers), Spelled(NumpyBackend(np.float64), **buffers)
    program = ours.ops.capture(lambda: step(ours))
    program.run(1)
    step(reference)
    for name in results.split():
        found, expected = ours.ops.download(getattr(ours, name)), getattr(reference, name)
        assert np.isfinite(found).all(), name
        assert relative_error(found, expected) < TOLERANCE, (name, found, expected)
    assert set(fused.split()) <= {op.name for op in program.schedule.fused}, str(program.schedule)
    if launches is not None:
        assert len(program.schedule.launches) == launches, str(program.schedule)
    return program.schedule


def odd(rng: np.random.Generator, count: int, most: int = 70) -> list[int]:
    """Random sizes, seldom multiples of anything."""
    return [int(n) for n in rng.integers(1, most, count)]


@pytest.mark.parametrize("multiple", [1, 4])
def test_noise_drawn_by_the_layer_that_takes_it(rng, multiple):
    """Four elements share a block of Philox: rows that begin with one and rows that do not."""
    B, n_in, n_out = odd(rng, 3)
    n_in *= multiple

    def step(s):
        s.ops.random_normal(s.noise, 2**32 - 3, 2, s.step)
        s.ops.dense_forward(s.noise, s.W, s.b, s.y, "tanh")
        s.ops.dense_wgrad(s.noise, s.y, s.dW, s.db)

    weights = {"W": normals(rng, n_in, n_out) / 8, "b": normals(rng, n_out), "dW": (n_in, n_out), "db": (n_out,)}
    check(step, "noise y dW db", "dense_forward_of_noise", 2, noise=(B, n_in), y=(B, n_out), **weights)


def test_noise_that_nobody_else_reads_is_not_stored(rng):
    B, n_in, n_out = odd(rng, 3)

    def step(s):
        s.ops.random_normal(s.noise, 7, 2, s.step)
        s.ops.dense_forward(s.noise, s.W, s.b, s.y, "relu")

    buffers = {"noise": (B, n_in), "W": normals(rng, n_in, n_out), "b": normals(rng, n_out), "y": (B, n_out)}
    schedule = check(step, "y", "dense_forward_of_noise", 1, **buffers)
    assert [buffer.shape for buffer in schedule.unwritten] == [(B, n_in)]
    assert not np.any(schedule.unwritten[0])  # cleared, not what was in the memory before


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_batch_gathered_by_the_layer_that_takes_it(rng, dtype):
    N, D, n_out = odd(rng, 3)
    N, B = N + 70, 33
    data = rng.integers(0, 256, (N, D)).astype(dtype)

    def step(s):
        s.ops.batch_indices(s.indices, N, 5, 1, s.step, B, N // B)
        s.ops.batch_gather(s.data, s.indices, s.x, 2 / 255, -1.0)
        s.ops.dense_forward(s.x, s.W, s.b, s.y, "sigmoid")
        s.ops.dense_wgrad(s.x, s.y, s.dW, s.db)

    weights = {"W": normals(rng, D, n_out) / 8, "b": normals(rng, n_out), "dW": (D, n_out), "db": (n_out,)}
    buffers = {"indices": np.zeros(B, np.int32), "data": data, "x": (B, D), "y": (B, n_out), **weights}
    check(step, "x y dW db", "dense_forward_of_batch", 2, **buffers)


@pytest.mark.parametrize("fuse", [True, False])
def test_bad_indices(rng, fuse):
    """A step past the end of the epoch, and a row that is not in the data: index -1, and NaN in place of the row."""
    ops = without_gpu(fuse=fuse)
    data, step = ops.upload(rng.integers(0, 256, (10, 7), np.uint8)), ops.upload(np.array([2], np.uint64))
    indices, out = ops.empty((4,), np.int32), ops.empty((4, 7))
    ops.batch_indices(indices, 10, 1, 1, step, 4, 3)
    assert (indices[:2] >= 0).all() and (indices[2:] == -1).all()

    def take():
        ops.batch_indices(indices, 10, 1, 1, step, 4, 3)
        ops.batch_gather(data, indices, out)

    ops.capture(take).run(1)
    assert np.isfinite(out[:2]).all() and np.isnan(out[2:]).all()
    ops.batch_gather(data, ops.upload(np.array([0, 10, -1, 9], np.int32)), out)
    assert np.isfinite(out[[0, 3]]).all() and np.isnan(out[1:3]).all()


@pytest.mark.parametrize("loss", ["discriminator", "non_saturating", "minimax"])
@pytest.mark.parametrize("optimizer", [None, "sgd", "adam"])
def test_head_of_the_discriminator(rng, loss, optimizer):
    """Two hidden layers: the delta of the second goes into a weight gradient and on to the first."""
    B, D, H1, H2 = odd(rng, 4)
    H2 += 40  # several tiles wide: the logit is a sum of shares
    B = 150 if optimizer is None else B + 1  # three blocks of rows: sums go on from one to the next
    activation = str(rng.choice(DENSE_ACTIVATIONS))
    shapes = [(D, H1), (H1,), (H1, H2), (H2,), (H2, 1), (1,)]
    flat, views = packed(shapes)

    def step(s):
        W1, b1, W2, b2, W3, b3 = (s.p[v].reshape(shape) for v, shape in zip(views, shapes, strict=True))
        dW1, db1, dW2, db2, dW3, db3 = (s.g[v].reshape(shape) for v, shape in zip(views, shapes, strict=True))
        s.ops.dense_forward(s.x, W1, b1, s.h1, activation)
        s.ops.dense_forward(s.h1, W2, b2, s.h2, activation)
        s.ops.dense_forward(s.h2, W3, b3, s.s, "linear")
        if loss == "discriminator":
            s.ops.gan_loss_discriminator(s.s, B // 2, s.ds, s.loss)
        else:
            s.ops.gan_loss_generator(s.s, s.ds, s.loss, loss)
        s.ops.dense_wgrad(s.h2, s.ds, dW3, db3)
        s.ops.dense_dgrad(s.ds, W3, s.dh2, s.h2, activation)
        s.ops.dense_wgrad(s.h1, s.dh2, dW2, db2)
        s.ops.dense_dgrad(s.dh2, W2, s.dh1, s.h1, activation)
        s.ops.dense_wgrad(s.x, s.dh1, dW1, db1)
        update(s, optimizer)

    buffers = {
        **state(rng, flat, views),
        "g": np.zeros(flat),
        "lr": np.array([0.01]),
        "x": normals(rng, B, D),
        "h1": (B, H1),
        "h2": (B, H2),
        "s": (B, 1),
        "ds": (B, 1),
        "dh2": (B, H2),
        "dh1": (B, H1),
        "loss": (1,),
    }
    results = "loss g dh1" if optimizer is None else "loss p m dh1" + " v" * (optimizer == "adam")
    schedule = check(step, results, "gan_head", None, **buffers)
    names = [op.name for op in schedule.fused]
    assert ("copy" in names) == (optimizer is not None)  # the head's weights are updated beside those who read them
    assert "gan_loss" not in names and names.count("dense_forward") == 2


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_reconstruction_loss_in_the_last_layer(rng, likelihood):
    B, H, D = odd(rng, 3)
    D += 40

    def step(s):
        s.ops.dense_forward(s.h, s.W, s.b, s.output)
        if likelihood == "bernoulli":
            s.ops.vae_loss(s.output, s.x, s.doutput, s.rows, s.loss, "bernoulli")
        else:
            s.ops.vae_loss(s.output, s.x, s.doutput, s.rows, s.loss, "gaussian", 0.3)

    buffers = {
        "h": normals(rng, B, H),
        "W": normals(rng, H, D),
        "b": normals(rng, D),
        "output": (B, D),
        "doutput": (B, D),
        "x": rng.random((B, D)),
        "rows": (B,),
        "loss": (1,),
    }
    check(step, "doutput rows loss", "dense_forward_reconstruction", 2, **buffers)


@pytest.mark.parametrize("latent", [1, 3, 20, 33])
def test_through_the_latent_layer_and_back(rng, latent):
    """Forward: heads, sample, KL and decoder in one launch. Backward: the same three layers in another."""
    B, n_in, n_out = odd(rng, 3)
    if latent == 1 and n_in == 1:  # dW would be two numbers: where both sums nearly cancel, no float32 is near enough
        n_in = 17

    def step(s):
        s.ops.dense_forward(s.x, s.W, s.b, s.heads)
        s.ops.random_normal(s.eps, 9, 4, s.step)
        s.ops.latent_forward(s.heads, s.eps, s.z, s.rows, s.loss)
        s.ops.dense_forward(s.z, s.W_decoder, s.b_decoder, s.y, "relu")
        s.ops.dense_dgrad(s.y, s.W_decoder, s.dz)
        s.ops.latent_backward(s.dz, s.heads, s.eps, s.weights, s.dheads)
        s.ops.dense_wgrad(s.x, s.dheads, s.dW, s.db)
        s.ops.dense_dgrad(s.dheads, s.W, s.dx, s.x, "tanh")

    buffers = {
        "x": np.tanh(normals(rng, B, n_in)),
        "W": normals(rng, n_in, 2 * latent) / 8,
        "b": normals(rng, 2 * latent),
        "heads": (B, 2 * latent),
        "eps": (B, latent),
        "z": (B, latent),
        "rows": (B,),
        "loss": (1,),
        "dz": (B, latent),
        "W_decoder": normals(rng, latent, n_out),
        "b_decoder": normals(rng, n_out),
        "y": (B, n_out),
        "dheads": (B, 2 * latent),
        "weights": rng.random(latent),
        "dx": (B, n_in),
        "dW": (n_in, 2 * latent),
        "db": (2 * latent,),
    }
    fused = "latent_sample_and_decode latent_backward_through"
    check(step, "heads eps z rows loss y dheads dx dW", fused, 3, **buffers)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "lion"])
@pytest.mark.parametrize("slices", [1, 3])
def test_update_in_the_gradient(rng, monkeypatch, optimizer, slices):
    """The gradient never reaches memory; with slices it is summed in a second pass. A third parameter, whose gradient
    the step does not compute, is updated as well, and zeros between two parameters stay zero without a job."""
    monkeypatch.setattr(tiles, "batch_slices", lambda *shape: slices)
    B, n_in, n_out = odd(rng, 3)
    B += 100
    shapes = [(n_in, n_out), (n_out,), (int(rng.integers(1, 20)),)]
    flat, (W, b, other) = packed(shapes)

    def step(s):
        s.ops.dense_wgrad(s.x, s.dz, s.g[W].reshape(n_in, n_out), s.g[b])
        update(s, optimizer)
        s.ops.advance(s.step, s.losses, s.history)

    buffers = {
        **state(rng, flat, (W, b, other)),
        "g": between(normals(rng, flat), (W, b, other)),
        "lr": np.array([0.01]),
        "x": normals(rng, B, n_in),
        "dz": normals(rng, B, n_out),
        "losses": normals(rng, 2),
        "history": np.ones((5, 2)),
    }
    results = "p m step history" + " v" * (optimizer not in ("sgd", "lion"))
    schedule = check(step, results, "dense_wgrad", None, **buffers)
    assert all(op["optimizer"] for op in schedule.fused if op.name != "advance")
    assert all(op["steps_ahead"] == 1 for op in schedule.fused if op["optimizer"] == "adam")
    assert sum(op.name == "optimizer" for op in schedule.fused) == 1


def test_a_step_that_is_counted_before_it_draws(rng):
    """The counter moves on as soon as the losses are there, and whoever draws later still draws for this step."""
    N, B, L = 40, 9, 3

    def step(s):
        s.ops.random_uniform(s.uniforms, 7, 3, s.step)
        s.ops.random_normal(s.noise, 7, 2, s.step)
        s.ops.dense_forward(s.noise, s.W, s.b, s.y, "tanh")
        s.ops.batch_indices(s.indices, N, 5, 1, s.step, B, 4)
        s.ops.batch_indices(s.chosen, N, 6, 1, s.step, B, 4)
        s.ops.batch_gather(s.data, s.chosen, s.rows)
        s.ops.batch_indices(s.taken, N, 8, 1, s.step, B, 4)
        s.ops.batch_gather(s.data, s.taken, s.x)
        s.ops.dense_forward(s.x, s.W, s.b, s.y2, "tanh")
        for heads, eps, z, kl, loss in ((s.heads, s.eps, s.z, s.kl, s.loss), (s.heads2, s.eps2, s.z2, s.kl2, s.loss2)):
            if heads is s.heads2:
                s.ops.dense_forward(s.data, s.W_heads, s.b_heads, heads)
            s.ops.random_normal(eps, 9, 4, s.step)
            s.ops.latent_forward(heads, eps, z, kl, loss)
        s.ops.dense_forward(s.z2, s.W_decoder, s.b, s.y3, "tanh")
        s.ops.advance(s.step, s.losses, s.history)

    latents = {
        f"{name}{k}": shape
        for k in ("", "2")
        for name, shape in (("eps", (N, L)), ("z", (N, L)), ("kl", (N,)), ("loss", (1,)))
    }
    places = {name: np.zeros(B, np.int32) for name in ("indices", "chosen", "taken")}
    weights = {"W": normals(rng, 5, 4), "b": normals(rng, 4), "W_heads": normals(rng, 5, 2 * L)}
    buffers = {
        "uniforms": (11,),
        "noise": (B, 5),
        "y": (B, 4),
        "data": normals(rng, N, 5),
        "rows": (B, 5),
        "x": (B, 5),
        "y2": (B, 4),
        "heads": normals(rng, N, 2 * L),
        "heads2": (N, 2 * L),
        "b_heads": normals(rng, 2 * L),
        "W_decoder": normals(rng, L, 4),
        "y3": (N, 4),
        "losses": normals(rng, 2),
        "history": np.ones((5, 2)),
        **latents,
        **places,
        **weights,
    }
    results = "uniforms y indices rows y2 eps z kl loss eps2 z2 kl2 loss2 y3 step history"
    fused = "dense_forward_of_noise batch_take dense_forward_of_batch latent_forward_of_noise latent_sample_and_decode"
    schedule = check(step, results, f"random_uniform batch_indices {fused}", None, **buffers)
    draws = [op for op in schedule.fused if op["step"] is not None and op.name != "advance"]
    assert [op["steps_ahead"] for op in draws] == [1] * 7, str(schedule)


def test_a_gradient_that_somebody_else_reads_is_stored(rng):
    """Then the update stays a launch of its own."""

    def step(s):
        s.ops.dense_wgrad(s.x, s.dz, s.g[:15].reshape(5, 3), s.g[15:])
        s.ops.sgd(s.p, s.g, s.m, s.lr)
        s.ops.activation_forward(s.g, s.y, "tanh")

    buffers = {"p": normals(rng, 18), "g": (18,), "m": normals(rng, 18), "lr": np.array([0.1]), "y": (18,)}
    schedule = check(step, "p g m y", "optimizer", 2, x=normals(rng, 7, 5), dz=normals(rng, 7, 3), **buffers)
    assert [op["optimizer"] for op in schedule.fused if op.name == "dense_wgrad"] == [None]


def test_a_buffer_used_twice_is_given_a_second_place(rng):
    """The second noise does not wait for the readers of the first."""

    def step(s):
        for stream, y in ((2, s.y), (3, s.z)):
            s.ops.random_normal(s.noise, 7, stream, s.step)
            s.ops.dense_forward(s.noise, s.W, s.b, y)

    weights = {"W": normals(rng, 9, 5), "b": normals(rng, 5)}
    schedule = check(step, "y z", "dense_forward_of_noise", 1, noise=(6, 9), y=(6, 5), z=(6, 5), **weights)
    assert len(schedule.launches[0].fuses) == 4


def test_state_keeps_its_place(rng):
    """What a step reads before it writes belongs to the next step too."""

    def step(s):
        s.ops.activation_forward(s.x, s.y, "tanh")
        s.ops.activation_forward(s.y, s.x, "sigmoid")
        s.ops.activation_forward(s.x, s.y, "softplus")

    check(step, "x y", "activation_forward", 3, x=normals(rng, 50), y=(50,))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(rng, precision):
    """tf32x3 and bf16x6 are as good as float32, the others within what rounding the factors explains."""
    ops = without_gpu(precision=precision)
    x, W, b = (a.astype(np.float32) for a in (normals(rng, 37, 90), normals(rng, 90, 21), normals(rng, 21)))
    y, dx, dW, db = ops.empty((37, 21)), ops.empty((37, 90)), ops.empty((90, 21)), ops.empty((21,))
    ops.dense_forward(x, W, b, y)
    ops.dense_dgrad(y, W, dx)
    ops.dense_wgrad(x, y, dW, db)
    errors = [relative_error(y, x.astype(float) @ W + b), relative_error(dx, y.astype(float) @ W.T)]
    errors.append(relative_error(dW, x.T.astype(float) @ y))
    shortened = {"bf16x3": (1e-6, 2e-5), "tf32": (1e-5, 1e-3), "bf16": (1e-3, 1e-2)}
    low, high = shortened.get(precision, (0, 1e-6))
    assert all(low < error < high for error in errors), errors
    x.view(np.uint32)[3, 5], x[8, 13] = 0x7FFFFFFF, np.inf  # a NaN that rounds to another number
    ops.dense_forward(x, W, b, y)
    assert not np.isfinite(y[[3, 8]]).any() and np.isfinite(y).all(1).sum() == 35


def test_large_product(rng):
    """Every class of tiles but the largest, edges in all three directions."""
    ops = without_gpu()
    B, n_in, n_out = 130, 131, 67
    x, W, b = (a.astype(np.float32) for a in (normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, n_out)))
    for kind in ("130x131x67", "some", "many"):
        chosen = {name: tiles.default(name, kind, 90, "ieee") for name in tiles.OPERATIONS}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiles, "choose", lambda operation, *shape, chosen=chosen, **told: chosen[operation])
            y, dx, dW, db = ops.empty((B, n_out)), ops.empty((B, n_in)), ops.empty((n_in, n_out)), ops.empty((n_out,))
            ops.dense_forward(x, W, b, y)
            ops.dense_dgrad(y, W, dx)
            ops.dense_wgrad(x, y, dW, db)
        assert relative_error(y, x.astype(float) @ W + b) < TOLERANCE
        assert relative_error(dx, y.astype(float) @ W.T) < TOLERANCE
        assert relative_error(dW, x.T.astype(float) @ y) < TOLERANCE


def packed(shapes: list[tuple[int, ...]]) -> tuple[int, list[slice]]:
    """Places of arrays in a flat buffer, each at a multiple of 16: its size, and where each lies."""
    places, end = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        places.append(slice(end, end + size))
        end += -(-size // 16) * 16
    return end, places


def between(values: np.ndarray, places: list[slice]) -> np.ndarray:
    """``values`` with zeros between the places of :func:`packed`."""
    kept = np.zeros_like(values)
    for place in places:
        kept[place] = values[place]
    return kept


def state(rng: np.random.Generator, size: int, places: list[slice]) -> dict[str, np.ndarray]:
    """Weights and moments. No second one is next to 0, where Adam divides by what rounding leaves of a gradient."""
    p, m, v = normals(rng, size) / 4, normals(rng, size) / 9, normals(rng, size) ** 2 + 0.1
    return {name: between(values, places) for name, values in (("p", p), ("m", m), ("v", v))}


def update(s: Spelled, optimizer: str | None) -> None:
    """One update of p from g."""
    if optimizer == "sgd":
        s.ops.sgd(s.p, s.g, s.m, s.lr, 0.9, 0.1)
    elif optimizer == "adam":
        s.ops.adam(s.p, s.g, s.m, s.v, s.lr, s.step, **ADAM)
    elif optimizer == "adamw":
        s.ops.adamw(s.p, s.g, s.m, s.v, s.lr, s.step, **ADAM, weight_decay=0.05)
    elif optimizer == "rmsprop":
        s.ops.rmsprop(s.p, s.g, s.m, s.v, s.lr, 0.9, 1e-3, 0.8, 0.05)
    elif optimizer == "lion":
        s.ops.lion(s.p, s.g, s.m, s.lr, 0.9, 0.99, 0.05)
