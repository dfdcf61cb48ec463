"""latent: every backend against the float64 reference, that against differences, PyTorch and a Monte Carlo KL."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import Out, assert_close, f32, normals, refuses_bad_buffers, relative_error, shapes, tolerance
from minigen.gradcheck import differences
from minigen.reference import latent


def test_forward(arena, rng):
    for B, L in [*shapes(rng, 2), (129, 20)]:
        heads, eps = normals(rng, B, 2 * L), normals(rng, B, L)
        outputs = arena.call("latent_forward", heads, eps, Out(B, L), Out(B), Out(1))
        z, rows, loss = latent.forward(heads, eps)
        mu, logvar = np.abs(latent.split(heads))
        terms = (mu**2 + np.expm1(logvar) + logvar).sum(axis=1) / 2
        assert_close(arena.backend, outputs[0], z, mu + np.exp(latent.split(heads)[1] / 2) * np.abs(eps))
        assert_close(arena.backend, outputs[1], rows, terms)
        assert_close(arena.backend, outputs[2], [loss], terms.mean())


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_backward(arena, rng, beta):
    for B, L in [*shapes(rng, 2), (129, 20)]:
        heads, eps, dz = normals(rng, B, 2 * L), normals(rng, B, L), normals(rng, B, L)
        (dheads,) = arena.call("latent_backward", dz, heads, eps, np.full(L, beta), Out(B, 2 * L))
        terms = latent.backward(np.abs(dz), np.abs(heads), np.abs(eps), beta)
        assert_close(arena.backend, dheads, latent.backward(dz, heads, eps, beta), terms)


def test_near_the_prior_keeps_its_digits(arena, rng):
    """KL of a posterior that is 1e-3 away from the prior, about 1e-6 a latent: no cancellation to 0 or below."""
    heads, eps = f32(1e-3 * normals(rng, 5, 14)), normals(rng, 5, 7)
    _, rows, loss = arena.call("latent_forward", heads, eps, Out(5, 7), Out(5), Out(1))
    mu, logvar = heads[:, :7], heads[:, 7:]
    # e^logvar - 1 - logvar; logvar is at most about 5e-3, so that the terms left out are below 1e-15 of the first.
    series = (mu**2 + sum(logvar**k / math.factorial(k) for k in range(2, 9))).sum(axis=1) / 2
    # exp(logvar) - 1 is right to an ulp of 1e-3, and what is left after subtracting logvar is 1e-3 of that.
    assert relative_error(rows, series) < 1e3 * tolerance(arena.backend)
    assert (rows > 0).all() and loss[0] == pytest.approx(series.mean(), rel=1e3 * tolerance(arena.backend))
    _, rows, loss = arena.call("latent_forward", np.zeros((3, 4)), np.ones((3, 2)), Out(3, 2), Out(3), Out(1))
    assert not rows.any() and loss[0] == 0


def test_vanishing_variance(arena):
    """logvar = -1e4 is a point mass: z = mu, a KL of about 5000 nats, nothing infinite."""
    heads, eps = np.array([[0.5, -2.0, -1e4, -1e4]]), np.ones((1, 2))
    z, rows, _ = arena.call("latent_forward", heads, eps, Out(1, 2), Out(1), Out(1))
    assert z.tolist() == [[0.5, -2.0]]
    np.testing.assert_allclose(rows, (0.25 + 4 - 2 + 2e4) / 2, rtol=tolerance(arena.backend))
    (dheads,) = arena.call("latent_backward", np.ones((1, 2)), heads, eps, np.ones(2), Out(1, 4))
    np.testing.assert_allclose(dheads, [[1.5, -1.0, -0.5, -0.5]], rtol=tolerance(arena.backend))


def test_logvar_is_bounded(arena, rng):
    """What exp cannot hold: everything is finite, the KL is that of logvar = 40, and nothing pulls at logvar."""
    limit = latent.LOGVAR_LIMIT
    above = np.nextafter(np.float32(limit), np.float32(1e9), dtype=np.float32)
    h = np.array([[above, limit, 89.0, 1e4, 3e38, 39.0, 0.0]])
    heads, eps = np.concatenate([np.zeros((1, 7)), h], axis=1), normals(rng, 1, 7)
    z, rows, loss = arena.call("latent_forward", heads, eps, Out(1, 7), Out(1), Out(1))
    bounded = np.minimum(h, limit)
    assert_close(arena.backend, z, np.exp(bounded / 2) * eps)
    assert_close(arena.backend, rows, (np.expm1(bounded) - bounded).sum(axis=1) / 2)
    assert_close(arena.backend, loss, rows)
    dz = normals(rng, 1, 7)
    (dheads,) = arena.call("latent_backward", dz, heads, eps, np.full(7, 0.75), Out(1, 14))
    assert dheads[0, 7:12][np.array([True, False, True, True, True])].tolist() == [0.0] * 4
    inside = [8, 12, 13]
    expected = dz * eps * np.exp(bounded / 2) / 2 + 0.75 * np.expm1(bounded) / 2
    assert_close(arena.backend, dheads[0, inside], expected[0, np.array(inside) - 7])
    assert_close(arena.backend, dheads[0, :7], dz[0])


def test_reference_against_differences_on_both_sides_of_the_bound(rng, monkeypatch):
    monkeypatch.setattr(latent, "LOGVAR_LIMIT", 0.5)  # at 40 the rounding of e^40 would hide everything else
    heads, eps, dz = normals(rng, 4, 6), normals(rng, 4, 3), normals(rng, 4, 3)
    above = rng.random((4, 3)) < 0.5
    heads[:, 3:] = np.where(above, 0.6 + np.abs(heads[:, 3:]), 0.4 - np.abs(heads[:, 3:]))

    def total(heads):
        z, _, kl = latent.forward(heads, eps)
        return (dz * z).sum() + 0.7 * kl

    gradient = latent.backward(dz, heads, eps, 0.7)
    assert not gradient[:, 3:][above].any()
    assert relative_error(gradient, differences(total, heads)) < 1e-9


def test_nan_stays_in_its_row(arena, rng):
    heads, eps = normals(rng, 9, 6), normals(rng, 9, 3)
    heads[4, 5] = np.nan
    z, rows, loss = arena.call("latent_forward", heads, eps, Out(9, 3), Out(9), Out(1))
    assert np.argwhere(np.isnan(z)).tolist() == [[4, 2]]
    assert np.flatnonzero(np.isnan(rows)).tolist() == [4] and np.isnan(loss[0])
    (dheads,) = arena.call("latent_backward", np.ones((9, 3)), heads, eps, np.ones(3), Out(9, 6))
    assert np.argwhere(np.isnan(dheads)).tolist() == [[4, 5]]


def test_reference_kl_is_the_expected_log_ratio(rng):
    """KL = E_q[log q(z) - log p(z)] over many samples, within six standard errors."""
    heads = f32(0.5 * normals(rng, 1, 6))
    mu, logvar = latent.split(heads)
    eps = rng.standard_normal((200_000, 3))
    z = mu + np.exp(logvar / 2) * eps
    log_ratio = (-(eps**2) / 2 - logvar / 2 + z**2 / 2).sum(axis=1)
    error = 6 * log_ratio.std() / np.sqrt(len(eps))
    assert latent.forward(heads, eps[:1])[1][0] == pytest.approx(log_ratio.mean(), abs=error)


def test_reference_against_differences(rng):
    heads, eps, dz = normals(rng, 4, 6), normals(rng, 4, 3), normals(rng, 4, 3)

    def total(heads):
        z, _, kl = latent.forward(heads, eps)
        return (dz * z).sum() + 0.7 * kl

    assert relative_error(latent.backward(dz, heads, eps, 0.7), differences(total, heads)) < 1e-9


def test_reference_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    heads, eps, dz = torch.tensor(normals(rng, 7, 10), requires_grad=True), normals(rng, 7, 5), normals(rng, 7, 5)
    mu, logvar = heads[:, :5], heads[:, 5:]
    q = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    z = mu + torch.exp(logvar / 2) * torch.tensor(eps)
    ((torch.tensor(dz) * z).sum() + 2 * kl.mean()).backward()
    ours = latent.forward(heads.detach().numpy(), eps)
    assert relative_error(ours[0], z.detach().numpy()) < 1e-12
    assert relative_error(ours[1], kl.detach().numpy()) < 1e-12
    assert relative_error(latent.backward(dz, heads.detach().numpy(), eps, 2.0), heads.grad.numpy()) < 1e-12


def test_bad_arguments_are_refused(arena, backend, rng):
    heads, eps = normals(rng, 4, 6), normals(rng, 4, 3)
    refuses_bad_buffers(backend, "latent_forward", heads=heads, eps=eps, z=Out(4, 3), rows=Out(4), loss=Out(1))
    refuses_bad_buffers(backend, "latent_backward", dz=eps, heads=heads, eps=eps, weights=eps[0], dheads=Out(4, 6))
    with pytest.raises(ValueError, match="rows"):
        arena.call("latent_forward", np.empty((0, 6)), np.empty((0, 3)), Out(0, 3), Out(0), Out(1))
