"""A VAE's step, with each likelihood, learned variances, warm-up, free bits and several draws, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigen.reference import gaussian_loss, random
from minigen.reference_backend import NumpyBackend
from models import blobs, run, vae_training

LIKELIHOODS: dict[str, dict[str, Any]] = {
    "bernoulli": {"likelihood": "bernoulli"},
    "continuous": {"likelihood": "continuous_bernoulli"},
    "gaussian": {"likelihood": "gaussian", "variance": 0.4},
    "learned": {"likelihood": "gaussian", "variance": "learned"},
    "learned scalar": {"likelihood": "gaussian", "variance": "learned_scalar"},
    "categorical": {"likelihood": "categorical", "blocks": (1, 4, 7)},
    "mixed": {"likelihood": "mixed", "blocks": (1, 4, 1, 1, 3, 2), "variance": "learned"},
    "mixed scalar": {"likelihood": "mixed", "blocks": (5, 1, 1, 5), "variance": "learned_scalar"},
    "mixed fixed": {"likelihood": "mixed", "blocks": (5, 1, 1, 5), "variance": 0.4},
}
BOUNDS: dict[str, dict[str, Any]] = {
    "elbo": {},
    "beta": {"beta": 0.7},
    "warm-up": {"beta": 1.5, "kl_warmup": 2.5},
    "free bits": {"beta": 0.7, "free_bits": 0.2},
    "both": {"beta": 1.5, "kl_warmup": 0.5, "free_bits": 0.1},
    "2 draws": {"draws": 2},
    "5 draws": {"draws": 5},
}
COLUMNS, LATENT = 12, 4


def negative_log_likelihood(torch: Any, told: dict[str, Any], output: Any, x: Any, logvar: Any) -> Any:
    """Of each row, by PyTorch's own functions where it has any."""
    kind = told["likelihood"]
    if kind == "bernoulli":
        return torch.nn.functional.binary_cross_entropy_with_logits(output, x, reduction="none").sum(1)
    if kind == "continuous_bernoulli":
        points, weights = (torch.tensor(a) / 2 for a in np.polynomial.legendre.leggauss(40))  # over [0, 1]
        integral = (torch.exp(output[..., None] * (points + 0.5)) * weights).sum(-1)  # also where the output is 0
        return (torch.log(integral) - x * output).sum(1)
    if kind == "gaussian":
        scale = torch.tensor(told["variance"], dtype=torch.float64).sqrt() if logvar is None else torch.exp(logvar / 2)
        return -torch.distributions.Normal(output, scale).log_prob(x).sum(1)
    blocks = list(zip(output.split(told["blocks"], 1), x.split(told["blocks"], 1), strict=True))
    if kind == "mixed":
        logvar = torch.tensor([np.log(told["variance"])]) if logvar is None else logvar
        stds = torch.exp(logvar / 2).expand(output.shape[1]).split(told["blocks"])
        return -sum(
            torch.distributions.Normal(m, std).log_prob(t).sum(1) if t.shape[1] == 1 else (t * m.log_softmax(1)).sum(1)
            for (m, t), std in zip(blocks, stds, strict=True)
        )
    return -sum((labels * torch.log_softmax(logits, 1)).sum(1) for logits, labels in blocks)


