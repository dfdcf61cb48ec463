"""Conditional models: whole steps against PyTorch, and what the estimators make of labels and numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minigen
from helpers import f32
from minigen.backend import DENSE_ACTIVATIONS, GAN_LOSSES
from minigen.models.conditional import (
    Condition,
    ConditionBias,
    Projection,
    side_by_side,
    with_condition_beside_input,
    with_projection,
)
from minigen.models.gan import GanStep
from minigen.models.hidden import dense_layers
from minigen.models.network import Network
from minigen.models.optimizer import OptimizerSettings
from minigen.models.vae import VaeStep
from minigen.reference import random
from minigen.training.run import TrainingRun
from models import blobs

CONDITIONS = ("labels", "numbers")


def conditions_of(kind: str, rows: int, rng) -> tuple[Condition, np.ndarray]:
    """A kind of condition, and those of ``rows`` as a step takes them."""
    size = int(rng.integers(1, 6))
    if kind == "labels":
        return Condition(size, labelled=True), rng.integers(0, size, rows, np.int32)
    return Condition(size, labelled=False), f32(rng.normal(size=(rows, size)))


def network(ops, name, layers, first, rng) -> Network:
    net = Network(ops, name, layers)
    net.initialize(int(rng.integers(2**32)), "auto", first)
    state = net.state()
    noisy = {key: value + 0.1 * rng.normal(size=value.shape) for key, value in state.items()}  # biases are not 0
    net.load_state({key: value.astype(np.float32) for key, value in noisy.items()})
    ops.upload(np.full(net.grads.shape, np.nan, ops.dtype), out=net.grads)
    return net


class Torch:
    """Networks of ours in PyTorch, in double precision, the condition as a vector of numbers."""

    def __init__(self, nets):
        self.torch = pytest.importorskip("torch")
        self.nets = {net.name: net for net in nets}
        state = {key: value for net in nets for key, value in net.state().items()}
        self.p = {key: self.tensor(value).requires_grad_(True) for key, value in state.items()}

    def tensor(self, value):
        return self.torch.tensor(np.asarray(value, np.float64))

    def activate(self, z, name):
        functional = self.torch.nn.functional
        of = {"linear": lambda z: z, "leaky_relu": lambda z: functional.leaky_relu(z, 0.2), "tanh": self.torch.tanh}
        return of.get(name, getattr(functional, name, None))(z)

    def __call__(self, name, x, c):
        for layer in self.nets[name].layers:
            part = {key: self.p[f"{layer.name}.{key}"] for key in layer.shapes}
            z = x @ part["W"] + part["b"] if "W" in part else x
            if isinstance(layer, ConditionBias):
                z = z + c @ part["E"]
            elif isinstance(layer, Projection):
                z = z + (x * (c @ part["E"])).sum(1, keepdim=True)
            x = self.activate(z, layer.activation)
        return x

    def gradients(self, loss, *names):
        keys = [key for key in self.p if key.partition(".")[0] in names]
        return dict(zip(keys, self.torch.autograd.grad(loss, [self.p[key] for key in keys]), strict=True))


def compare(ops, nets, expected, tolerance):
    for net in nets:
        size = max(float(expected[key].abs().max()) for key in net.state())
        for layer in net.layers:
            for part, buffer in layer.grads.items():
                got = ops.download(buffer)
                np.testing.assert_allclose(got, expected[f"{layer.name}.{part}"], rtol=tolerance, atol=tolerance * size)


def of_batch(step, conditions, size, labelled, most=None):
    """The conditions of the first ``most`` rows that the step has taken, as vectors."""
    rows = step.ops.download(step.indices)[:most]
    return np.eye(size)[conditions[rows]] if labelled else conditions[rows]


@pytest.mark.parametrize("conditioning", ["input", "projection"])
@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("pack", [1, 3])
def test_gradients_of_a_gans_step_agree_with_autograd(backend, kind, conditioning, pack, rng):
    pytest.importorskip("torch")
    tolerance = {"float32": 1e-4, "float64": 1e-11}[backend.dtype.name]
    B, columns, latent = (int(n) for n in rng.integers(1, 12, 3))
    B *= pack
    condition, conditions = conditions_of(kind, 3 * B, rng)
    sizes = [tuple(int(n) for n in rng.integers(2, 9, rng.integers(0, 3))) for _ in "GD"]
    hidden = str(rng.choice([name for name in DENSE_ACTIVATIONS if name != "relu"]))
    layers = dense_layers((latent, *sizes[0], columns), hidden, "sigmoid")
    G = network(backend, "generator", with_condition_beside_input(layers, condition), 0, rng)
    layers = dense_layers((pack * columns, *sizes[1], 1), hidden, "linear")
    conditioned = with_projection if conditioning == "projection" else with_condition_beside_input
    D = network(backend, "discriminator", conditioned(layers, side_by_side(condition, pack)), 10, rng)
    data = f32(rng.random((3 * B, columns))).astype(backend.dtype)
    given = conditions if condition.labelled else conditions.astype(backend.dtype)
    loss, seed = str(rng.choice([kind for kind in GAN_LOSSES if kind != "hinge"])), int(rng.integers(2**32))
    of = {"settings": OptimizerSettings(), "loss": loss, "seed": seed, "conditions": given, "pack": pack}
    step = GanStep(backend, G, D, data, batch_size=B, **of)
    step.generate()
    step.discriminator_gradient()
    step.generator_gradient()
    ours = Torch([G, D])
    c = ours.tensor(of_batch(step, conditions, condition.size, condition.labelled))
    real = ours.tensor(data[backend.download(step.indices)])
    for_d, for_g = ours.tensor(random.normal((2 * B, latent), seed, random.NOISE, 0, np.float64)).split(B)
    softplus = ours.torch.nn.functional.softplus
    on_real, on_fake, of_g = {
        "non_saturating": (lambda s: softplus(-s), softplus, lambda s: softplus(-s)),
        "minimax": (lambda s: softplus(-s), softplus, lambda s: -softplus(s)),
        "least_squares": (lambda s: (s - 1) ** 2 / 2, lambda s: s**2 / 2, lambda s: (s - 1) ** 2 / 2),
        "wasserstein": (lambda s: -s, lambda s: s, lambda s: -s),
    }[loss]

    def judge(rows):
        """``pack`` neighbours side by side, and what they have as conditions."""
        packs = (ours.torch.cat([x[place::pack] for place in range(pack)], dim=1) for x in (rows, c))
        return ours("discriminator", *packs)

    fake = ours("generator", for_d, c).detach()
    loss_d = on_real(judge(real)).mean() + on_fake(judge(fake)).mean()
    loss_g = of_g(judge(ours("generator", for_g, c))).mean()
    expected = ours.gradients(loss_d, "discriminator") | ours.gradients(loss_g, "generator")
    compare(backend, [G, D], expected, tolerance)
    np.testing.assert_allclose(backend.download(step.losses), [loss_d.item(), loss_g.item()], rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_gradients_of_a_vaes_step_agree_with_autograd(backend, kind, rng):
    """Also of a last step on fewer rows than a batch has."""
    pytest.importorskip("torch")
    tolerance = {"float32": 1e-4, "float64": 1e-11}[backend.dtype.name]
    B, columns, latent = (int(n) for n in rng.integers(1, 12, 3))
    condition, conditions = conditions_of(kind, 3 * B, rng)
    hidden, name = tuple(int(n) for n in rng.integers(2, 9, rng.integers(0, 3))), str(rng.choice(DENSE_ACTIVATIONS[2:]))
    widths = {"encoder": (columns, *hidden, 2 * latent), "decoder": (latent, *hidden, columns)}
    nets = [
        network(backend, key, with_condition_beside_input(dense_layers(of, name, "linear"), condition), i, rng)
        for i, (key, of) in enumerate(widths.items())
    ]
    data, seed = f32(rng.random((3 * B, columns))).astype(backend.dtype), int(rng.integers(2**32))
    given = conditions if condition.labelled else conditions.astype(backend.dtype)
    step = VaeStep(
        backend, *nets, data, batch_size=B, settings=OptimizerSettings(), beta=0.7, seed=seed, conditions=given
    )
    for rows in {B, max(1, B - 1)}:
        step.gradient(rows)
        ours = Torch(nets)
        c = ours.tensor(of_batch(step, conditions, condition.size, condition.labelled, rows))
        x = ours.tensor(data[backend.download(step.indices)[:rows]])
        eps = ours.tensor(random.normal((rows, latent), seed, random.LATENT, 0, np.float64))
        mu, logvar = ours("encoder", x, c).split(latent, 1)
        logits = ours("decoder", mu + (logvar / 2).exp() * eps, c)
        softplus = ours.torch.nn.functional.softplus
        reconstruction = (softplus(logits) - x * logits).sum(1).mean()
        kl = ((mu**2 + logvar.exp() - 1 - logvar) / 2).sum(1).mean()
        expected = ours.gradients(reconstruction + 0.7 * kl, "encoder", "decoder")
        compare(backend, nets, expected, tolerance)
        got = backend.download(step.losses)
        np.testing.assert_allclose(got, [reconstruction.item(), kl.item()], rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_a_condition_is_the_same_as_more_columns_of_the_input(kind, rng):
    """``[x, c] [W; E] + b``: a dense layer of all of it, forward and backward."""
    from minigen.reference_backend import NumpyBackend

    ops = NumpyBackend(np.float64)
    condition, conditions = conditions_of(kind, 9, rng)
    conditional = Network(ops, "net", with_condition_beside_input(dense_layers((4, 6, 2), "tanh", "linear"), condition))
    conditional.initialize(3, "auto", 0)
    W, _, E = list(conditional.state().values())[:3]
    plain = Network(ops, "net", dense_layers((4 + condition.size, 6, 2), "tanh", "linear"))
    last = dict(zip(("net.1.W", "net.1.b"), list(conditional.state().values())[3:], strict=True))
    plain.load_state({"net.0.W": np.vstack([W, E]), "net.0.b": np.zeros(6), **last})
    x, dz = rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    c = np.eye(condition.size)[conditions] if condition.labelled else conditions
    wide = np.hstack([x, c])
    work = conditional.workspace(9, context=minigen.models.layers.Context(condition=conditions))
    all_of_it = plain.workspace(9)
    np.testing.assert_allclose(conditional.forward(x, work), plain.forward(wide, all_of_it), rtol=1e-12)
    np.testing.assert_allclose(conditional.forward(x[2:7], work.rows(2, 7)), plain.forward(wide, all_of_it)[2:7])
    conditional.forward(x, work)
    dx, dwide = np.empty((9, 4)), np.empty_like(wide)
    for net, stored, rows, out in ((conditional, work, x, dx), (plain, all_of_it, wide, dwide)):
        stored[-1].dz[...] = dz
        net.backward(rows, stored, dx=out)
    np.testing.assert_allclose(dx, dwide[:, :4], rtol=1e-12)
    np.testing.assert_allclose(conditional.layers[0].grads["W"], plain.layers[0].grads["W"][:4], rtol=1e-12)
    np.testing.assert_allclose(conditional.layers[1].grads["E"], plain.layers[0].grads["W"][4:], rtol=1e-12, atol=1e-14)


def labelled_steps(ops, data, labels):
    """A step of each model, with a last, smaller batch of the VAE's."""
    condition, settings = Condition(4, labelled=True), OptimizerSettings(learning_rate=0.01)
    for conditioned in (with_condition_beside_input, with_projection):
        G = with_condition_beside_input(dense_layers((3, 9, 12), "leaky_relu", "tanh"), condition)
        D = conditioned(dense_layers((12, 9, 1), "leaky_relu", "linear"), condition)
        nets = Network(ops, "generator", G), Network(ops, "discriminator", D)
        yield (
            nets,
            GanStep(ops, *nets, data, batch_size=16, settings=settings, scale=2 / 255, shift=-1.0, conditions=labels),
        )
    layers = dense_layers((12, 9, 6), "relu", "linear"), dense_layers((3, 9, 12), "relu", "linear")
    named = zip(("encoder", "decoder"), layers, strict=True)
    nets = tuple(Network(ops, name, with_condition_beside_input(each, condition)) for name, each in named)
    yield nets, VaeStep(ops, *nets, data, batch_size=16, settings=settings, scale=1 / 255, conditions=labels)


