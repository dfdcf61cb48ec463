"""Normalization, dropout, maxout, spectral norm and the self-gated activations: what tests/test_ops.py, which holds
every device against the reference, does not know of them."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import InOut, Out, assert_close, f32, normals, use_threads
from minigen import ops_layers
from minigen.gradcheck_operations import call, operations
from minigen.reference import dropout, maxout, normalization, random, self_gated, spectral_norm

STEP = np.array([3], np.uint64)


def test_every_operation_against_the_reference(arena, rng):
    for _, check, method, arguments, expected in operations(rng, of=ops_layers.LayerOperations):
        got = arena.call(method, *arguments)
        for out, reference in zip(got, expected, strict=True):
            assert not np.isnan(out).any(), check
            assert_close(arena.backend, out, reference, np.abs(reference) + 0.1)


def torch_gradients(f, *points):
    """``f`` of the points, with the gradients of the sum of ``f * above``."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(point, dtype=torch.float64, requires_grad=True) for point in points]
    y = f(*tensors)
    above = np.random.default_rng(1).normal(size=y.shape)
    y.backward(torch.tensor(above))
    return y.detach().numpy(), above, [t.grad.numpy() for t in tensors]


@pytest.mark.parametrize("kind", self_gated.SELF_GATED)
def test_self_gated_reference_against_pytorch(rng, kind):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    f = F.silu if kind == "silu" else lambda z: F.gelu(z, approximate="tanh")
    z = np.concatenate([3 * normals(rng, 50), [-1e4, -30, 0, 30, 1e4]])
    y, above, (dz,) = torch_gradients(f, z)
    np.testing.assert_allclose(self_gated.forward(z, kind), y, rtol=1e-11, atol=1e-15)  # theirs cancels below zero
    np.testing.assert_allclose(self_gated.backward(above, z, kind), dz, rtol=1e-11, atol=1e-12)


def test_gelu_is_close_to_the_one_with_the_normal_distribution(rng):
    torch = pytest.importorskip("torch")
    z = np.linspace(-8, 8, 4001)
    exact = torch.nn.functional.gelu(torch.tensor(z)).numpy()
    assert 4e-4 < np.abs(self_gated.forward(z, "gelu") - exact).max() < 5e-4


@pytest.mark.parametrize("kind", self_gated.SELF_GATED)
def test_self_gated_far_out_and_nan(arena, kind):
    z = f32(np.array([-1e30, -1e4, -100.0, -20.0, 0.0, 1e-6, 20.0, 100.0, 1e30]))
    (y,) = arena.call("self_gated_forward", z, Out(9), kind)
    np.testing.assert_allclose(y, self_gated.forward(z, kind), rtol=3e-6, atol=1e-30)
    assert y[-1] == z[-1].astype(y.dtype) and (np.abs(y[:3]) < 1e-30).all()
    (dz,) = arena.call("self_gated_backward", np.ones(9), z, Out(9), kind)
    np.testing.assert_allclose(dz, self_gated.derivative(z, kind), rtol=1e-5, atol=1e-6)
    assert np.isnan(arena.call("self_gated_forward", np.full(3, np.nan), Out(3), kind)[0]).all()


def test_batch_norm_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm1d(5, dtype=torch.float64)
    x, gamma, beta = normals(rng, 2, 7, 5) + 3, normals(rng, 5), normals(rng, 5)

    def f(x, gamma, beta):
        layer.weight, layer.bias = torch.nn.Parameter(torch.empty(0)), torch.nn.Parameter(torch.empty(0))
        halves = [
            torch.nn.functional.batch_norm(half, layer.running_mean, layer.running_var, gamma, beta, training=True)
            for half in x
        ]
        return torch.stack(halves)

    y, above, (dx, dgamma, dbeta) = torch_gradients(f, x, gamma, beta)
    ours, mean, inv_std, running_mean, running_var = normalization.batch_forward(
        x, gamma, beta, np.zeros(5), np.ones(5)
    )
    for mine, theirs in (
        (ours, y),
        (running_mean, layer.running_mean.numpy()),
        (running_var, layer.running_var.numpy()),
        (normalization.batch_dgrad(above, x, gamma, mean, inv_std), dx),
        (normalization.batch_wgrad(above, x, mean, inv_std)[0], dgamma),
        (normalization.batch_wgrad(above, x, mean, inv_std)[1], dbeta),
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-11)
    layer = layer.eval()
    theirs = torch.nn.functional.batch_norm(
        torch.tensor(x[0]), layer.running_mean, layer.running_var, torch.tensor(gamma), torch.tensor(beta)
    )
    mine = normalization.batch_infer(x[0], gamma, beta, running_mean, running_var)
    np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-12)


