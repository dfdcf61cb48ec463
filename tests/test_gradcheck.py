"""gradcheck: it passes where the gradients are right, and fails where one is not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen import gradcheck
from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck_formulas import FORMULAS
from minigen.models.optimizer import Optimizer
from minigen.reference import activations, dense, latent
from minigen.reference_backend import NumpyBackend


@pytest.mark.slow
def test_everything_passes(backend, seed):
    rows = gradcheck.run([backend], seed)
    assert [row for row in rows if not row.passed] == []
    assert {row.device for row in rows} == {"reference", backend.name}
    operations = {"dense", "activations", "gan_loss", "vae_loss", "latent"}
    assert {row.operation for row in rows if row.device == "reference"} >= operations
    operations |= {"optimizer", "random", "batch"}
    assert {row.operation for row in rows if row.device == backend.name} >= operations


def failed(rows):
    return {(row.device, row.operation) for row in rows if not row.passed}


UPDATE = Optimizer.update


@pytest.mark.slow
def test_a_wrong_formula_in_the_reference_fails(monkeypatch, seed):
    right = activations.derivative
    monkeypatch.setattr(activations, "derivative", lambda y, name: right(y, name) + (1e-6 if name == "tanh" else 0))
    rows = gradcheck.run([], seed)
    steps = {("reference", "gan step"), ("reference", "vae step")}
    operations = {("reference", name) for name in ("dense", "activations", "penalty", "condition", "gumbel_softmax")}
    assert failed(rows) == operations | steps
    named = [row for row in rows if not row.passed and "step" not in row.operation]
    assert named and all("tanh" in row.check for row in named)
    told = {row.formula for row in rows if not row.passed}
    assert "minigen/reference/activations.py: y = act(z), or act'(z) from y" in told


@pytest.mark.slow
def test_a_missing_term_in_the_reference_fails(monkeypatch, seed):
    right = latent.backward
    monkeypatch.setattr(latent, "backward", lambda dz, heads, eps, beta: right(dz, heads, eps, 0.0))
    assert ("reference", "latent") in failed(gradcheck.run([], seed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "wrong", "formula"),
    [
        (
            "minigen.models.optimizer.Optimizer.update",
            lambda self, step: (
                self.ops.sgd(self.net.params, self.net.grads, self.slots["velocity"], self.lr)
                if self.settings.optimizer == "sgd"
                else UPDATE(self, step)
            ),
            "minigen/models/optimizer.py: update of sgd with momentum and weight decay",
        ),
        (
            "minigen.models.vae.VaeStep.report",
            lambda self, terms: np.column_stack([terms[:, :2].sum(axis=1), terms[:, :2]]),
            "minigen/models/vae.py: report, loss = reconstruction + beta KL",
        ),
        ("minigen.reference.initializers.random.INIT", 7, "minigen/reference/random.py"),
        (
            "minigen.reference.optimizer.adam",
            lambda p, g, m, v, lr, t, beta1, beta2, eps: (p - lr * g, m, v),
            "minigen/reference/optimizer.py: m, v, p",
        ),
        ("minigen.reference.batch.fmix32", lambda h: h ^ h, "minigen/reference/batch.py: the keyed permutation"),
    ],
    ids=["update", "report", "stream", "adam", "order"],
)
def test_the_formula_that_is_wrong_is_told(monkeypatch, seed, place, wrong, formula):
    monkeypatch.setattr(place, wrong)
    told = [row.formula for row in gradcheck.run([], seed) if not row.passed]
    assert any(text.startswith(formula) for text in told), told


class Sloppy(NumpyBackend):
    """A backend with three faults: a wrong factor, an output never written, and an entry that is NaN."""

    def latent_backward(self, dz, heads, eps, weights, dheads):
        super().latent_backward(dz, heads, eps, 1.01 * weights, dheads)

    def dense_wgrad(self, x, dz, dW, db=None, accumulate=False):
        dW[...] = dense.wgrad(x, dz)[0] + (dW if accumulate else 0)

    def batch_gather(self, data, indices, out, scale=1.0, shift=0.0):
        super().batch_gather(data, indices, out, scale, shift)
        out[-1, -1] = np.nan


@pytest.mark.slow
def test_a_faulty_backend_fails(seed):
    rows = gradcheck.run([NumpyBackend(), Sloppy()], seed)
    operations = [row.operation for row in rows if not row.passed]
    assert {name for name in operations if "step" not in name} == {"dense", "latent", "batch"}
    assert {"gan step", "vae step"} <= set(operations), "whole steps are made of these operations"


@pytest.mark.slow
def test_same_seed_same_errors():
    assert gradcheck.run([], 5) == gradcheck.run([], 5)


def test_differences_are_of_fourth_order():
    x = np.array([[0.3, -1.2], [2.0, 0.7]])
    np.testing.assert_allclose(gradcheck.differences(lambda x: np.sin(x).sum(), x), np.cos(x), rtol=1e-11)
    np.testing.assert_allclose(gradcheck.differences(lambda x: (x**4).sum(), x, h=0.5), 4 * x**3, rtol=1e-12)


def test_relative_error():
    assert gradcheck.relative_error(np.array([3.0, 4.1]), np.array([3.0, 4.0])) == pytest.approx(0.02)
    assert gradcheck.relative_error(np.zeros(3), np.zeros(3)) == 0
    assert gradcheck.relative_error(np.full(3, 1e-9), np.zeros(3)) > 0
    assert not gradcheck.Row("a", "b", "c", float("nan"), 1.0).passed
    with pytest.raises(ValueError, match="shapes"):
        gradcheck.relative_error(np.zeros(3), np.zeros(4))


def test_every_activation_is_checked(rng):
    checks = {check for operation, check, *_ in gradcheck.derivatives(rng) if operation == "activations"}
    assert checks == set(DENSE_ACTIVATIONS)


def test_the_files_that_lines_name_exist():
    root = Path(minigen.__file__).parent.parent
    named = {file for text in FORMULAS.values() for file in re.findall(r"minigen/\S+\.py", text)}
    assert len(named) > 10 and [file for file in named if not (root / file).is_file()] == []
