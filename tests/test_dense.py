"""dense: every backend against the float64 reference, that against finite differences and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import InOut, Out, assert_close, f32, normals, off_zero, refuses_bad_buffers, relative_error, shapes
from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck import differences
from minigen.reference import activations, dense


def size(a, b):
    """What ``a @ b`` would be if its terms had random signs: the scale of its rounding errors."""
    return np.sqrt(a**2 @ b**2)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_forward(arena, rng, activation):
    for B, n_in, n_out in shapes(rng, 3):
        x, W, b = normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, n_out)
        (y,) = arena.call("dense_forward", x, W, b, Out(B, n_out), activation)
        reference = dense.forward(x, W, b, activation)
        # The activation rounds too: softplus(0) is not small where the sum is.
        assert_close(arena.backend, y, reference, size(x, W) + np.abs(b) + np.abs(reference), products=True)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_dgrad(arena, rng, activation):
    for B, n_in, n_out in shapes(rng, 3):
        dz, W = normals(rng, B, n_out), normals(rng, n_in, n_out)
        x = f32(activations.forward(normals(rng, B, n_in), activation))
        (dx,) = arena.call("dense_dgrad", dz, W, Out(B, n_in), x, activation)
        assert_close(arena.backend, dx, dense.dgrad(dz, W, x, activation), size(dz, W.T), products=True)


def test_dgrad_of_the_first_layer_needs_no_x(arena, rng):
    dz, W = normals(rng, 7, 5), normals(rng, 33, 5)
    (dx,) = arena.call("dense_dgrad", dz, W, Out(7, 33))
    assert_close(arena.backend, dx, dz @ W.T, size(dz, W.T), products=True)


def test_wgrad(arena, rng):
    for B, n_in, n_out in shapes(rng, 3):
        x, dz = normals(rng, B, n_in), normals(rng, B, n_out)
        dW, db = arena.call("dense_wgrad", x, dz, Out(n_in, n_out), Out(n_out))
        reference = dense.wgrad(x, dz)
        assert_close(arena.backend, dW, reference[0], size(x.T, dz), products=True)
        assert_close(arena.backend, db, reference[1], size(np.ones(B), dz))


def test_large_layer(arena, rng):
    """Larger than any tile and any block of the cache, in all three directions."""
    B, n_in, n_out = 259, 1031, 517
    x, W, b, dz = normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, n_out), normals(rng, B, n_out)
    y_before = f32(np.tanh(x))
    (y,) = arena.call("dense_forward", x, W, b, Out(B, n_out))
    assert_close(arena.backend, y, dense.forward(x, W, b), products=True)
    (dx,) = arena.call("dense_dgrad", dz, W, Out(B, n_in), y_before, "tanh")
    assert_close(arena.backend, dx, dense.dgrad(dz, W, y_before, "tanh"), products=True)
    dW, db = arena.call("dense_wgrad", x, dz, Out(n_in, n_out), Out(n_out))
    assert_close(arena.backend, dW, x.T @ dz, products=True)
    assert_close(arena.backend, db, dz.sum(axis=0))


def test_no_rows(arena, rng):
    x, W, b, dz = np.empty((0, 7)), normals(rng, 7, 5), normals(rng, 5), np.empty((0, 5))
    assert arena.call("dense_forward", x, W, b, Out(0, 5), "relu")[0].shape == (0, 5)
    assert arena.call("dense_dgrad", dz, W, Out(0, 7))[0].shape == (0, 7)
    dW, db = arena.call("dense_wgrad", x, dz, Out(7, 5), Out(5))
    assert not dW.any() and not db.any()


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_nan_passes_through(arena, rng, activation):
    """One bad entry of x reaches its row of y, and no other."""
    x, W, b = normals(rng, 35, 19), normals(rng, 19, 21), normals(rng, 21)
    x[17, 3] = np.nan
    (y,) = arena.call("dense_forward", x, W, b, Out(35, 21), activation)
    assert np.isnan(y[17]).all()
    assert np.isfinite(np.delete(y, 17, axis=0)).all()


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_reference_against_differences(rng, activation):
    """Two layers: the second one's dgrad carries the derivative of the first one's activation."""
    B, n_in, n_hidden, n_out = 3, 4, 5, 2
    x, W1, b1 = normals(rng, B, n_in), normals(rng, n_in, n_hidden), normals(rng, n_hidden)
    W2, b2, c = normals(rng, n_hidden, n_out), normals(rng, n_out), normals(rng, B, n_out)
    b1 += _away_from_kinks(x @ W1 + b1)

    def loss(x=x, W1=W1, b1=b1, W2=W2, b2=b2):
        return (c * dense.forward(dense.forward(x, W1, b1, activation), W2, b2)).sum()

    h = dense.forward(x, W1, b1, activation)
    dz1 = dense.dgrad(c, W2, h, activation)
    dW1, db1 = dense.wgrad(x, dz1)
    dW2, db2 = dense.wgrad(h, c)
    assert relative_error(dW1, differences(lambda a: loss(W1=a), W1)) < 1e-9
    assert relative_error(db1, differences(lambda a: loss(b1=a), b1)) < 1e-9
    assert relative_error(dW2, differences(lambda a: loss(W2=a), W2)) < 1e-9
    assert relative_error(db2, differences(lambda a: loss(b2=a), b2)) < 1e-9
    assert relative_error(dense.dgrad(dz1, W1), differences(lambda a: loss(x=a), x)) < 1e-9


def _away_from_kinks(z: np.ndarray) -> np.ndarray:
    """A shift of each column after which none of its entries is within 0.02 of 0."""
    candidates = np.linspace(0, 1, 101)[:, None, None]
    closest = np.abs(z + candidates).min(axis=1)
    return candidates[closest.argmax(axis=0), 0, 0]


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_reference_against_pytorch(rng, activation):
    torch = pytest.importorskip("torch")
    acts = {
        "linear": lambda t: t,
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "leaky_relu": lambda t: torch.nn.functional.leaky_relu(t, 0.2),
        "softplus": torch.nn.functional.softplus,
        "elu": torch.nn.functional.elu,
    }
    z, W, b, dy = off_zero(rng, 9, 6), normals(rng, 6, 4), normals(rng, 4), normals(rng, 9, 4)
    tensors = [torch.tensor(a, requires_grad=True) for a in (z, W, b)]
    out = acts[activation](tensors[0]) @ tensors[1] + tensors[2]
    out.backward(torch.tensor(dy))
    x = activations.forward(z, activation)
    assert relative_error(dense.forward(x, W, b), out.detach().numpy()) < 1e-12
    for ours, tensor in zip([dense.dgrad(dy, W, x, activation), *dense.wgrad(x, dy)], tensors, strict=True):
        assert relative_error(ours, tensor.grad.numpy()) < 1e-12


def test_a_weight_gradient_is_added_to_what_is_there(arena, rng):
    for B, n_in, n_out in [*shapes(rng, 3, count=3), (128, 784, 128), (256, 128, 1)]:
        x, dz = normals(rng, B, n_in), normals(rng, B, n_out)
        before = normals(rng, n_in, n_out), normals(rng, n_out)
        outputs = arena.call("dense_wgrad", x, dz, *map(InOut, before), True)
        sizes = np.abs(x).T @ np.abs(dz), np.abs(dz).sum(axis=0)
        for out, old, gradient, size in zip(outputs, before, dense.wgrad(x, dz), sizes, strict=True):
            assert_close(arena.backend, out, old + gradient, np.abs(old) + size, products=True)


def test_gradients_accumulate_in_a_captured_step(backend, rng):
    """Two halves of a batch, then an update that must see the sum: not fused with either of them."""
    B, n_in, n_out = 12, 9, 5
    x, dz = normals(rng, B, n_in), normals(rng, B, n_out)
    upload = lambda array: backend.upload(array.astype(backend.dtype))  # noqa: E731
    halves = [(upload(x[rows]), upload(dz[rows])) for rows in (slice(0, 6), slice(6, 12))]
    flat = {name: upload(np.zeros(n_in * n_out + n_out)) for name in "pgmv"}
    dW, db = flat["g"][: n_in * n_out].reshape(n_in, n_out), flat["g"][n_in * n_out :]
    lr, step = upload(np.ones(1)), backend.upload(np.zeros(1, np.uint64))

    def spell():
        backend.dense_wgrad(*halves[0], dW, db)
        backend.dense_wgrad(*halves[1], dW, db, accumulate=True)
        backend.adam(*(flat[name] for name in "pgmv"), lr, step)

    backend.capture(spell).run(1)
    gradient = np.concatenate([part.ravel() for part in dense.wgrad(x, dz)])
    assert_close(backend, backend.download(flat["m"]), 0.1 * gradient, np.abs(gradient) + 1, products=True)


def test_bad_buffers_are_refused(backend, rng):
    x, W, b, dz = normals(rng, 4, 3), normals(rng, 3, 2), normals(rng, 2), normals(rng, 4, 2)
    refuses_bad_buffers(backend, "dense_forward", x=x, W=W, b=b, y=Out(4, 2), activation="tanh")
    refuses_bad_buffers(backend, "dense_dgrad", dz=dz, W=W, dx=Out(4, 3), x=x, activation="relu")
    refuses_bad_buffers(backend, "dense_wgrad", x=x, dz=dz, dW=Out(3, 2), db=Out(2))


def test_unknown_activation_lists_the_known(arena, rng):
    x, W, b, dz = normals(rng, 4, 3), normals(rng, 3, 2), normals(rng, 2), normals(rng, 4, 2)
    with pytest.raises(ValueError, match="activation.*swish"):
        arena.call("dense_forward", x, W, b, Out(4, 2), "swish")
    with pytest.raises(ValueError, match="activation.*swish"):
        arena.call("dense_dgrad", dz, W, Out(4, 3), x, "swish")


def test_dgrad_through_an_activation_needs_x(arena, rng):
    with pytest.raises(ValueError, match="x: .*tanh"):
        arena.call("dense_dgrad", normals(rng, 4, 2), normals(rng, 3, 2), Out(4, 3), None, "tanh")