def test_a_captured_step_does_what_its_calls_do(backend):
    """Fused or not, and against the float64 reference: six steps of each model."""
    from minigen.reference_backend import NumpyBackend

    data, labels = blobs(40), (np.arange(40) % 4).astype(np.int32)
    steps = [labelled_steps(ops, data, labels) for ops in (backend, NumpyBackend(np.float64))]
    for (nets, step), (others, reference) in zip(*steps, strict=True):
        for each in (nets, others):
            for i, net in enumerate(each):
                net.initialize(5, "auto", 10 * i)
        for training in (TrainingRun(step), TrainingRun(reference)):
            for _ in range(2):
                training.run(training.steps_per_epoch)
        for net, other in zip(nets, others, strict=True):
            np.testing.assert_allclose(backend.download(net.params), other.params, rtol=1e-3, atol=1e-4)


# --- estimators ---------------------------------------------------------------------------------------

QUICK = {"epochs": 2, "hidden": (8,), "latent_dim": 3, "batch_size": 16, "device": "numpy"}
QUIET = {"progress": False}
MODELS = {
    "gan": lambda **more: minigen.GAN(**QUICK | more),
    "projection": lambda **more: minigen.GAN(conditioning="projection", **QUICK | more),
    "vae": lambda **more: minigen.VAE(**QUICK | more),
}
every_model = pytest.mark.parametrize("kind", MODELS)
WORDS = np.array(["a cat", "a dog", "Übung"])


