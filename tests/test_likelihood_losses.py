"""gaussian_loss, categorical_loss, and the continuous Bernoulli's terms: what tests/test_ops.py does not ask."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import Out, assert_close, f32, normals, relative_error, tolerance
from minigen.reference import categorical_loss, gaussian_loss, mixed_loss, vae_loss


def test_a_bernoulli_gradient_keeps_its_digits_where_the_prediction_is_right(arena):
    logits, x = np.array([[17.0, -17.0, 60.0, -60.0, 3.0]]), np.array([[1.0, 0.0, 1.0, 0.0, 1.0]])
    dlogits, _, _ = arena.call("vae_loss", logits, x, Out(1, 5), Out(1), Out(1), "bernoulli")
    wrong = 1 / (1 + np.exp(np.abs(logits)))
    np.testing.assert_allclose(dlogits, np.where(logits < 0, wrong, -wrong), rtol=tolerance(arena.backend))


def test_continuous_bernoulli_on_both_sides_of_its_series(arena, rng):
    """Also at 0, where the plain formula is 0 / 0, and at logits whose e^ no float holds."""
    logits = np.array([[0.0, 1e-30, -1e-6, 1e-3, -0.3, 0.999, 1.001, -1.0, 5.0, -30.0, 200.0, -1e4, 1e4]])
    x = f32(rng.random((4, 13)))
    x[2:] = [0.0], [1.0]
    every = np.tile(f32(logits), (4, 1))
    dlogits, rows, loss = arena.call("vae_loss", every, x, Out(4, 13), Out(4), Out(1), "continuous_bernoulli")
    a = np.maximum(np.abs(every), 1e-4).astype(np.longdouble)  # in 80 bits; nearer to 0 by the first terms
    log_integral = np.maximum(every, 0) + np.log(-np.expm1(-a) / a)
    near = np.abs(every) < 1e-4
    log_integral = np.where(near, every / 2, log_integral)
    smaller = np.where(near, 0.5 - np.abs(every) / 12, 1 / a - np.exp(-a) / -np.expm1(-a))
    slope = np.where(every < 0, smaller - x, (1 - x) - smaller) / 4
    scale = np.abs(every) * (1 + x) + 1
    assert_close(arena.backend, rows, (log_integral - x * every).sum(axis=1), scale.sum(axis=1))
    np.testing.assert_allclose(dlogits, slope.astype(np.float64), rtol=2 * tolerance(arena.backend), atol=1e-7)
    assert np.isfinite(loss[0])


def test_continuous_bernoulli_against_pytorch_and_as_a_density(rng):
    torch = pytest.importorskip("torch")
    logits, x = 4 * normals(rng, 6, 11), rng.random((6, 11))
    theirs = torch.distributions.ContinuousBernoulli(logits=torch.tensor(logits))
    rows, _, _ = vae_loss.forward(logits, x, "continuous_bernoulli")
    assert relative_error(rows, -theirs.log_prob(torch.tensor(x)).sum(1).numpy()) < 1e-6
    assert relative_error(vae_loss.continuous_bernoulli_mean(logits), theirs.mean.numpy()) < 1e-6
    points, weights = np.polynomial.legendre.leggauss(60)
    at = (points + 1) / 2
    for logit in (-9.0, 0.0, 0.4, 3.0):
        nats, _ = vae_loss.continuous_bernoulli(np.full((1, 60), logit), at[None], 1.0)
        density = np.exp(-nats[0]) * weights / 2
        assert density.sum() == pytest.approx(1, abs=1e-12)
        mean = vae_loss.continuous_bernoulli_mean(np.array([logit]))[0]
        assert (density * at).sum() == pytest.approx(mean, abs=1e-12)


def test_learned_variances_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    for count in (11, 1):
        mean, logvar = (torch.tensor(a, requires_grad=True) for a in (normals(rng, 6, 11), normals(rng, count)))
        x = rng.random((6, 11))
        loss = -torch.distributions.Normal(mean, torch.exp(logvar / 2)).log_prob(torch.tensor(x)).sum(1).mean()
        loss.backward()
        m, v = mean.detach().numpy(), logvar.detach().numpy()
        rows, ours, dmean = gaussian_loss.forward(m, x, v)
        assert ours == pytest.approx(loss.item(), rel=1e-12) and rows.shape == (6,)
        assert relative_error(dmean, mean.grad.numpy()) < 1e-12
        assert relative_error(gaussian_loss.logvar_gradient(dmean, m, x, v), logvar.grad.numpy()) < 1e-12


def test_log_variances_are_bounded_and_come_back(arena):
    """Far outside everything is finite, a gradient that leads further out is 0, one that leads back is not."""
    low, high = gaussian_loss.LOGVAR_LOW, gaussian_loss.LOGVAR_HIGH
    logvar = np.array([-1e4, -1e4, 1e4, 1e4, 0.0])
    mean, x = np.zeros((3, 5)), np.zeros((3, 5))
    x[:, 1], x[:, 3] = 1.0, 1e20 if arena.backend.dtype == np.float64 else 1e18
    doutput, rows, loss = arena.call("gaussian_loss", mean, x, logvar, Out(3, 5), Out(3), Out(1))
    assert np.isfinite(doutput).all() and np.isfinite(rows).all() and np.isfinite(loss).all()
    np.testing.assert_allclose(doutput[:, 1], -np.exp(-low) / 3, rtol=tolerance(arena.backend))
    np.testing.assert_allclose(doutput[:, 3], -x[0, 3] * np.exp(-high) / 3, rtol=tolerance(arena.backend))
    (dlogvar,) = arena.call("gaussian_logvar_gradient", doutput, mean, x, logvar, Out(5))
    assert dlogvar[0] == 0  # a constant column: down for ever
    np.testing.assert_allclose(dlogvar[1], (1 - np.exp(-low)) / 2, rtol=tolerance(arena.backend))
    np.testing.assert_allclose(dlogvar[[2, 4]], 0.5)  # a variance that is too large comes down


def test_nan_stays_in_its_row(arena, rng):
    output, x, logvar = normals(rng, 9, 5), rng.random((9, 5)), normals(rng, 5)
    output[4, 2] = np.nan
    ends = np.array([2, 5], np.int32)
    for name, told, bad in (("gaussian_loss", logvar, [2]), ("categorical_loss", ends, [2, 3, 4])):
        doutput, rows, loss = arena.call(name, output, x, told, Out(9, 5), Out(9), Out(1))
        assert np.flatnonzero(np.isnan(rows)).tolist() == [4] and np.isnan(loss[0])
        assert np.argwhere(np.isnan(doutput)).tolist() == [[4, column] for column in bad]


def test_labels_by_hand_also_at_large_logits(arena):
    logits = np.array([[0.0, 0.0, 1e4, 0.0, -1e4], [7.0, math.log(3) + 7.0, -1e4, 5.0, 5.0]])
    x = np.array([[0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0]])
    ends = np.array([2, 5], np.int32)
    dlogits, rows, loss = arena.call("categorical_loss", logits, x, ends, Out(2, 5), Out(2), Out(1))
    rtol = {"rtol": tolerance(arena.backend), "atol": 1e-6}
    np.testing.assert_allclose(rows, [math.log(2), math.log(4 / 3) + math.log(2)], **rtol)
    expected = np.array([[0.5, -0.5, 0, 0, 0], [0.25, -0.25, 0, 0.5, -0.5]]) / 2
    np.testing.assert_allclose(dlogits, expected, **rtol)


def test_labels_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    widths = [1, 4, 2, 9]
    labels = np.concatenate([np.eye(n)[rng.integers(0, n, 8)] for n in widths], axis=1)
    logits = torch.tensor(3 * normals(rng, 8, 16), requires_grad=True)
    blocks = zip(logits.split(widths, 1), torch.tensor(labels).split(widths, 1), strict=True)
    loss = sum(torch.nn.functional.cross_entropy(a, b, reduction="sum") for a, b in blocks) / 8
    loss.backward()
    rows, ours, dlogits = categorical_loss.forward(logits.detach().numpy(), labels, np.cumsum(widths))
    assert ours == pytest.approx(loss.item(), rel=1e-12) and rows.shape == (8,)
    assert relative_error(dlogits, logits.grad.numpy()) < 1e-12


def test_numbers_and_labels_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    widths = [1, 4, 1, 1, 2]
    x = np.hstack([rng.normal(size=(8, 1)) if n == 1 else np.eye(n)[rng.integers(0, n, 8)] for n in widths])
    for count in (9, 1):
        output, logvar = (torch.tensor(a, requires_grad=True) for a in (2 * normals(rng, 8, 9), normals(rng, count)))
        stds = torch.exp(logvar / 2).expand(9).split(widths)
        loss = 0
        for m, t, std in zip(output.split(widths, 1), torch.tensor(x).split(widths, 1), stds, strict=True):
            number = torch.distributions.Normal(m, std).log_prob(t).sum()
            loss -= (number if t.shape[1] == 1 else (t * m.log_softmax(1)).sum()) / 8
        loss.backward()
        given = output.detach().numpy(), x, np.cumsum(widths), logvar.detach().numpy()
        rows, ours, doutput = mixed_loss.forward(*given)
        assert ours == pytest.approx(loss.item(), rel=1e-12) and rows.shape == (8,)
        assert relative_error(doutput, output.grad.numpy()) < 1e-12
        assert relative_error(mixed_loss.logvar_gradient(doutput, *given), logvar.grad.numpy()) < 1e-12


@pytest.mark.parametrize("columns", ["both", "numbers", "labels"])
def test_numbers_and_labels_in_blocks_of_any_width(arena, rng, columns):
    """Also more numbers next to each other than a kernel sums at a time, and labels wider than a tile of a kernel."""
    widths = {"both": [1] * 3 + [70] + [1] * 70 + [2, 1], "numbers": [1] * 5, "labels": [3, 40]}[columns]
    D, ends = sum(widths), np.cumsum(widths).astype(np.int32)
    output, x = f32(normals(rng, 19, D)), f32(rng.random((19, D)))
    for V in (D, 1):
        logvar = f32(normals(rng, V))
        doutput, rows, loss = arena.call("mixed_loss", output, x, ends, logvar, Out(19, D), Out(19), Out(1))
        expected = mixed_loss.forward(output, x, ends, logvar)
        assert relative_error(rows, expected[0]) < tolerance(arena.backend)
        assert relative_error(doutput, expected[2]) < tolerance(arena.backend)
        assert loss[0] == pytest.approx(expected[1], rel=1e-5)
        (dlogvar,) = arena.call("mixed_logvar_gradient", doutput, output, x, ends, logvar, Out(V))
        wanted = mixed_loss.logvar_gradient(doutput.astype(np.float64), output, x, ends, logvar)
        np.testing.assert_allclose(dlogvar, wanted, rtol=1e-4, atol=1e-4)
        if V == D:
            assert (dlogvar[np.repeat(widths, widths) > 1] == 0).all()