def test_layer_norm_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    x, gamma, beta = normals(rng, 7, 5) - 2, normals(rng, 5), normals(rng, 5)
    y, above, (dx, dgamma, dbeta) = torch_gradients(
        lambda x, gamma, beta: torch.nn.functional.layer_norm(x, (5,), gamma, beta), x, gamma, beta
    )
    ours, mean, inv_std = normalization.layer_forward(x, gamma, beta)
    np.testing.assert_allclose(ours, y, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(normalization.layer_dgrad(above, x, gamma, mean, inv_std), dx, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(normalization.layer_wgrad(above, x, mean, inv_std), (dgamma, dbeta), atol=1e-11)


def test_statistics_far_from_zero(arena, rng):
    """A variance as the mean of squares less the square of the mean would have no digits here."""
    x = f32(normals(rng, 1, 64, 33) + 1000)
    gamma, beta = np.ones(33), np.zeros(33)
    running = InOut(np.zeros(33)), InOut(np.ones(33))
    y, *_ = arena.call(
        "batch_norm_forward", x, gamma, beta, Out(1, 64, 33), Out(1, 33), Out(1, 33), *running, 0.1, 1e-5, "linear"
    )
    h = (x - x.mean(axis=1)) / x.std(axis=1)
    np.testing.assert_allclose(y, h, atol=2e-3)
    rows = x[0]
    y, *_ = arena.call("layer_norm_forward", rows, gamma, beta, Out(64, 33), Out(64), Out(64), 1e-5, "linear")
    h = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    np.testing.assert_allclose(y, h, atol=2e-3)


def test_one_row_is_normalised_to_zero(arena):
    one = (Out(1, 1, 3), Out(1, 3), Out(1, 3), InOut(np.zeros(3)), InOut(np.ones(3)))
    x, gamma, beta = np.full((1, 1, 3), 7.0), np.full(3, 2.0), np.array([1.0, -2.0, 0.5])
    y, *_ = arena.call("batch_norm_forward", x, gamma, beta, *one, 0.1, 1e-5, "relu")
    np.testing.assert_array_equal(y[0, 0], [1, 0, 0.5])


@pytest.mark.parametrize("first", [0, 1, 63, 130])
def test_part_of_a_buffer_has_its_part_of_the_mask(arena, rng, first):
    x = normals(rng, 500) + 10
    whole = arena.call("dropout", x, Out(500), 9, 1029, STEP, 0, 0.3)[0]
    part = arena.call("dropout", x[first : first + 201], Out(201), 9, 1029, STEP, first, 0.3)[0]
    np.testing.assert_array_equal(part, whole[first : first + 201])
    np.testing.assert_array_equal(whole == 0, random.uniform((500,), 9, 1029, 3, np.float64) < 0.3)
    other = arena.call("dropout", x, Out(500), 9, 1029, STEP + 1, 0, 0.3)[0]
    assert ((whole == 0) != (other == 0)).any()


def test_dropout_keeps_the_expectation():
    y = dropout.forward(np.ones(200_000), 1, 2, 3, 0, 0.4)
    assert set(np.unique(y)) == {0, 1 / 0.6} and abs(y.mean() - 1) < 5 * np.sqrt(0.4 / 0.6 / 200_000)


def test_maxout_of_equal_pieces_and_nan(arena):
    x = np.array([[[1.0, np.nan, 2.0], [1.0, 0.0, 5.0], [0.0, 3.0, np.nan]]])
    (y,) = arena.call("maxout_forward", x, Out(1, 3))
    np.testing.assert_array_equal(y, [[1, np.nan, np.nan]])
    (dx,) = arena.call("maxout_backward", np.array([[3.0, 4.0, 5.0]]), x, Out(1, 3, 3))
    np.testing.assert_array_equal(dx, [[[3, 4, 0], [0, 0, 0], [0, 0, 5]]])


def test_maxout_against_pytorch(rng):
    x = normals(rng, 6, 5, 4)
    y, above, (dx,) = torch_gradients(lambda x: x.max(dim=1).values, x)
    np.testing.assert_array_equal(maxout.forward(x), y)
    np.testing.assert_array_equal(maxout.backward(above, x), dx)


def test_the_power_iteration_finds_the_largest_singular_value(arena, rng):
    W, u = normals(rng, 19, 35), normals(rng, 35)
    for _ in range(300):
        u = spectral_norm.forward(W, u)[0]
    u = f32(u)
    _, _, sigma, normalized = arena.call("spectral_norm", W, InOut(u), Out(19), Out(1), Out(19, 35), True)
    np.testing.assert_allclose(sigma, np.linalg.svd(W)[1][0], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.svd(normalized)[1][0], 1, rtol=1e-4)
    kept = arena.call("spectral_norm", W, InOut(u), Out(19), Out(1), Out(19, 35), False)
    np.testing.assert_array_equal(kept[0], u)
    np.testing.assert_allclose(kept[2], sigma, rtol=1e-4)


def test_spectral_norm_against_pytorch(rng):
    """Its own layer, from the same vectors: forward, and the gradient of the weight."""
    torch = pytest.importorskip("torch")
    W, u = normals(rng, 6, 4), normals(rng, 4)
    u /= np.linalg.norm(u)
    layer = torch.nn.Linear(6, 4, bias=False, dtype=torch.float64)
    layer.weight = torch.nn.Parameter(torch.tensor(W.T))
    layer = torch.nn.utils.spectral_norm(layer)
    layer.weight_u.copy_(torch.tensor(u))
    x, above = normals(rng, 9, 6), normals(rng, 9, 4)
    y = layer(torch.tensor(x))
    y.backward(torch.tensor(above))
    made = spectral_norm.forward(W, u)
    np.testing.assert_allclose(x @ made[3], y.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(made[0], layer.weight_u.numpy(), rtol=1e-10)
    dW = spectral_norm.backward(x.T @ above, made[3], made[0], made[1], made[2])
    np.testing.assert_allclose(dW, layer.weight_orig.grad.numpy().T, rtol=1e-9, atol=1e-11)


def test_the_same_bits_for_any_number_of_threads(rng):
    cpu = pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    before, seed = cpu.get_num_threads(), int(rng.integers(2**32))
    results = []
    try:
        for threads in (1, 3):
            use_threads(threads)
            rows = operations(np.random.default_rng(seed), 60, 200, of=ops_layers.LayerOperations)
            results.append(
                [out for _, _, method, arguments, _ in rows for out in call(cpu.CpuBackend(), method, *arguments)]
            )
    finally:
        cpu.set_num_threads(before)
        cpu._native.choose_threads(True)
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)
