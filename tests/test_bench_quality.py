"""The scripts that measure samples and likelihoods: their distances, and each of them once in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import digits, pacgan, report, report_quality, sample_quality


def test_frechet_distance_is_that_of_the_gaussians() -> None:
    """Of a set and its image under a diagonal map the roots commute: ``|m1 - m2|^2 + sum (s1 - s2)^2`` by hand."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 3))
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    factors, shift = np.array([0.5, 2.0, 3.0]), np.array([1.0, -2.0, 0.5])
    moved = (x @ vectors * factors) @ vectors.T + shift
    by_hand = (((moved - x).mean(axis=0)) ** 2).sum() + (values * (factors - 1) ** 2).sum()
    assert sample_quality.frechet_distance(x, moved) == pytest.approx(by_hand, rel=1e-9)
    assert sample_quality.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    scipy_linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 4)) for _ in range(2))
    Ca, Cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.trace(scipy_linalg.sqrtm(Ca @ Cb).real)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(Ca) + np.trace(Cb) - 2 * cross
    assert sample_quality.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_precision_and_recall_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    real, generated = rng.standard_normal((47, 2)), rng.standard_normal((35, 2)) * 0.4

    def support(points: np.ndarray, others: np.ndarray) -> float:
        inside = 0
        for other in others:
            for i, point in enumerate(points):
                nearest = sorted(np.linalg.norm(points[j] - point) for j in range(len(points)) if j != i)
                if np.linalg.norm(other - point) <= nearest[2]:
                    inside += 1
                    break
        return inside / len(others)

    expected = support(real, generated), support(generated, real)
    assert sample_quality.precision_and_recall(real, generated) == pytest.approx(expected)
    assert expected[0] > expected[1]  # the samples are too much alike
    blocks = [sample_quality.radii(real, block=size) for size in (5, 47, 100)]
    np.testing.assert_allclose(blocks[0], blocks[1])
    np.testing.assert_allclose(blocks[0], blocks[2])


def test_samples_elsewhere_have_neither_precision_nor_recall() -> None:
    rng = np.random.default_rng(3)
    real = rng.standard_normal((50, 3))
    assert sample_quality.precision_and_recall(real, real + 100) == (0, 0)
    assert sample_quality.precision_and_recall(real, real) == (1, 1)


@pytest.mark.parametrize("data", list(pacgan.DATA))
def test_pacgans_own_points_find_all_modes(data: str) -> None:
    found = pacgan.judge(data, pacgan.draw(data, 2500, seed=0))
    assert found["modes"] == len(pacgan.DATA[data][0])
    assert found["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # of a Gaussian in the plane: 98.9 %
    assert 0 <= found["divergence"] < 0.02


def test_pacgans_collapse_and_noise_are_seen() -> None:
    one_mode = np.tile(pacgan.DATA["ring"][0][:1], (100, 1))
    found = pacgan.judge("ring", one_mode)
    assert found["modes"] == 1 and found["high_quality"] == 1 and found["divergence"] == pytest.approx(np.log(8))
    assert pacgan.judge("ring", np.zeros((10, 2))) == {"modes": 0, "high_quality": 0, "divergence": float("inf")}


def test_digits_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("MINIGEN_BENCH_CLASSIFIERS", str(tmp_path / "classifiers"))
    out = tmp_path / "digits.json"
    small = ["--data", "sample", "--rows", "400", "--epochs", "1", "--samples", "100", "--classifier-epochs", "2"]
    changes = ["hidden=(16,)", "hidden_discriminator=(16,)"]
    digits.main([*small, "--settings", digits.PEER, "--out", str(out)])
    digits.main([*small, "--settings", "before", "--seeds", "0", "1", "--set", *changes, "--out", str(out)])
    digits.main([*small, "--settings", "before", "--seeds", "1", "--set", *changes, "--out", str(out)])
    result = json.loads(out.read_text())
    assert [run["seed"] for run in result["runs"]] == [0, 0, 1]
    assert result["runs"][1]["settings"]["hidden"] == [16] and result["runs"][1]["settings"]["latent_dim"] == 64
    for run in [result["real"]["sample"], *result["runs"]]:
        assert np.isfinite(run["frechet_distance"]) and 0 <= run["precision"] <= 1 and 0 <= run["recall"] <= 1
        assert sum(run["classes"]) == pytest.approx(1, abs=1e-3)
    assert result["real"]["sample"]["accuracy"] > 0.5
    assert len(list((tmp_path / "classifiers").iterdir())) == 1
    text = report.quality_tables(result)["sample-1-epochs"]
    assert "| real test set |" in text and "| PyTorch-GAN | 1 |" in text and "hidden=(16,)" in text


def test_spread_says_mean_and_range() -> None:
    assert report_quality.spread([1.0, 2.0, 6.0], 1) == "3.0 (1.0 to 6.0)" and report_quality.spread([2.0], 2) == "2.00"