def uses(model, X, y):
    """Everything that takes a condition of rows that there are."""
    if model.kind == "gan":
        return {"discriminate": model.discriminate(X, y), "generate": model.generate(model.latent(len(X), 1), y)}
    return {
        "encode": model.encode(X, y),
        "transform": model.transform(X, y),
        "reconstruct": model.reconstruct(X, y),
        "decode": model.decode(model.encode(X, y), y),
        "elbo": model.elbo(X, y),
        "score_samples": model.score_samples(X, y, samples=3),
    }


@every_model
@pytest.mark.parametrize("of", ["words", "integers", "bools", "numbers"])
def test_a_model_with_conditions_is_saved_loaded_and_goes_on(kind, of, tmp_path, rng):
    X, y = blobs(48), np.arange(48) % 3
    y = {"words": WORDS[y], "integers": 10 - 7 * y, "bools": y > 0, "numbers": rng.normal(3, 9, (48, 2))}[of]
    model = MODELS[kind]().fit(X, y, **QUIET)
    expected = {"words": WORDS.tolist(), "integers": [-4, 3, 10], "bools": [False, True], "numbers": None}[of]
    assert (None if model.classes_ is None else model.classes_.tolist()) == expected
    model.save(tmp_path / "model.safetensors")
    again = minigen.load(tmp_path / "model.safetensors", "numpy")
    np.testing.assert_array_equal(again.classes_, model.classes_)
    some = y[:5] if of == "numbers" else y[[0, 0, 2, 3, 5]]
    for name, result in uses(model, X, y).items():
        np.testing.assert_array_equal(uses(again, X, y)[name], result, err_msg=name)
        assert np.isfinite(np.asarray(result, np.float64)).all()
    np.testing.assert_array_equal(again.sample(5, 1, y=some), model.sample(5, 1, y=some))
    twice = MODELS[kind](epochs=4).fit(X, y, **QUIET)
    for trained in (model, again):
        trained.partial_fit(X, y, epochs=2, **QUIET)
        for net, other in zip(trained.networks_, twice.networks_, strict=True):
            np.testing.assert_array_equal(net.params, other.params)


