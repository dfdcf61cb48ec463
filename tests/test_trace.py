"""minigen.trace: a step watched is the step that would have been, and what is said of it is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_combinations
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import minigen
import minigen.models.gan
import minigen.models.vae
from minigen.errors import ArgumentError
from minigen.ops import OPERATIONS
from minigen.reference_backend import derivation
from minigen.registry import written

ROOT = Path(minigen.__file__).resolve().parent.parent
NOTHING_TO_DERIVE = ("advance", "scale_rows", "repeat_rows")
COLUMNS, ROWS = 5, 24
SMALL = {"latent_dim": 3, "hidden": (4,), "device": "numpy"}
MODELS: list[Any] = [
    lambda rng: (minigen.GAN(**SMALL, batch_size=8), False),
    lambda rng: (
        minigen.GAN(
            **SMALL,
            batch_size=8,
            r1=1.0,
            activation=str(rng.choice(minigen.ACTIVATIONS)),
            normalization="batch",
            n_critic=2,
            ema=0.9,
            clip_norm=0.5,
            schedule="linear",
            instance_noise=0.1,
            seed=int(rng.integers(99)),
        ),
        bool(rng.integers(2)),
    ),
    lambda rng: (
        minigen.GAN(
            **SMALL,
            batch_size=6,
            gradient_penalty=float(rng.uniform(0.1, 2)),
            maxout=2,
            spectral_norm=True,
            conditioning="projection",
            loss=str(rng.choice(minigen.GAN_LOSSES)),
            optimizer="rmsprop",
        ),
        True,
    ),
    lambda rng: (minigen.GAN(**SMALL, batch_size=8, pack=2, dropout=0.3, weight_clip=0.2, optimizer="sgd"), False),
    lambda rng: (minigen.VAE(**SMALL, batch_size=7, likelihood="gaussian"), False),
    lambda rng: (
        minigen.VAE(
            **SMALL,
            batch_size=7,
            likelihood="gaussian",
            variance="learned",
            kl_warmup=1.0,
            free_bits=0.1,
            dropout=0.2,
            normalization="layer",
            activation=str(rng.choice(minigen.ACTIVATIONS)),
            optimizer="lion",
        ),
        bool(rng.integers(2)),
    ),
    lambda rng: (minigen.VAE(**SMALL, batch_size=5, likelihood="gaussian", importance_samples=3), False),
]


def data(rng: np.random.Generator, labelled: bool) -> tuple[np.ndarray, np.ndarray | None]:
    X = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    return X, rng.integers(0, 3, ROWS) if labelled else None


def bits(model: Any) -> dict[str, bytes]:
    state = {key: value.tobytes() for key, value in model._training_state().items()}
    return state | {key: value.tobytes() for net in model.networks_ for key, value in net.state().items()}


@pytest.mark.parametrize("made", MODELS)
def test_traced_steps_are_the_steps_of_a_training(rng, made):
    """From new and from trained models, of settings drawn at random; and the model itself stays as it was."""
    model, labelled = made(rng)
    X, y = data(rng, labelled)
    steps = -(-ROWS // model.batch_size) if isinstance(model, minigen.VAE) else ROWS // model.batch_size
    steps = steps // getattr(model, "n_critic", 1)
    first = minigen.trace(model, X, y, steps=steps)
    assert not model._fitted()
    model.partial_fit(X, y, epochs=1, progress=False)
    assert bits(first.model) == bits(model)
    then = minigen.trace(model, X, y, steps=steps)
    assert bits(first.model) == bits(model)
    model.partial_fit(X, y, epochs=1, progress=False)
    assert bits(then.model) == bits(model)
    for name, losses in then.losses.items():
        assert losses.tolist() == model.history_.losses[name][steps:].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_any_settings_can_be_traced(family):
    """Those of ``test_combinations``, drawn at random: the bits of the training, and every view can be made."""
    choices = test_combinations.GAN if family is minigen.GAN else test_combinations.VAE
    conditions, seeds = test_combinations.CONDITIONS, st.integers(0, 2**32 - 1)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(test_combinations.drawn(choices), conditions, seeds)
    def check(chosen: dict[str, Any], condition: str | None, seed: int) -> None:
        rng = np.random.default_rng(seed)
        X = rng.random((ROWS, COLUMNS)).astype(np.float32)
        if chosen.get("likelihood") in ("categorical", "mixed"):
            X = np.eye(5, dtype=np.uint8)[[rng.integers(0, 2, ROWS), 2 + rng.integers(0, 3, ROWS)]].sum(axis=0)
        y = {None: None, "labels": rng.integers(0, 3, ROWS), "numbers": rng.normal(size=(ROWS, 2))}[condition]
        model = family(**{**SMALL, "batch_size": 8, "epochs": 1, "seed": seed, **chosen})
        try:
            trace = minigen.trace(model, X, y, steps=3 // chosen.get("n_critic", 1))
        except ArgumentError:
            assume(False)
        model.fit(X, y, progress=False)
        assert bits(trace.model) == bits(model)
        assert all(all(record.names.values()) for record in trace)
        assert len(trace.text(values=True)) > len(trace.text()) > 1000
        assert trace._repr_html_() and trace.mermaid() and trace.flow().rows()
        assert {finding.subject for finding in trace.explain()} > {"updates"}

    check()


def test_records_are_what_the_operations_computed(rng):
    X, _ = data(rng, False)
    trace = minigen.trace(minigen.GAN(**SMALL, batch_size=8), X, steps=2)
    assert [record.step for record in trace[:: len(trace) // 2]] == [0, 1]
    assert len(trace) == len(list(trace)) == len(trace.find(step=0)) + len(trace.find(step=1))
    for record in trace.find("dense_forward"):
        z = record.inputs["x"] @ record.inputs["W"] + record.inputs["b"]
        y = {"leaky_relu": np.where(z > 0, z, 0.2 * z), "linear": z}[record.settings["activation"]]
        np.testing.assert_allclose(record.outputs["y"], y, rtol=1e-6)
    update = trace.find("adam", layer="generator", step=1)[0]
    assert not np.array_equal(update.inputs["p"], update.outputs["p"])  # copies from before and after
    assert update.inputs["step"] == 1 and update.names["p"] == "generator.params"
    losses = trace.find("gan_loss_discriminator")
    assert [float(record.outputs["loss"][0]) for record in losses] == trace.losses["discriminator"].tolist()
    assert losses[0].norms["dlogits"] == pytest.approx(np.linalg.norm(losses[0].outputs["dlogits"]))
    assert losses[0].shapes == {"logits": (16, 1), "loss": (1,), "dlogits": (16, 1)}


@pytest.mark.parametrize("made", MODELS)
def test_every_record_says_what_where_and_why(rng, made):
    model, labelled = made(rng)
    for record in minigen.trace(model, *data(rng, labelled)):
        line = (ROOT / record.file).read_text().splitlines()[record.line - 1]
        call = record.calls[-1]
        assert (call.file, call.line) == (record.file, record.line) and "ops." in line or "gather" in line, line
        assert record.formula and "{" not in record.formula and "[" not in record.formula
        words = set(re.findall(r"[A-Za-z]\w*", record.formula))
        assert not set(record.outputs) or words & {*record.outputs, "dmu", "sums_c", "y_r", "db"}, record.formula
        assert record.part in dir(minigen.models.gan.GanStep) + dir(minigen.models.vae.VaeStep)
        assert record.reference == "" or (ROOT / record.reference).is_file()
        assert all(record.names.values()), (record.operation, record.names)


def test_every_operation_has_a_formula_of_its_buffers_and_settings():
    for row in OPERATIONS.values():
        buffers = [buffer.name for buffer in row.buffers]
        known = {"activation": "tanh", "kind": "r1"}
        assert written(row, {name: known.get(name, 1) for name in row.settings}, buffers), row.name
        for name in re.findall(r"\{(\w+)\}", row.formula):
            assert name in row.settings, f"{row.name}: {name}"
        assert derivation(row.recorded_as) or row.name in NOTHING_TO_DERIVE, row.name


def test_formulas_follow_the_call():
    dense, wgrad, sgd = (OPERATIONS[name] for name in ("dense_forward", "dense_wgrad", "sgd"))
    assert written(dense, {"activation": "relu"}, ["x", "W", "b", "y"]) == "y = relu(x W + b)"
    assert written(dense, {"activation": "linear"}, ["x", "W", "y"]) == "y = x W"
    assert written(wgrad, {"accumulate": True}, ["x", "dz", "dW"]) == "dW += x^T dz"
    assert written(wgrad, {"accumulate": False}, ["x", "dz", "dW", "db"]) == "dW = x^T dz; db = sum over rows of dz"
    dgrad = written(OPERATIONS["dense_dgrad"], {"activation": "linear"}, ["dz", "W", "dx"])
    assert dgrad == "dx = dz W^T"
    text = written(sgd, {"momentum": 0.0, "weight_decay": 0.5}, ["p", "g", "velocity", "lr"])
    assert text == "velocity = g + 0.5 p; p = p - lr velocity"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "gan"}, "model must be a GAN or a VAE, not str"),
        ({"steps": 0}, "steps must be"),
        ({"X": np.zeros((3, 2), np.float32)}, "batch_size must be at most the 3 rows"),
        ({"y": [1, 2]}, "y must"),
    ],
)
def test_bad_input_is_refused(rng, given, message):
    arguments = {"model": minigen.GAN(**SMALL, batch_size=8), "X": data(rng, False)[0], "y": None, "steps": 1, **given}
    with pytest.raises((TypeError, ValueError), match=message):
        minigen.trace(arguments["model"], arguments["X"], arguments["y"], steps=arguments["steps"])
