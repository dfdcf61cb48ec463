"""activations: every backend against the float64 reference, that against finite differences and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import (
    InOut,
    Out,
    assert_close,
    f32,
    normals,
    off_zero,
    refuses_bad_buffers,
    relative_error,
    shapes,
    tolerance,
)
from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck import differences
from minigen.reference import activations

EXTREMES = np.array([-1e4, -750.0, -100.0, -20.0, -1e-6, 0.0, 1e-6, 20.0, 100.0, 750.0, 1e4])


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_forward_and_backward(arena, rng, activation):
    for shape in [*shapes(rng, 2), (129,), (0, 3), (3, 5, 7)]:
        z, dy = 3 * normals(rng, *shape), normals(rng, *shape)
        (y,) = arena.call("activation_forward", z, Out(*shape), activation)
        assert_close(arena.backend, y, activations.forward(z, activation))
        stored = f32(activations.forward(z, activation))
        (dz,) = arena.call("activation_backward", dy, stored, Out(*shape), activation)
        assert_close(arena.backend, dz, activations.backward(dy, stored, activation), dy)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_in_place(arena, rng, activation):
    z, dy, backend = normals(rng, 37, 19), normals(rng, 37, 19), arena.backend
    buffer = arena.place("activation_forward", InOut(z))
    backend.activation_forward(buffer, buffer, activation)
    y = backend.download(buffer)
    np.testing.assert_array_equal(y, arena.call("activation_forward", z, Out(37, 19), activation)[0])
    buffer = arena.place("activation_backward", InOut(dy))
    backend.activation_backward(buffer, arena.place("activation_backward", y), buffer, activation)
    np.testing.assert_array_equal(
        backend.download(buffer), arena.call("activation_backward", dy, y, Out(37, 19), activation)[0]
    )


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_extremes(arena, activation):
    """Every single value is right, not just the norm, as far as the dtype reaches."""
    (y,) = arena.call("activation_forward", f32(EXTREMES), Out(len(EXTREMES)), activation)
    reference = activations.forward(f32(EXTREMES), activation)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y, reference, rtol=tolerance(arena.backend), atol=np.finfo(arena.backend.dtype).tiny)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_nan_and_infinity(arena, rng, activation):
    z = normals(rng, 41)
    z[[3, 40]] = np.nan
    (y,) = arena.call("activation_forward", z, Out(41), activation)
    assert np.isnan(y[[3, 40]]).all() and np.isnan(y).sum() == 2
    dy = np.ones(41)
    dy[[0, 39]] = np.nan
    (dz,) = arena.call("activation_backward", dy, np.full(41, 0.5), Out(41), activation)
    assert np.isnan(dz[[0, 39]]).all() and np.isnan(dz).sum() == 2
    y = arena.call("activation_forward", np.array([-np.inf, np.inf]), Out(2), activation)[0]
    low = {"linear": -np.inf, "relu": 0, "leaky_relu": -np.inf, "elu": -1, "tanh": -1, "sigmoid": 0, "softplus": 0}
    high = 1 if activation in ("tanh", "sigmoid") else np.inf
    assert y.tolist() == [low[activation], high]


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_nan_in_the_stored_output_stays(arena, rng, activation):
    """In every form of a backward pass; the linear one does not depend on its output."""
    for rows, inputs, outputs in [(3, 5, 4), (37, 70, 33), (18, 41, 1)]:
        y = np.abs(normals(rng, rows, inputs)) / 8
        y[1::2] *= 0 if activation in ("relu", "leaky_relu") else 1
        spoilt = rng.integers(0, 2, y.shape) == 1
        nan = np.zeros_like(spoilt) if activation == "linear" else spoilt
        y[spoilt] = np.nan
        dy, tangent, dz, W = (normals(rng, *s) for s in ((rows, inputs),) * 2 + ((rows, outputs), (inputs, outputs)))
        (found,) = arena.call("activation_backward", dy, y, Out(*y.shape), activation)
        np.testing.assert_array_equal(np.isnan(found), nan)
        (found,) = arena.call("activation_curvature", dy, tangent, y, Out(*y.shape), activation)
        np.testing.assert_array_equal(np.isnan(found), nan)
        (found,) = arena.call("dense_dgrad", dz, W, Out(*y.shape), y, activation)
        np.testing.assert_array_equal(np.isnan(found), nan)
        (found,) = arena.call("projection_dgrad", dz[:, :1].copy(), dy, InOut(tangent), y, activation)
        np.testing.assert_array_equal(np.isnan(found), nan)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_curvature_of_infinite_outputs(arena, activation):
    """What is straight is so far out, too."""
    y = np.array([np.inf, 1.0]) if activation not in ("tanh", "sigmoid") else np.ones(2)
    bend = {"tanh": -2, "sigmoid": -1}.get(activation, 0)
    (e,) = arena.call("activation_curvature", np.ones(2), np.ones(2), y, Out(2), activation)
    assert e[0] == bend


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_reference_against_differences(rng, activation):
    z, dy = off_zero(rng, 4, 5), normals(rng, 4, 5)
    analytic = activations.backward(dy, activations.forward(z, activation), activation)
    numeric = differences(lambda z: (dy * activations.forward(z, activation)).sum(), z)
    assert relative_error(analytic, numeric) < 1e-9


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_reference_against_complex_step(rng, activation):
    """Im f(z + ih) / h has no cancellation, so the derivative from the stored output shows to the last digits."""
    complex_forms = {
        "tanh": np.tanh,
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "softplus": lambda z: np.log(1 + np.exp(z)),
    }
    z = 2 * normals(rng, 100)
    derivative = complex_forms[activation](z + 1e-30j).imag / 1e-30
    assert relative_error(activations.derivative(activations.forward(z, activation), activation), derivative) < 1e-14


def test_what_the_output_has_lost_its_derivative_has_lost():
    """The figures of the derivation and of the README: why losses are computed from logits."""
    z = np.array([12, 17])
    exact = np.exp(-z) / (1 + np.exp(-z)) ** 2
    from_y = activations.derivative(activations.forward(z.astype(np.float32), "sigmoid"), "sigmoid")
    assert from_y[0] / exact[0] - 1 == pytest.approx(0.009, abs=0.0005)
    assert from_y[1] == 0 and exact[1] > 4e-8


def test_derivatives_at_zero():
    zero = np.zeros(1)
    at_zero = {name: activations.derivative(activations.forward(zero, name), name)[0] for name in DENSE_ACTIVATIONS}
    assert at_zero["relu"] == 0 and at_zero["leaky_relu"] == 0.2
    assert at_zero["linear"] == at_zero["tanh"] == at_zero["elu"] == 1 and at_zero["sigmoid"] == 0.25
    assert at_zero["softplus"] == pytest.approx(0.5, rel=1e-15)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reference_keeps_the_dtype(rng, activation, dtype):
    z = normals(rng, 3, 4).astype(dtype)
    y = activations.forward(z, activation)
    assert y.dtype == activations.derivative(y, activation).dtype == dtype
    assert activations.backward(z, y, activation).dtype == dtype
    assert not np.shares_memory(y, z)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_reference_against_pytorch(rng, activation):
    torch = pytest.importorskip("torch")
    z = torch.tensor(off_zero(rng, 50), requires_grad=True)
    y = {
        "linear": lambda t: t * 1,
        "relu": torch.relu,
        "elu": torch.nn.functional.elu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "leaky_relu": lambda t: torch.nn.functional.leaky_relu(t, 0.2),
        "softplus": torch.nn.functional.softplus,
    }[activation](z)
    dy = normals(rng, 50)
    y.backward(torch.tensor(dy))
    ours = activations.forward(z.detach().numpy(), activation)
    assert relative_error(ours, y.detach().numpy()) < 1e-14
    assert relative_error(activations.backward(dy, ours, activation), z.grad.numpy()) < 1e-14


def test_bad_buffers_are_refused(backend, rng):
    z, dy = normals(rng, 4, 3), normals(rng, 4, 3)
    refuses_bad_buffers(backend, "activation_forward", z=z, y=Out(4, 3), activation="tanh")
    refuses_bad_buffers(backend, "activation_backward", dy=dy, y=z, dz=Out(4, 3), activation="tanh")


def test_unknown_activation_lists_the_known(arena, rng):
    for method, inputs in (("activation_forward", 1), ("activation_backward", 2)):
        with pytest.raises(ValueError, match="activation") as error:
            arena.call(method, *[normals(rng, 3)] * inputs, Out(3), "swish")
        assert "swish" in str(error.value) and all(name in str(error.value) for name in DENSE_ACTIVATIONS)