def by_autograd(training: Any, told: dict[str, Any], rows: int) -> tuple[dict[str, np.ndarray], list[float]]:
    """Gradients and losses of the next step, from the weights, rows and noise of ``training``."""
    torch, step, done = pytest.importorskip("torch"), training.step, training.done
    state = {key: value for net in step.networks for key, value in net.state().items()}
    p = {key: torch.tensor(value.astype(np.float64), requires_grad=True) for key, value in state.items()}

    def network(name: str, x: Any) -> Any:
        count = sum(key.startswith(name) for key in p) // 2
        for i in range(count):
            x = x @ p[f"{name}.{i}.W"] + p[f"{name}.{i}.b"]
            x = torch.relu(x) if i < count - 1 else x
        return x

    draws = told.get("draws", 1)
    x = torch.tensor(np.asarray(training.ops.download(step.x[:rows]), np.float64))
    eps = torch.tensor(random.normal((draws * rows, LATENT), step.seed, random.LATENT, done, np.float64))
    heads = network("encoder", x)
    q = torch.distributions.Normal(
        heads[:, :LATENT].repeat(draws, 1), torch.exp(heads[:, LATENT:] / 2).repeat(draws, 1)
    )
    prior, z = torch.distributions.Normal(0.0, 1.0), q.loc + q.scale * eps
    repeated = x.repeat(draws, 1)
    nats = negative_log_likelihood(torch, told, network("decoder", z), repeated, p.get("noise.0.logvar"))
    if draws > 1:
        ratio = (q.log_prob(z) - prior.log_prob(z)).sum(1)
        log_w = (-nats - ratio).reshape(draws, rows)
        loss = -(torch.logsumexp(log_w, 0) - np.log(draws)).mean()
        reported = [loss, nats.mean(), ratio.mean()]
    else:
        kl = torch.distributions.kl_divergence(q, prior).mean(0)
        warm = told.get("kl_warmup", 0) * training.steps_per_epoch
        beta = told.get("beta", 1.0) * (min(1.0, done / warm) if warm else 1.0)
        loss = nats.mean() + beta * torch.clamp(kl, min=told.get("free_bits", 0.0)).sum()
        reported = [loss, nats.mean(), kl.sum()]
    gradients = torch.autograd.grad(loss, list(p.values()), allow_unused=True)
    found = {key: np.zeros_like(state[key]) if g is None else g.numpy() for key, g in zip(p, gradients, strict=True)}
    return found, [float(value.detach()) for value in reported]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_of_a_step_agree_with_autograd(backend, likelihood, bound, rng):
    hidden = tuple(int(n) for n in rng.integers(1, 40, rng.integers(0, 3)))
    told = LIKELIHOODS[likelihood] | BOUNDS[bound]
    data = blobs(40, COLUMNS)
    training = vae_training(backend, data, hidden, LATENT, batch_size=13, seed=int(rng.integers(1, 2**32)), told=told)
    done = int(rng.integers(1, 9))  # a warm-up has begun
    backend.upload(np.array([done], np.uint64), out=training.step.counter)
    training.done = done
    rows = 1 if done % 4 == 3 else 13
    for net in training.step.networks:
        backend.upload(np.full(net.grads.shape, np.nan, backend.dtype), out=net.grads)
    training.step.gradient(rows)
    expected, losses = by_autograd(training, told, rows)
    tolerance = {"float32": 5e-5, "float64": 1e-10}[backend.dtype.name]
    for net in training.step.networks:
        size = max(np.abs(expected[key]).max() for key in expected if key.startswith(net.name))
        for layer in net.layers:
            for part, gradient in layer.grads.items():
                at = {"rtol": tolerance, "atol": tolerance * size}
                np.testing.assert_allclose(backend.download(gradient), expected[f"{layer.name}.{part}"], **at)
    reported = training.step.report(backend.download(training.step.losses)[None])[0]
    np.testing.assert_allclose(reported, losses, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bound", ["both", "2 draws"])
@pytest.mark.parametrize("likelihood", ["continuous", "learned", "learned scalar", "categorical"])
def test_backends_follow_the_float64_trajectory(backend, likelihood, bound):
    told = LIKELIHOODS[likelihood] | BOUNDS[bound]
    ours, reference = (
        vae_training(ops, blobs(100, COLUMNS), told=told, learning_rate=1e-3)
        for ops in (backend, NumpyBackend(np.float64))
    )
    run(ours, 30)
    run(reference, 30)
    np.testing.assert_allclose(ours.recent_losses(30), reference.recent_losses(30), rtol=1e-4, atol=1e-4)
    for a, b in zip(ours.step.networks, reference.step.networks, strict=True):
        np.testing.assert_allclose(backend.download(a.params), b.params, rtol=2e-3, atol=2e-4)


def test_a_warm_up_is_linear_in_the_steps_and_then_over(backend):
    told = {"beta": 2.0, "kl_warmup": 2.5}
    training = vae_training(backend, blobs(100), batch_size=25, told=told)  # 4 steps an epoch: 10 of warm-up
    weights = []
    for _ in range(13):
        run(training, 1)
        weights.append(float(backend.download(training.step.beta_now)[0]))
    np.testing.assert_allclose(weights, np.minimum(2.0, 0.2 * np.arange(13)), rtol=1e-6)
    np.testing.assert_allclose(backend.download(training.step.kl_weights), 2.0)
    losses = training.recent_losses(13)
    np.testing.assert_allclose(losses[:, 0], losses[:, 1] + np.array(weights) * losses[:, 2], rtol=1e-5)


def test_a_step_with_all_of_it_allocates_nothing_and_repeats_its_bits(backend):
    told = LIKELIHOODS["learned"] | BOUNDS["both"]
    one, many = (vae_training(backend, blobs(100), told=told) for _ in range(2))
    for _ in range(8):
        run(one, 1)
    many.run(4), many.run(4)
    for key, value in one.state().items():
        np.testing.assert_array_equal(value, many.state()[key])


def test_a_learned_variance_that_overflows_is_named(backend):
    training = vae_training(backend, blobs(64), told=LIKELIHOODS["learned"])
    noise = training.step.likelihood.noise
    backend.upload(np.full(noise.params.shape, np.nan, backend.dtype), out=noise.params)
    with np.errstate(all="ignore"):
        training.run(1)
    assert training.first_non_finite() is not None
    assert "noise.params" in training.state()


def test_variances_come_to_what_the_decoder_leaves_over(backend):
    """The best variances are the mean squares that are left: dlogvar is 0 there, and moves towards it elsewhere."""
    training = vae_training(backend, blobs(64), batch_size=64, told=LIKELIHOODS["learned"])
    step = training.step
    step.gradient(64)
    output, x = (np.asarray(backend.download(a), np.float64) for a in (step.decoder_work[-1].y, step.x))
    left = ((output - x) ** 2).mean(axis=0)
    step.likelihood.noise.load_state({"noise.0.logvar": np.log(left)})
    step.gradient(64)
    np.testing.assert_allclose(backend.download(step.likelihood.noise.layers[0].grads["logvar"]), 0, atol=1e-5)
    assert gaussian_loss.LOGVAR_LOW < np.log(left).min()