@every_model
def test_the_condition_matters_and_every_row_has_its_own(kind):
    X, y = blobs(48), np.arange(48) % 3
    model = MODELS[kind](epochs=20, learning_rate=0.01, activation="tanh").fit(X, y, **QUIET)
    for name, result in uses(model, X, y).items():
        other = uses(model, X, (y + 1) % 3)[name]
        assert (np.asarray(result, np.float64) != other).reshape(48, -1).any(axis=1).sum() > 40, name
        backwards = uses(model, X[::-1], y[::-1])[name]
        if name != "generate":
            size = np.abs(np.asarray(result, np.float64)).max()
            np.testing.assert_allclose(backwards[::-1], result, rtol=1e-4, atol=1e-4 * size, err_msg=name)


@every_model
def test_samples_of_classes(kind):
    X, y = blobs(60), WORDS[np.repeat([0, 1, 2], [40, 15, 5])]
    model = MODELS[kind]().fit(X, y, **QUIET)
    all_of = model.sample(6, 1, y="a dog")
    np.testing.assert_array_equal(all_of, model.sample(6, 1, y=["a dog"] * 6))
    mixed = model.sample(6, 1, y=["a dog", "Übung"] * 3)
    np.testing.assert_array_equal(mixed[::2], all_of[::2])
    np.testing.assert_array_equal(model.sample(7, 1, balanced=True), model.sample(7, 1, y=np.resize(WORDS, 7)))
    np.testing.assert_array_equal(model.sample(9, 4), model.sample(9, 4))
    codes = model._codes_to_sample(20_000, 4, None, False)
    np.testing.assert_allclose(np.bincount(codes) / 20_000, [40 / 60, 15 / 60, 5 / 60], atol=0.02)
    assert model.sample(0, 1).shape == (0, 12)


