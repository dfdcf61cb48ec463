"""Which formula of which file a check is about, and the values of the reference against the formulas written once more.

The derivatives of the reference are compared with differences of its own functions; a function that is wrong together
with its derivative, and what has none (random numbers, orders, initial weights, updates), shows here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigen import gradcheck_plain as plain
from minigen.backend import DENSE_ACTIVATIONS, GAN_LOSSES, SCHEDULES
from minigen.gradcheck_tools import Row, relative_error
from minigen.models.optimizer import OptimizerSettings
from minigen.ops import OPERATIONS
from minigen.reference import (
    activations,
    averaging,
    batch,
    categorical_loss,
    clipping,
    condition,
    dense,
    gan_loss,
    gaussian_loss,
    gumbel_softmax,
    importance,
    initializers,
    latent,
    mixed_loss,
    optimizer,
    random,
    schedule,
    vae_loss,
)
from minigen.reference_backend import derivation

_REF, _MODELS = "minigen/reference", "minigen/models"
_LOSS_D = "loss = mean real(s_real) + mean fake(s_fake)"
_LOSS_G = "loss = mean generator(s)"

FORMULAS = {
    "dense forward": f"{_REF}/dense.py: y = act(x W + b)",
    "dense dgrad": f"{_REF}/dense.py: dx = (dz W^T) * act'(z_before)",
    "dense wgrad db": f"{_REF}/dense.py: db = sum over rows of dz",
    "dense wgrad": f"{_REF}/dense.py: dW = x^T dz",
    "activations": f"{_REF}/activations.py: y = act(z), or act'(z) from y",
    "self_gated": f"{_REF}/self_gated.py: y = z s(p(z)), act' = s + z s (1 - s) p', and its derivative",
    "normalization batch": f"{_REF}/normalization.py: h = (x - m) s over rows, dx = s (g - mean g - h mean(g h))",
    "normalization layer": f"{_REF}/normalization.py: h = (x - m) s over columns, dx = s (g - mean g - h mean(g h))",
    "dropout": f"{_REF}/dropout.py: y = x m / (1 - rate)",
    "maxout": f"{_REF}/maxout.py: the largest piece, and the gradient to it",
    "spectral_norm": f"{_REF}/spectral_norm.py: N = W / sigma, dW = (dN - <dN, N> v u^T) / sigma",
    "gan_loss discriminator": f"{_REF}/gan_loss.py: {_LOSS_D}, or the terms of the loss",
    "gan_loss generator": f"{_REF}/gan_loss.py: {_LOSS_G}, or that term of the loss",
    "penalty r1": f"{_REF}/penalty.py: P = weight / 2 mean |g|^2, v = weight / B g",
    "penalty two_sided": f"{_REF}/penalty.py: P = weight mean (|g| - 1)^2, v = 2 weight / B (|g| - 1) g / |g|",
    "penalty interpolate": f"{_REF}/penalty.py: x = u real + (1 - u) fake",
    "penalty curvature": f"{_REF}/activations.py: bend = act'' / act' from y",
    "vae_loss bernoulli": f"{_REF}/vae_loss.py: -log p = softplus(l) - x l, d/dl = (sigmoid(l) - x) / B",
    "vae_loss gaussian": f"{_REF}/vae_loss.py: (x - mean)^2 / (2 v) + log(2 pi v) / 2, d/dmean = (mean - x) / (v B)",
    "vae_loss continuous": f"{_REF}/vae_loss.py: -log p = log((e^l - 1) / l) - x l, d/dl = (E[x] - x) / B",
    "gaussian_loss means": f"{_REF}/gaussian_loss.py: ((x - m)^2 / v + log(2 pi v)) / 2, dm = (m - x) / (v B)",
    "gaussian_loss logvar": f"{_REF}/gaussian_loss.py: dlogvar = (1 - sum over rows of dm (m - x)) / 2",
    "categorical_loss": f"{_REF}/categorical_loss.py: t log(sum e^l) - sum x l, dl = (t softmax(l) - x) / B",
    "gumbel_softmax": f"{_REF}/gumbel_softmax.py: y = softmax((z + g) / T), dz = y (dy - sum dy y) / T",
    "mixed_loss logvar": f"{_REF}/mixed_loss.py: dlogvar of gaussian_loss in blocks of one column, 0 in wider ones",
    "mixed_loss": f"{_REF}/mixed_loss.py: gaussian_loss of blocks of one column + categorical_loss of wider ones",
    "latent forward": f"{_REF}/latent.py: z = mu + sigma eps, KL = (mu^2 + sigma^2 - 1 - logvar) / 2",
    "latent backward": f"{_REF}/latent.py: dmu = dz + w mu / B, dlogvar = dz eps sigma/2 + w (sigma^2 - 1)/2B",
    "latent free bits": f"{_REF}/latent.py: penalty = beta sum max(lambda, mean KL), w = beta or 0",
    "latent warm-up": f"{_REF}/latent.py: ramp, high min(1, step / steps)",
    "importance": f"{_REF}/importance.py: log w = -(nats + ratio), weights = k softmax, and the gradient of the heads",
    "optimizer sgd": f"{_REF}/optimizer.py: velocity = mu velocity + g + w p, p = p - lr velocity",
    "optimizer adamw": f"{_REF}/optimizer.py: p = p - lr w p, then adam",
    "optimizer clip": f"{_REF}/optimizer.py: p into [-limit, limit]",
    "optimizer adam": f"{_REF}/optimizer.py: m, v, p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)",
    "optimizer rmsprop": f"{_REF}/optimizer.py: velocity = mu velocity + (g + w p) / (sqrt(v) + eps)",
    "optimizer lion": f"{_REF}/optimizer.py: p = p - lr (sign(beta1 m + (1 - beta1) g) + w p)",
    "clipping": f"{_REF}/clipping.py: g = g most / norm where norm > most",
    "averaging": f"{_REF}/averaging.py: average + w (p - average), w = max(1 - decay, 10 / (10 + t))",
    "schedule": f"{_REF}/schedule.py: lr = base (t + 1) / W, then base times what is left, its cosine, or a tenth",
    "random": f"{_REF}/random.py: Philox4x32-10, u = (word >> 8) 2^-24, n = sqrt(-2 ln u1) (cos, sin)(2 pi u2)",
    "random add noise": f"{_REF}/random.py: x + std noise, std falling linearly to 0",
    "batch gather": f"{_REF}/batch.py: out = data[indices] scale + shift",
    "batch": f"{_REF}/batch.py: the keyed permutation of an epoch and the rows of a step",
    "batch labels": f"{_REF}/batch.py: out = labels[indices]",
    "condition class sums": f"{_REF}/condition.py: dE[n] = sum of dz over the rows of class n",
    "condition projection forward": f"{_REF}/condition.py: y_r = x_r . w + b + x_r . e_r",
    "condition projection dgrad": f"{_REF}/condition.py: dx_r = (s_r w + s_r e_r) * act'(z_before)",
    "condition projection wgrad": f"{_REF}/condition.py: de_r = s_r x_r",
    "condition sum": f"{_REF}/condition.py: y = act(a + b)",
    "initializers": f"{_REF}/initializers.py: Var W = 2 / fan_in (He), 2 / (fan_in + fan_out) (Glorot)",
    "sgd update": f"{_MODELS}/optimizer.py: update of sgd with momentum and weight decay",
    "adam update": f"{_MODELS}/optimizer.py: update of adam with beta1, beta2, eps",
    "rmsprop update": f"{_MODELS}/optimizer.py: update of rmsprop with beta2, eps, momentum, weight decay",
    "lion update": f"{_MODELS}/optimizer.py: update of lion with beta1, beta2, weight decay",
    "adamw update": f"{_MODELS}/optimizer.py: update of adamw with beta1, beta2, eps, weight decay",
    "gan initial weights": f"{_MODELS}/layers.py: initial, He for rectifiers, a tensor number for each layer",
    "gan rows": f"{_MODELS}/step.py: gather, rows of the epoch's order from the stream ORDER, scale and shift",
    "gan noise": f"{_MODELS}/gan.py: generate, normals of the seed from the stream NOISE",
    "gan discriminator loss": f"{_MODELS}/gan.py: discriminator_gradient, {_LOSS_D}",
    "gan discriminator gradient": f"{_MODELS}/gan.py: discriminator_gradient, or {_MODELS}/network.py: backward",
    "gan generator loss": f"{_MODELS}/gan.py: generator_gradient by the new discriminator, {_LOSS_G}",
    "gan generator gradient": f"{_MODELS}/gan.py: generator_gradient through D, or {_MODELS}/network.py: backward",
    "gan penalty gradient": f"{_MODELS}/penalty.py: tangent and curvature pass, or {_REF}/penalty.py",
    "gan gradient": f"{_MODELS}/gan.py: the gradients of both players, or {_MODELS}/network.py: backward",
    "gan count of steps": f"{_MODELS}/gan.py: compute, advance",
    "gan kept losses": f"{_MODELS}/gan.py: compute, advance",
    "gan reported losses": f"{_MODELS}/step.py: report",
    "vae initial weights": f"{_MODELS}/layers.py: initial, He for rectifiers, a tensor number for each layer",
    "vae rows": f"{_MODELS}/step.py: gather, rows of the epoch's order from the stream ORDER, scale and shift",
    "vae noise": f"{_MODELS}/vae.py: gradient, normals of the seed from the stream LATENT",
    "vae reconstruction": f"{_MODELS}/vae.py: _reconstruct, or {_MODELS}/network.py: forward",
    "vae KL": f"{_MODELS}/vae.py: gradient, KL of the encoder's heads",
    "vae penalty": f"{_MODELS}/vae.py: _weigh_kl, beta of the warm-up and sum max(lambda, mean KL)",
    "vae bound": f"{_MODELS}/iwae.py: gradient, -log 1/k sum w",
    "vae variance gradient": f"{_MODELS}/likelihood.py: noise_gradient, dlogvar",
    "vae decoder gradient": f"{_MODELS}/vae.py: gradient of the decoder, or {_MODELS}/network.py: backward",
    "vae encoder gradient": f"{_MODELS}/vae.py: back through z and the heads, beta, or {_MODELS}/network.py: backward",
    "vae gradient": f"{_MODELS}/vae.py: gradient, or {_MODELS}/network.py: backward",
    "vae count of steps": f"{_MODELS}/vae.py: compute, advance",
    "vae kept losses": f"{_MODELS}/vae.py: compute, advance",
    "vae reported losses": f"{_MODELS}/vae.py: report, loss = reconstruction + beta KL",
}
"""The file and the formula of each check, by operation and the first words of the check."""

_SOURCES = {
    "numpy": "minigen/reference/__init__.py",
    "cpu": "csrc/cpu/{}.cpp or csrc/math",
    "cuda": "minigen/cuda/kernels/{}.py",
}


def formula_of(operation: str, check: str) -> str:
    """What is wrong if ``check`` of ``operation`` fails on the reference."""
    return FORMULAS[max((key for key in FORMULAS if f"{operation} {check}".startswith(key)), key=len)]


def of_device(device: str, operation: str, method: str) -> str:
    """What is wrong if ``method`` of a device differs from the reference."""
    source = _SOURCES.get(device, device).format(operation)
    return f"{source} against {derivation(OPERATIONS[method].recorded_as)}: {OPERATIONS[method].formula}"


def check_values(rng: np.random.Generator) -> Iterator[Row]:
    """Rows of the report: values of the float64 reference against the formulas of ``gradcheck_plain``."""
    for operation, check, outputs, expected in _values(rng):
        pairs = [
            (np.atleast_1d(np.asarray(a, np.float64)), np.atleast_1d(np.asarray(b, np.float64)))
            for a, b in zip(outputs, expected, strict=True)
        ]
        error = float(np.max([relative_error(a, b) for a, b in pairs]))
        yield Row(operation, "reference", f"{check} vs formula", error, 1e-11, formula_of(operation, check))


Value = tuple[str, str, list[Any], list[Any]]


def _values(rng: np.random.Generator) -> Iterator[Value]:
    """(operation, what, values of the reference, values of the formulas)."""
    yield from _random_values(rng)
    yield from _layer_values(rng)
    yield from _loss_values(rng)
    yield from _update_values(rng)
    yield from _condition_values(rng)


def _random_values(rng: np.random.Generator) -> Iterator[Value]:
    seed, step = int(rng.integers(1, 2**32)), 2**40 + int(rng.integers(2**32))
    for n in (1, 6, 9):
        shape, draw = (n, 3), (seed, random.LATENT, step)
        yield "random", f"uniform {n}", [random.uniform(shape, *draw, np.float64)], [plain.uniforms(shape, *draw)]
        yield "random", f"normal {n}", [random.normal(shape, *draw, np.float64)], [plain.normals(shape, *draw)]
    streams = [random.INIT, random.ORDER, random.NOISE, random.LATENT, random.SAMPLE]
    yield "random", "streams", streams, [plain.INIT, plain.ORDER, plain.NOISE, plain.LATENT, plain.SAMPLE]
    for n in (1, 2, 5, 64, 100):
        epoch = int(rng.integers(2**40))
        order = batch.permutation(np.arange(n), n, seed, random.ORDER, epoch)
        yield "batch", f"order of {n}", [order], [plain.order(n, seed, epoch)]
    rows, B, n = 3, 4, 11  # the last, smaller step of an epoch of 3
    chosen = batch.indices(rows, n, seed, random.ORDER, 5 * 3 + 2, B, 3)
    yield "batch", "rows of a step", [chosen], [plain.order(n, seed, 5)[2 * B : 2 * B + rows]]
    data = rng.integers(0, 256, (n, 5), np.uint8)
    values = batch.gather(data, chosen, np.dtype(np.float64), 0.5, -3.0)
    yield "batch", "gather", [values], [data[chosen].astype(np.float64) / 2 - 3]
    for init in ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal"):
        W = getattr(initializers, init)(5, 9, seed, 3, np.float64)
        yield "initializers", init, [W], [plain.initial((5, 9), "relu", "relu", init, seed, 3)[0][0]]


def _layer_values(rng: np.random.Generator) -> Iterator[Value]:
    far = np.array([-1e4, -700, -30, -1, -1e-8, 1e-8, 1, 30, 700, 1e4])
    z = np.concatenate([far, rng.normal(size=30)])
    x, W, b = rng.normal(size=(4, 6)), rng.normal(size=(6, 5)), rng.normal(size=5)
    for name in DENSE_ACTIVATIONS:
        value, slope = plain.ACTIVATIONS[name]
        y = activations.forward(z, name)
        yield "activations", name, [*y], [*value(z)]  # each by itself: the large ones would hide the others
        near = np.abs(z) < 20  # further on tanh is 1 to the last digit, and nothing of z is left in y
        yield "activations", f"{name} derivative", [activations.derivative(y, name)[near]], [slope(z[near])]
        yield "dense", f"forward {name}", [dense.forward(x, W, b, name)], [value(x @ W + b)]


def _loss_values(rng: np.random.Generator) -> Iterator[Value]:
    s = np.concatenate([[-1e4, 1e4, 30, -30], 3 * rng.normal(size=8)])[rng.permutation(12), None]
    real, fake = s[:5], s[5:]
    softplus, sigmoid = plain.ACTIVATIONS["softplus"][0], plain.ACTIVATIONS["sigmoid"][0]
    for kind in GAN_LOSSES:
        (on_real, real_slope), (on_fake, fake_slope), (generator, slope) = plain.GAMES[kind]
        gradient = np.vstack([real_slope(real) / 5, fake_slope(fake) / 7])
        expected = [on_real(real).mean() + on_fake(fake).mean(), gradient]
        yield "gan_loss", f"discriminator {kind}", [*gan_loss.discriminator(s, 5, kind)], expected
        expected = [generator(s).mean(), slope(s) / 12]
        yield "gan_loss", f"generator {kind}", [*gan_loss.generator(s, kind)], expected
    x, out = rng.random((7, 4)), 4 * rng.normal(size=(7, 4))
    rows = (x * softplus(-out) + (1 - x) * softplus(out)).sum(axis=1)
    yield "vae_loss", "bernoulli", [*vae_loss.forward(out, x, "bernoulli")], [rows, rows.mean(), (sigmoid(out) - x) / 7]
    rows = ((x - out) ** 2 / 0.6 + np.log(2 * np.pi * 0.3) / 2).sum(axis=1)
    yield (
        "vae_loss",
        "gaussian",
        [*vae_loss.forward(out, x, "gaussian", 0.3)],
        [rows, rows.mean(), (out - x) / (0.3 * 7)],
    )
    yield from _likelihood_values(rng, x, out)
    mu, logvar, eps, dz = (rng.normal(size=(7, 4)) for _ in range(4))
    heads, sigma = np.hstack([mu, logvar]), np.exp(logvar) ** 0.5
    rows = (mu**2 + sigma**2 - 1 - logvar).sum(axis=1) / 2
    yield "latent", "forward", [*latent.forward(heads, eps)], [mu + sigma * eps, rows, rows.mean()]
    dheads = np.hstack([dz + 1.3 * mu / 7, dz * eps * sigma / 2 + 1.3 * (sigma**2 - 1) / 14])
    yield "latent", "backward", [latent.backward(dz, heads, eps, 1.3)], [dheads]
    mean_kl = ((mu**2 + sigma**2 - 1 - logvar) / 2).mean(axis=0)
    free_bits = float(np.sort(mean_kl)[1:3].mean())  # two latents of four are within it
    expected = [np.where(mean_kl > free_bits, 1.3, 0), 1.3 * np.maximum(mean_kl, free_bits).sum()]
    yield "latent", "free bits", [*latent.kl_weights(heads, 1.3, free_bits)], expected
    yield "latent", "warm-up", [latent.ramp(t, 1.3, 4) for t in (0, 1, 4, 9)], [0, 0.325, 1.3, 1.3]
    eps, seen = rng.normal(size=(2, 21, 4))
    mu, sigma = np.tile(mu, (3, 1)), np.tile(sigma, (3, 1))
    z = mu + sigma * eps
    log_q = -((z - mu) ** 2) / (2 * sigma**2) - np.log(sigma)
    ratios = (log_q + z**2 / 2).sum(axis=1)
    yield "importance", "sample", [*importance.sample(heads, eps)], [z, ratios, ratios.mean()]
    w = np.exp(-((z - seen) ** 2).sum(axis=1) / 2 - ratios).reshape(3, 7)
    expected = [(3 * w / w.sum(axis=0)).ravel(), -np.log(w.mean(axis=0)).mean()]
    yield "importance", "weights", [*importance.weights(((z - seen) ** 2).sum(axis=1) / 2, ratios, 3)], expected


def _likelihood_values(rng: np.random.Generator, x: np.ndarray, out: np.ndarray) -> Iterator[Value]:
    far = np.concatenate([out, np.clip(10 * out, -150, 150)]) * rng.integers(0, 2, (14, 4))  # 0 among them
    seen = np.concatenate([x, x])
    terms, slope = plain.continuous_bernoulli(far, seen)
    ours: Any = vae_loss.forward(far, seen, "continuous_bernoulli")
    yield "vae_loss", "continuous_bernoulli", [*ours], [terms.sum(axis=1), terms.sum(axis=1).mean(), slope / 14]
    for logvar in (rng.normal(size=4), rng.normal(size=1)):
        rows = ((x - out) ** 2 / np.exp(logvar) / 2 + np.log(2 * np.pi * np.exp(logvar)) / 2).sum(axis=1)
        dmean = (out - x) / np.exp(logvar) / 7
        expected = [rows, rows.mean(), dmean]
        yield "gaussian_loss", f"means {len(logvar)}", [*gaussian_loss.forward(out, x, logvar)], expected
        slopes = (1 - (x - out) ** 2 / np.exp(logvar)).mean(axis=0) / 2
        slopes = slopes if len(logvar) == 4 else slopes.sum(keepdims=True)
        yield "gaussian_loss", f"logvar {len(logvar)}", [gaussian_loss.logvar_gradient(dmean, out, x, logvar)], [slopes]
    labels = np.hstack([np.ones((7, 1)), np.eye(3)[rng.integers(0, 3, 7)]])  # blocks of one column and of three
    p = np.exp(out[:, 1:]) / np.exp(out[:, 1:]).sum(axis=1, keepdims=True)
    rows = -(labels[:, 1:] * np.log(p)).sum(axis=1)
    slope = np.hstack([np.zeros((7, 1)), p - labels[:, 1:]]) / 7
    ours = categorical_loss.forward(out, labels, np.array([1, 4]))
    yield "categorical_loss", "logits", [*ours], [rows, rows.mean(), slope]
    u = rng.integers(1, 2**24, (7, 4)) / 2**24
    e = np.exp((out - np.log(-np.log(u + 2.0**-24) + (u + 2.0**-24 == 1) * 2.0**-25)) / 0.4)
    y = np.hstack([np.tanh(out[:, :1]), e[:, 1:] / e[:, 1:].sum(axis=1, keepdims=True)])
    ours = gumbel_softmax.forward(out, u, np.array([1, 4]), "tanh", 0.4)
    yield "gumbel_softmax", "one number, three values of a label", [ours], [y]
    number = (x[:, 0] - out[:, 0]) / 0.3
    ours = mixed_loss.forward(out, np.hstack([x[:, :1], labels[:, 1:]]), np.array([1, 4]), np.log([0.3]))
    rows, slope[:, 0] = rows + number * (x[:, 0] - out[:, 0]) / 2 + np.log(2 * np.pi * 0.3) / 2, -number / 7
    yield "mixed_loss", "numbers and labels", [*ours], [rows, rows.mean(), slope]


def _update_values(rng: np.random.Generator) -> Iterator[Value]:
    p, g, m = rng.normal(size=(3, 20))
    v = rng.random(20)
    for t in (1, 7):
        s = OptimizerSettings("sgd", learning_rate=0.1, momentum=0.6, weight_decay=0.2)
        params, slots = plain.update(p, g, {"velocity": m}, t, s)
        yield "optimizer", f"sgd {t}", [*optimizer.sgd(p, g, m, 0.1, 0.6, 0.2)], [params, slots["velocity"]]
        for name, decay in (("adam", 0.0), ("adamw", 0.3)):
            s = OptimizerSettings(name, 0.1, beta1=0.7, beta2=0.8, eps=0.05, weight_decay=decay)
            params, slots = plain.update(p, g, {"m": m, "v": v}, t, s)
            ours = getattr(optimizer, name)(p, g, m, v, 0.1, t, 0.7, 0.8, 0.05, *[decay] * (name == "adamw"))
            yield "optimizer", f"{name} {t}", [*ours], [params, slots["m"], slots["v"]]
    s = OptimizerSettings("rmsprop", 0.1, beta2=0.8, eps=0.05, momentum=0.6, weight_decay=0.2)
    params, slots = plain.update(p, g, {"velocity": m, "v": v}, 3, s)
    ours = optimizer.rmsprop(p, g, m, v, 0.1, 0.8, 0.05, 0.6, 0.2)
    yield "optimizer", "rmsprop", [*ours], [params, slots["velocity"], slots["v"]]
    s = OptimizerSettings("lion", 0.1, beta1=0.7, beta2=0.8, weight_decay=0.2)
    params, slots = plain.update(p, g, {"m": m}, 3, s)
    yield "optimizer", "lion", [*optimizer.lion(p, g, m, 0.1, 0.7, 0.8, 0.2)], [params, slots["m"]]
    for most in (0.5, 100.0):
        s = OptimizerSettings("sgd", 1.0, clip_norm=most)
        params, _ = plain.update(p, g, {"velocity": 0 * m}, 1, s)
        clipped, norm = clipping.clip_norm(g, most)
        yield "clipping", f"to {most}", [p - clipped, norm], [params, np.linalg.norm(g)]
    for t in (0, 1, 8_000, 20_000):
        w = plain.average_weight(t, 0.999)
        yield "averaging", f"step {t}", [averaging.average(m, p, t, 0.999)], [(1 - w) * m + w * p]
    for kind in SCHEDULES:
        for t in (0, 6, 7, 50, 89, 90, 99, 100, 2**40):
            yield (
                "schedule",
                f"{kind}, step {t}",
                [schedule.rate(0.3, t, kind, 7, 100)],
                [plain.rate(0.3, t, kind, 7, 100)],
            )


def _condition_values(rng: np.random.Generator) -> Iterator[Value]:
    x, e, dz = rng.normal(size=(7, 4)), rng.normal(size=(7, 4)), rng.normal(size=(7, 1))
    labels = rng.integers(0, 3, 7)
    onehot = np.eye(3)[labels]
    yield "batch", "labels", [batch.labels(labels, np.array([6, 0, 6]))], [[labels[6], labels[0], labels[6]]]
    yield "condition", "class sums", [condition.class_sums(x, labels, 3)], [onehot.T @ x]
    yield "condition", "projection forward", [condition.projection_forward(x, e)], [np.diag(x @ e.T)[:, None]]
    yield "condition", "projection wgrad", [condition.projection_wgrad(x, dz)], [np.diag(dz[:, 0]) @ x]
    for name in DENSE_ACTIVATIONS:
        value, slope = plain.ACTIVATIONS[name]
        yield "condition", f"sum {name}", [condition.activation_of_sum(x, e, name)], [value(x + e)]
        dx = condition.projection_dgrad(dz, e, value(x), name)
        yield "condition", f"projection dgrad {name}", [dx], [np.diag(dz[:, 0]) @ e * slope(x)]
