"""optimizer: every backend against the float64 reference, that against PyTorch's optimizers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigen
from helpers import InOut, Out, assert_close, f32, normals, refuses_bad_buffers, relative_error, tolerance, use_threads
from minigen.reference import clipping, optimizer
from models import blobs

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


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.01), (0.5, 0.1)])
def test_rmsprop(arena, rng, momentum, decay):
    for n in LENGTHS:
        p, g, velocity, v = normals(rng, n), normals(rng, n), normals(rng, n), f32(normals(rng, n) ** 2)
        settings = 0.9, 1e-3, momentum, decay
        outputs = arena.call("rmsprop", InOut(p), g, InOut(velocity), InOut(v), lr(), *settings)
        expected = optimizer.rmsprop(p, g, velocity, v, LR, *settings)
        check(arena.backend, outputs, expected, (p, velocity, v), g)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lion(arena, rng, decay):
    for n in LENGTHS:
        p, g, m = normals(rng, n), normals(rng, n), normals(rng, n)
        m[::3] = g[::3] = 0  # whose sign is 0
        m[1::3] = np.abs(m[1::3]) * np.sign(g[1::3])  # no blend is so near 0 that rounding has its sign
        g[2::3] = 100 * np.copysign(1 + np.abs(g[2::3]), g[2::3])
        outputs = arena.call("lion", InOut(p), g, InOut(m), lr(), 0.9, 0.99, decay)
        check(arena.backend, outputs, optimizer.lion(p, g, m, LR, 0.9, 0.99, decay), (p, m), g)


def test_lion_moves_every_parameter_by_the_rate_or_not_at_all(arena):
    """From m = 0 by lr sign(g)."""
    g = np.array([1e-30, -1e3, 0.0, 2.0, -1e-12])
    p, m = arena.call("lion", InOut(np.zeros(5)), g, InOut(np.zeros(5)), lr(), 0.9, 0.99, 0.0)
    np.testing.assert_array_equal(p, -LR * np.sign(g))
    np.testing.assert_allclose(m, 0.01 * g, rtol=1e-5)


@pytest.mark.parametrize("most", [1e-3, 1.0, 1e6])
def test_clip_norm(arena, rng, most):
    for n in (*LENGTHS, 4095, 4097, 20_000):
        g = normals(rng, n)
        clipped, norm = arena.call("clip_norm", InOut(g), Out(1), most)
        expected, length = clipping.clip_norm(g, most)
        assert_close(arena.backend, norm, [length])
        assert_close(arena.backend, clipped, expected)
        if length <= most:
            np.testing.assert_array_equal(clipped, g.astype(arena.backend.dtype))


@pytest.mark.parametrize("size", [1e25, 1e-25])
def test_clip_norm_of_gradients_whose_squares_no_float32_holds(arena, rng, size):
    g = f32(size * normals(rng, 3000))
    clipped, norm = arena.call("clip_norm", InOut(g), Out(1), 2.0)
    assert_close(arena.backend, norm, [np.linalg.norm(g)])
    assert_close(arena.backend, clipped, g * min(1, 2 / np.linalg.norm(g)))


def test_clip_norm_leaves_what_is_not_finite_to_be_found(arena, rng):
    for bad in (np.nan, np.inf):
        g = normals(rng, 2500)
        g[1234] = bad
        clipped, norm = arena.call("clip_norm", InOut(g), Out(1), 1.0)
        assert not np.isfinite(clipped[1234]) and not np.isfinite(norm[0])


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
    rules = (
        ("sgd", (lr(),)),
        ("adam", (InOut(ones), lr(), step(3))),
        ("rmsprop", (InOut(ones), lr())),
        ("lion", (lr(),)),
    )
    for name, more in rules:
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
        ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-3, "momentum": 0.8, "weight_decay": 0.01}),
        ("rmsprop", torch.optim.RMSprop, {}),
        ("adam", torch.optim.Adam, {"betas": (0.5, 0.99), "eps": 1e-6}),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.1}),
    ):
        p = normals(rng, 50)
        tensor = torch.tensor(p, requires_grad=True)
        torch_optimizer = theirs([tensor], lr=0.01, **settings)
        state = [np.zeros(50)] if ours == "sgd" else [np.zeros(50), np.zeros(50)]
        options = {name: value for name, value in settings.items() if name != "betas"}
        if "alpha" in options:
            options["beta2"] = options.pop("alpha")
        if "betas" in settings:
            options["beta1"], options["beta2"] = settings["betas"]
        for t in range(1, 21):
            g = normals(rng, 50)
            tensor.grad = torch.tensor(g)
            torch_optimizer.step()
            time = [t] if ours in ("adam", "adamw") else []
            p, *state = getattr(optimizer, ours)(p, g, *state, 0.01, *time, **options)
        assert relative_error(p, tensor.detach().numpy()) < 1e-12, ours


def test_lion_of_the_reference_is_its_papers(rng):
    """Algorithm 2 of Chen et al. 2023, number by number."""
    p, m = normals(rng, 6), np.zeros(6)
    theta, mean, rate, beta1, beta2, decay = list(p), [0.0] * 6, 0.01, 0.9, 0.99, 0.1
    for _ in range(20):
        g = normals(rng, 6)
        p, m = optimizer.lion(p, g, m, rate, beta1, beta2, decay)
        for i in range(6):
            c = beta1 * mean[i] + (1 - beta1) * g[i]
            theta[i] -= rate * (math.copysign(1, c) + decay * theta[i])
            mean[i] = beta2 * mean[i] + (1 - beta2) * g[i]
    assert relative_error(p, np.array(theta)) < 1e-12


def test_clip_norm_is_pytorchs(rng):
    torch = pytest.importorskip("torch")
    for most in (0.5, 100.0):
        tensors = [torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (3, 40)]
        for tensor in tensors:
            tensor.grad = torch.tensor(normals(rng, len(tensor)))
        g = np.concatenate([tensor.grad.numpy() for tensor in tensors])
        norm = torch.nn.utils.clip_grad_norm_(tensors, most)
        clipped, length = clipping.clip_norm(g, most)
        assert length == pytest.approx(norm.item(), rel=1e-12)
        theirs = np.concatenate([tensor.grad.numpy() for tensor in tensors])
        np.testing.assert_allclose(clipped, theirs, rtol=1e-5)  # PyTorch adds 1e-6 to the norm


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


@pytest.mark.parametrize("name", ["rmsprop", "lion"])
@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_a_training_goes_on_from_its_file_to_the_bit(family, name, tmp_path):
    settings = {"hidden": (7,), "latent_dim": 3, "batch_size": 16, "optimizer": name, "clip_norm": 0.3}
    X = blobs(50)
    whole = family(**settings, epochs=3).fit(X, progress=False)
    half = family(**settings, epochs=2).fit(X, progress=False)
    half.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m").partial_fit(X, epochs=1, progress=False)
    for key, value in whole._state.items():
        assert value.tobytes() == loaded._state[key].tobytes(), key


def test_a_bad_clip_norm_is_refused():
    for bad in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="clip_norm must be a finite number in"):
            minigen.VAE(clip_norm=bad).fit(blobs())


def test_the_bits_of_a_norm_do_not_depend_on_the_threads(rng):
    cpu = pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    before, g, found = cpu.get_num_threads(), normals(rng, 3_000_001).astype(np.float32), set()
    try:
        for threads in (1, 2, 3, 5):
            use_threads(threads)
            clipped, norm = g.copy(), np.empty(1, np.float32)
            cpu.CpuBackend().clip_norm(clipped, norm, 1.0)
            found.add((norm.tobytes(), clipped.tobytes()))
    finally:
        cpu.set_num_threads(before)
    assert len(found) == 1
