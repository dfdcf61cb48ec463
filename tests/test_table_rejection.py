"""Rows of a table that boosted trees tell from real ones are left out: the trees, what is accepted, files."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen.tables import model, quality, rejection
from minigen.tables.schema import measure, read

pd = pytest.importorskip("pandas")
pytest.importorskip("narwhals")
pytest.importorskip("sklearn")

TINY = {"hidden": (16,), "latent_dim": 4, "batch_size": 64, "epochs": 2, "device": "numpy"}


def people(n: int, seed: int = 0) -> pd.DataFrame:
    """A label, a number with missing values and one that the label and that number decide."""
    rng = np.random.default_rng(seed)
    height = rng.normal(170, 10, n).round(1)
    city = rng.choice(["Oslo", "Paris", "Rome"], n, p=[0.1, 0.3, 0.6])
    size = (height / 10 + 5 * (city == "Rome")).round(1)
    return pd.DataFrame({"height": np.where(rng.random(n) < 0.1, np.nan, height), "city": city, "size": size})


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(rejection, "TREES", 20)
    monkeypatch.setattr(rejection, "LEAST_ROWS", 500)
    for name in ("CALIBRATED_BY", "RECALIBRATED_BY", "DRAWN_AT_ONCE"):
        monkeypatch.setattr(model, name, 1500)


def walked(trees: rejection.Rejection, row: np.ndarray) -> float:
    """The logit of a row, one node after the other."""
    total = 0.0
    for t in range(len(trees.value)):
        node = 0
        while (trees.left[t, node], trees.right[t, node]) != (node, node):
            x, limit = row[trees.column[t, node]], trees.threshold[t, node]
            word, bit = divmod(int(x), 32) if np.isnan(limit) else (0, 0)
            left = int(trees.labels[t, node, word]) >> bit & 1 if np.isnan(limit) else x <= limit
            node = (trees.left if left else trees.right)[t, node]
        total += trees.value[t, node]
    return total


def test_accepted_rows_have_the_distribution_of_real_ones():
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.15, 0.05] + [0.0] * 35 + [0.0001])
    real = np.stack([rng.choice(40, 6000, p=shares / shares.sum()), rng.normal(0.5, 0.8, 6000)], axis=1)
    real[:40, 0] = np.arange(40)
    made = np.stack([rng.choice(40, 20_000, p=[0.2] * 4 + [0.2 / 36] * 36), rng.normal(0, 1, 20_000)], axis=1)
    trees = rejection.fit(real, made, 1, 0)
    assert np.isnan(trees.threshold).any() and np.isfinite(trees.threshold).any()
    np.testing.assert_allclose(trees.logits(made[:50]), [walked(trees, row) for row in made[:50]])
    kept = made[trees.accepts(made, rng)]
    assert 0.1 < len(kept) / len(made) < 0.9
    for rows, most in ((made, 1.0), (kept, 0.08)):
        apart = quality.kolmogorov_smirnov(real[:, 1], rows[:, 1])
        differ = quality.total_variation(real[:, 0].astype(int), rows[:, 0].astype(int))
        assert max(apart, differ) < most
    assert quality.total_variation(real[:, 0].astype(int), made[:, 0].astype(int)) > 0.3


def test_rows_of_the_table_and_of_the_model_look_the_same_to_the_trees():
    frame = people(200)
    _, found = read(frame, None)
    schema = measure("pandas", found, continuous="quantiles", most_categories=1000, seed=0)
    rows = rejection.matrix_of_data(schema, found)
    assert rejection.as_labels(schema).tolist() == [False, True, False]
    places, heights = schema["city"].place_of(found[1]), frame["height"].fillna(rejection.MISSING)
    np.testing.assert_array_equal(rows, np.stack([places, heights, frame["size"]], axis=1))
    rng = np.random.default_rng(0)
    parts = []
    for column, raw in zip(schema.columns, found, strict=True):
        encoded = column.encode(raw, np.arange(200), column.place_of(raw), rng)
        parts.append((column.places_in(encoded), column.number_in(encoded)))
    np.testing.assert_allclose(rejection.matrix(schema, parts), rows)


@pytest.mark.parametrize("kind", ["TableVAE", pytest.param("TableGAN", marks=pytest.mark.slow)])
def test_samples_of_a_model_with_rejection(kind, tmp_path):
    frame = people(600)
    fitted = getattr(minigen, kind)(**TINY, rejection=True).fit(frame, progress=False)
    assert fitted.rejection_ is not None and set(fitted.recalibration_) == {"height", "size"}
    drawn = fitted.sample(300, 0)
    assert len(drawn) == 300 and (drawn.dtypes == frame.dtypes).all()
    pd.testing.assert_frame_equal(fitted.sample(300, 0), drawn)
    asked = fitted.sample(20, 0, where={"city": "Oslo", "size": (15, 25)})
    assert len(asked) == 20 and (asked["city"] == "Oslo").all() and asked["size"].between(15, 25).all()
    assert len(fitted.sample(0)) == 0
    fitted.save(tmp_path / "model.safetensors")
    pd.testing.assert_frame_equal(minigen.load(tmp_path / "model.safetensors").sample(300, 0), drawn)
    conditional = getattr(minigen, kind)(**TINY, rejection=True).fit(frame, condition="city", progress=False)
    assert conditional.rejection_ is None


def test_few_rows_or_no_training_reject_nothing():
    assert minigen.TableVAE(**TINY, rejection=True).fit(people(400), progress=False).rejection_ is None
    untrained = minigen.TableVAE(**{**TINY, "epochs": 0}, rejection=True).fit(people(600), progress=False)
    assert untrained.rejection_ is None and len(untrained.sample(5)) == 5
    assert minigen.TableVAE(**TINY, rejection=False).fit(people(600), progress=False).rejection_ is None
    with pytest.raises(ValueError, match="rejection"):
        minigen.TableVAE(rejection="yes").fit(people(10))


@pytest.mark.parametrize(
    "name, value, message",
    [("column", 3.0, "below 3 for column"), ("left", 0.0, "before those below"), ("value", np.nan, "finite")],
)
def test_a_file_with_trees_that_cannot_be(name, value, message):
    rng = np.random.default_rng(0)
    trees = rejection.fit(rng.normal(size=(300, 3)), rng.normal(1, 1, (300, 3)), 0, 0)
    tensors = trees.tensors()
    again = rejection.Rejection.from_tensors(tensors, 3)
    np.testing.assert_array_equal(again.logits(np.ones((5, 3))), trees.logits(np.ones((5, 3))))
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] = value
    with pytest.raises(ValueError, match=message):
        rejection.Rejection.from_tensors(tensors, 3)
    assert rejection.Rejection.from_tensors({}, 3) is None
