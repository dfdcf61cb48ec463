"""optimizer: every backend against the float64 reference, that against PyTorch's optimizers."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import InOut, Out, assert_close, f32, normals, refuses_bad_buffers, relative_error, tolerance
from minigen.reference import optimizer

LENGTHS = (0, 1, 2, 15, 17, 63, 1000, 5003)
LR = 2.0**-7
"""A learning rate that float32 holds exactly."""


def lr(value=LR):
    return np.array([value])


def step(t):
    return np.array([t - 1], np.uint64)


def check(backend, outputs, references, state, g):
    """The new values, to the precision of the numbers that they were added up from."""
    for out, reference, before in zip(outputs, references, state, strict=True):
        assert_close(backend, out, reference, np.abs(before) + np.abs(reference) + np.abs(g))


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.01), (0.5, 0.1)])
def test_sgd(arena, rng, momentum, decay):
    for n in LENGTHS:
        p, g, velocity = (normals(rng, n) for _ in range(3))
        outputs = arena.call("sgd", InOut(p), g, InOut(velocity), lr(), momentum, decay)
        check(arena.backend, outputs, optimizer.sgd(p, g, velocity, LR, momentum, decay), (p, velocity), g)


@pytest.mark.parametrize("t", [1, 2, 10, 1000, 2**33, 2**63])
def test_adam_and_adamw(arena, rng, t):
    for n in LENGTHS:
        p, g, m, v = normals(rng, n), normals(rng, n), normals(rng, n), f32(normals(rng, n) ** 2)
        settings = [("adam", ()), ("adam", (0.5, 0.99, 1e-6)), ("adamw", ()), ("adamw", (0.9, 0.99, 1e-8, 0.3))]
        for name, extra in settings:
            outputs = arena.call(name, InOut(p), g, InOut(m), InOut(v), lr(), step(t), *extra)
            check(arena.backend, outputs, getattr(optimizer, name)(p, g, m, v, LR, t, *extra), (p, m, v), g)


def test_first_step_moves_by_the_learning_rate(arena, rng):
    """From m = v = 0 the corrected means are g and g^2, so p moves by lr sign(g), however small g is."""
    g = np.array([1e-3, -1e-3, 1.0, -50.0, 1e3])
    p, m, v = arena.call("adam", InOut(np.zeros(5)), g, InOut(np.zeros(5)), InOut(np.zeros(5)), lr(), step(1))
    np.testing.assert_allclose(p, -LR * np.sign(g), rtol=1.1e-5)
    g = g.astype(arena.backend.dtype).astype(np.float64)
    np.testing.assert_allclose(m, 0.1 * g, rtol=tolerance(arena.backend))
    np.testing.assert_allclose(v, 1e-3 * g**2, rtol=tolerance(arena.backend))


def test_no_gradient_no_move(arena):
    zero = np.zeros(33)
    p, m, v = arena.call("adam", InOut(np.ones(33)), zero, InOut(zero), InOut(zero), lr(), step(1))
    assert (p == 1).all() and not m.any() and not v.any()


def test_nan_passes_through(arena, rng):
    g = normals(rng, 35)
    g[[0, 34]] = np.nan
    ones = np.ones(35)
    for name, more in (("sgd", (lr(),)), ("adam", (InOut(ones), lr(), step(3)))):
        for out in arena.call(name, InOut(ones), g, InOut(ones), *more):
            assert np.flatnonzero(np.isnan(out)).tolist() == [0, 34]


def test_learning_rate_and_step_are_read_at_each_call(backend):
    """They live in memory, so that a captured program sees them change."""
    p, g, m, v = (backend.upload(np.full(3, x, backend.dtype)) for x in (0, 1, 0, 0))
    rate, now = backend.upload(np.array([0.5], backend.dtype)), backend.upload(np.zeros(1, np.uint64))
    history, losses = backend.upload(np.zeros((4, 1), backend.dtype)), backend.upload(np.zeros(1, backend.dtype))

    def update():
        backend.adam(p, g, m, v, rate, now)
        backend.advance(now, losses, history)

    program = backend.capture(update)
    assert not backend.download(p).any() and backend.download(now)[0] == 0, "capturing alone runs nothing"
    program.run(1)
    first = backend.download(p)
    backend.upload(np.array([0.25], backend.dtype), out=rate)
    program.run(2)
    np.testing.assert_allclose(first, -0.5, rtol=1e-6)
    np.testing.assert_allclose(backend.download(p), -1.0, rtol=1e-6)
    assert backend.download(now)[0] == 3


def test_trajectories_of_the_reference_against_pytorch(rng):
    """Twenty updates from the same gradients."""
    torch = pytest.importorskip("torch")
    for ours, theirs, settings in (
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
        ("sgd", torch.optim.SGD, {}),
        ("adam", torch.optim.Adam, {"betas": (0.5, 0.99), "eps": 1e-6}),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.1}),
    ):
        p = normals(rng, 50)
        tensor = torch.tensor(p, requires_grad=True)
        torch_optimizer = theirs([tensor], lr=0.01, **settings)
        state = [np.zeros(50)] if ours == "sgd" else [np.zeros(50), np.zeros(50)]
        options = {name: value for name, value in settings.items() if name != "betas"}
        if "betas" in settings:
            options["beta1"], options["beta2"] = settings["betas"]
        for t in range(1, 21):
            g = normals(rng, 50)
            tensor.grad = torch.tensor(g)
            torch_optimizer.step()
            time = [] if ours == "sgd" else [t]
            p, *state = getattr(optimizer, ours)(p, g, *state, 0.01, *time, **options)
        assert relative_error(p, tensor.detach().numpy()) < 1e-12, ours


def test_reference_keeps_the_dtype_and_its_arguments(rng):
    p, g, m, v = (np.abs(normals(rng, 9)).astype(np.float32) for _ in range(4))
    before = [a.copy() for a in (p, g, m, v)]
    for out in (*optimizer.sgd(p, g, m, 0.01, 0.9, 0.1), *optimizer.adamw(p, g, m, v, 0.01, 3)):
        assert out.dtype == np.float32
    for array, old in zip((p, g, m, v), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_bad_buffers_are_refused(backend, rng):
    state = {"p": InOut(normals(rng, 9)), "g": normals(rng, 9), "lr": lr()}
    refuses_bad_buffers(backend, "sgd", **state, velocity=Out(9), momentum=0.9)
    for name in ("adam", "adamw"):
        refuses_bad_buffers(backend, name, **state, m=Out(9), v=Out(9), step=step(1))