def test_rows_beyond_those_that_are_held_at_once(monkeypatch):
    """Labels go with their rows from one piece to the next, also where the last is shorter."""
    from minigen.estimators import scoring, trained

    X, y = blobs(47), np.arange(47) % 3
    models = [MODELS[kind]().fit(X, y, **QUIET) for kind in MODELS]
    whole = [uses(model, X, y) for model in models]
    for module in (trained, scoring):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 10)
    for model, before in zip(models, whole, strict=True):
        for name, result in uses(model, X, y).items():
            np.testing.assert_allclose(result, before[name], rtol=1e-5, atol=1e-5 * np.abs(before[name]).max())


def test_a_vae_of_few_rows_and_steps_heeds_its_label():
    """Of digits that it is told are others it makes those; a label that weighs as little as one latent is lost."""
    digits = minigen.datasets.mnist_sample()
    X, y = digits.images.reshape(-1, 784), digits.labels
    model = minigen.VAE(hidden=(64,), latent_dim=16, epochs=12, batch_size=100, seed=1)
    model.fit(X[:800], y[:800], progress=False)
    E = model.decoder_.layers[1].initial(0, "glorot_uniform", 0, np.float32)["E"]
    np.testing.assert_allclose(np.abs(E).max(), np.sqrt(16 * 6 / (10 + 64)), rtol=0.02)
    rows, others = X[800:1000], (y[800:1000] + 3) % 10
    made = model.decode(model.encode(rows, y[800:1000]), others)
    means = np.stack([X[y == c].mean(axis=0) for c in range(10)])
    nearest = np.square(made[:, None] - means.astype(np.float32)).mean(axis=2).argmin(axis=1)
    assert (nearest == others).mean() > 0.4


