"""Training by sampling: rows of rare categories of the condition are trained on more often, and drawn by frequency."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen.tables import quality
from minigen.tables.rebalancing import MOST, by_log_frequency

pd = pytest.importorskip("pandas")
pytest.importorskip("narwhals")
pytest.importorskip("sklearn")


def table(n: int, seed: int, share: float = 0.005) -> pd.DataFrame:
    """Numbers and colours are distributed in another way among the rare rows."""
    rng = np.random.default_rng(seed)
    rare = rng.random(n) < share
    number = np.where(rare, rng.normal(2, 0.5, n), rng.normal(size=n)).round(3)
    colour = np.where(rare, rng.random(n) < 0.9, rng.random(n) < 0.2)
    return pd.DataFrame({"kind": np.where(rare, "rare", "usual"), "x": number, "red": colour})


def test_labels_get_the_logarithm_of_their_frequency():
    labels = np.repeat([0, 1, 3], [100, 4, 1])
    chosen = by_log_frequency(labels, 0)
    logs = np.log([101, 5, 2])
    np.testing.assert_array_equal(np.bincount(labels[chosen])[[0, 1, 3]], np.rint(100 * logs / logs[0]))
    times = np.bincount(chosen, minlength=105)
    assert (times[:100] == 1).all() and times[100:104].max() - times[100:104].min() <= 1
    assert (chosen == by_log_frequency(labels, 0)).all() and (chosen[:9] != by_log_frequency(labels, 1)[:9]).any()
    assert (np.sort(by_log_frequency(np.repeat([0, 1], 5), 0)) == np.arange(10)).all()  # nothing is rare


def test_a_thousand_rare_labels_do_not_make_the_table_endless():
    labels = np.r_[np.zeros(20_000, int), np.arange(1, 1001)]
    chosen = by_log_frequency(labels, 0)
    times = np.bincount(chosen, minlength=len(labels))
    assert len(chosen) == pytest.approx(MOST * len(labels), rel=0.01)
    assert times[:20_000].max() == 1 and times[20_000:].min() > 100


@pytest.mark.parametrize(("name", "epochs"), [("TableVAE", 24), ("TableGAN", 40)])
def test_rows_of_a_rare_category_are_as_good_and_as_frequent(name, epochs):
    frame, truth = table(8000, 0), table(400_000, 1)
    plain = (
        {"beta": 1.0, "latent_prior": "normal"} if name == "TableVAE" else {}
    )  # with less KL 40 rows are learnt anyway
    settings = {"hidden": (32,), "latent_dim": 4, "batch_size": 128, "epochs": epochs, "learning_rate": 3e-3, "seed": 1}
    if name == "TableGAN":  # by smaller steps it goes alike on every instruction set
        settings |= {"hidden": (64,), "learning_rate": 1e-3, "seed": 3}

    def distance(by_sampling: bool, kind: str) -> float:
        model = getattr(minigen, name)(**settings, **plain, device="cpu", training_by_sampling=by_sampling)
        model.fit(frame, condition="kind", progress=False)
        drawn = model.sample(4000, 2, where={"kind": kind})
        assert kind == "usual" or not by_sampling or drawn["red"].mean() == pytest.approx(0.9, abs=0.07)
        assert (model.sample(40_000, 0)["kind"] == "rare").mean() == pytest.approx(
            (frame["kind"] == "rare").mean(), abs=0.001
        )
        return quality.kolmogorov_smirnov(drawn["x"].to_numpy(), truth["x"][truth["kind"] == kind].to_numpy())

    rare = distance(True, "rare")  # of 40 rows, whose own distance from the truth is 0.1 or so
    assert rare < 0.14 and rare < 0.7 * distance(False, "rare") and distance(True, "usual") < 0.04