def test_a_grid_has_a_row_a_class():
    X = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    model = MODELS["gan"]().fit(X, np.arange(40) % 4, **QUIET)
    items, across = model._grid(22, 3)
    assert (len(items), across) == (24, 6)
    np.testing.assert_array_equal(items, model.sample(24, 3, y=np.repeat([0, 1, 2, 3], 6)))
    assert len(model._grid(3, 3)[0]) == 3, "more classes than pictures"
    assert model._grid(22, 3, columns=2)[1] == 2 and len(model._grid(22, 3, columns=2)[0]) == 8
    assert len(model._grid(5, 3, y=2)[0]) == 5
    picture = pytest.importorskip("PIL", reason="no Pillow") and model.show(22, 3)
    assert "24 samples" in repr(picture) or picture is not None


def test_series_and_lists_are_labels():
    X, y = blobs(48), WORDS[np.arange(48) % 3]
    expected = MODELS["vae"]().fit(X, y, **QUIET).encode(X, y)
    given = [y.tolist(), y.astype(object)]
    for library in ("pandas", "polars"):
        try:
            given.append(__import__(library).Series(y.tolist()))
        except ImportError:
            continue
    for labels in given:
        model = MODELS["vae"]().fit(X, labels, **QUIET)
        np.testing.assert_array_equal(model.encode(X, labels), expected)
    whole = np.arange(48) % 3 + 5.0  # as a table of numbers holds them
    assert MODELS["vae"]().fit(X, whole, **QUIET).classes_.tolist() == [5, 6, 7]
    assert MODELS["vae"]().fit(X, np.zeros(48, int), **QUIET).classes_.tolist() == [0], "one class is a class"


@pytest.mark.parametrize("kind", ["gan", "vae"])
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros(47, int), ValueError, "y must have as many entries as X has rows, 48, not 47"),
        (np.full(48, np.nan), ValueError, "y must have a label for every row, but some are NaN"),
        (np.linspace(0, 1, 48), ValueError, r"y must be labels .* not fractions such as 0.0.*y.reshape\(-1, 1\)"),
        (np.full((48, 2), np.nan), ValueError, "y must be finite"),
        (np.zeros((48, 2, 1)), ValueError, r"y must have shape \[N\] .labels. or \[N, C\]"),
        (np.zeros((48, 0)), ValueError, r"y must have shape"),
        (3, ValueError, "y must have a label, or numbers"),
        (["a"] * 47 + [None], TypeError, "y must be labels of one kind, .* but one is None"),
        (["a"] * 47 + [3.5], (TypeError, ValueError), "y"),
        (np.zeros(48, "datetime64[s]"), TypeError, "y must be labels"),
        (np.zeros(48, complex), TypeError, "y must be labels"),
    ],
)
def test_bad_conditions_are_refused(kind, y, error, message):
    model = MODELS[kind]().fit(blobs(48), np.arange(48) % 2, **QUIET)
    before = model.networks_[0].state()
    with pytest.raises(error, match=message):
        model.fit(blobs(48), y, **QUIET)
    after = model.networks_[0].state()
    assert all((before[key] == after[key]).all() for key in before), "the model is as it was"


@every_model
def test_conditions_that_a_model_does_not_know(kind):
    X, y = blobs(48), np.arange(48) % 3
    model, numbers, plain = (MODELS[kind]() for _ in range(3))
    model.fit(X, y, **QUIET)
    numbers.fit(X, np.stack([y, -y], axis=1), **QUIET)
    for use in (lambda y: uses(model, X, y), lambda y: model.sample(48, y=y), lambda y: model.partial_fit(X, y)):
        with pytest.raises(ValueError, match="y holds the label 7, but the model knows the labels 0, 1, 2"):
            use(np.where(y == 2, 7, y))
        with pytest.raises(TypeError, match="y must hold the labels 0, 1, 2"):
            use(np.where(y == 2, "2", "1"))
        with pytest.raises(ValueError, match=r"y must be one label or have one for each of the 48 rows, not 47"):
            use(y[:47])
    for use in (lambda **at: uses(model, X, at.get("y")), lambda **at: model.partial_fit(X, **at)):
        with pytest.raises(ValueError, match="y must be given, the rows' labels: .* conditional=False"):
            use()
    with pytest.raises(ValueError, match="y must be given, the numbers beside the rows"):
        numbers.sample(3)
    with pytest.raises(ValueError, match=r"y must have shape \(2,\) or \(3, 2\), not \(3,\)"):
        numbers.sample(3, y=[1, 2, 3])
    with pytest.raises(ValueError, match="balanced must be False: the model has no labels"):
        numbers.sample(3, balanced=True)
    with pytest.raises(ValueError, match="balanced must be False: y says which"):
        model.sample(3, y=1, balanced=True)
    if kind == "projection":
        with pytest.raises(ValueError, match="conditioning must be 'input' without labels"):
            plain.fit(X, **QUIET)
        return
    plain.fit(X, **QUIET)
    with pytest.raises(ValueError, match="y must be None: the model was trained without labels"):
        plain.partial_fit(X, y, **QUIET)
    with pytest.raises(ValueError, match="y must be None"):
        plain.sample(3, y=1)


def test_what_the_switch_does():
    X, y = blobs(48), np.arange(48) % 3
    for kind in ("gan", "vae"):
        plain, ignoring = MODELS[kind]().fit(X, **QUIET), MODELS[kind](conditional=False).fit(X, y, **QUIET)
        for net, other in zip(plain.networks_, ignoring.networks_, strict=True):
            np.testing.assert_array_equal(net.params, other.params)
        with pytest.raises(ValueError, match="y must be given with conditional=True"):
            MODELS[kind](conditional=True).fit(X, **QUIET)
    told, auto = MODELS["vae"](conditional=True), MODELS["vae"]()
    np.testing.assert_array_equal(told.fit_transform(X, y, **QUIET), told.encode(X, y))
    np.testing.assert_array_equal(auto.fit_transform(X, y, **QUIET), MODELS["vae"]().fit(X, **QUIET).encode(X))


def test_more_labels_than_can_be_learnt_are_warned_of():
    with pytest.warns(UserWarning, match=r"y has 48 different labels for 48 rows"):
        MODELS["vae"]().fit(blobs(48), np.arange(48), **QUIET)


@pytest.mark.parametrize(
    "change",
    [{"classes": [1, 0, 2]}, {"classes": ["a", 1, 2]}, {"counts": [1, 2]}, {"counts": [0, 1, 47]}, {"classes": 3}],
)
def test_a_file_with_wrong_labels_is_refused(change, tmp_path):
    from minigen.training import checkpoint

    path = tmp_path / "model.safetensors"
    MODELS["vae"]().fit(blobs(48), np.arange(48) % 3, **QUIET).save(path)
    settings, tensors = checkpoint.read(path)
    settings["fitted"] |= change
    checkpoint.write(path, json.dumps(settings), tensors)
    with pytest.raises(minigen.ModelFileError, match="classes|counts"):
        minigen.load(path, "numpy")


SHORT = {"hidden": (256,), "batch_size": 32, "epochs": 20, "learning_rate": 6e-4}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [minigen.VAE.preset("quality", epochs=10), minigen.GAN(**SHORT), minigen.GAN(conditioning="projection", **SHORT)],
    ids=["vae", "gan", "projection"],
)
def test_digits_are_the_ones_asked_for(model):
    """After few epochs a classifier finds the digit asked for several times as often as chance would."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    digits = minigen.datasets.mnist_sample()
    rows = digits.images.reshape(-1, 784) / 255
    classifier = linear_model.LogisticRegression(C=0.05, max_iter=500).fit(rows[:2500], digits.labels[:2500])
    assert classifier.score(rows[2500:], digits.labels[2500:]) > 0.85
    model.fit(digits, digits.labels, **QUIET)
    asked = np.repeat(model.classes_, 50)
    found = classifier.predict(model.sample(500, seed=1, y=asked).reshape(-1, 784) / 255)
    share = (found == asked).mean()
    print(f"{share:.2f} of the samples are of the class asked for")
    assert share > 0.4
