"""The scripts that measure samples and likelihoods: what they count, and each of them once in small."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from bench import digits, iwae, pacgan, report, report_quality


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


@pytest.mark.slow
def test_digits_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("MINIGEN_BENCH_CLASSIFIERS", str(tmp_path / "classifiers"))
    out = tmp_path / "digits.json"
    small = ["--data", "sample", "--rows", "400", "--epochs", "1", "--samples", "100", "--classifier-epochs", "2"]
    changes = ["hidden=(16,)", "hidden_discriminator=(16,)"]
    digits.main([*small, "--settings", digits.PEER, "--out", str(out), "--pictures", str(tmp_path / "seen")])
    digits.main([*small, "--settings", "before", "--seeds", "0", "1", "--set", *changes, "--out", str(out)])
    digits.main([*small, "--settings", "before", "--seeds", "1", "--set", *changes, "--out", str(out)])
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["sample-pytorch-gan-1-epochs-seed-0.png"]
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


def check_of(module: Any, out: Path, *arguments: str) -> dict[str, Any]:
    module.main([*arguments, "--out", str(out)])
    result: dict[str, Any] = json.loads(out.read_text())
    assert report.TABLES[result["kind"]](result)
    return result


def test_pacgan_in_small(tmp_path: Path) -> None:
    result = check_of(pacgan, tmp_path / "pacgan.json", "--steps", "3", "--seeds", "1", "--data", "ring")
    assert [run["setting"] for run in result["runs"]] == list(pacgan.SETTINGS)
    assert all(0 <= run["modes"] <= 8 for run in result["runs"])


def test_iwae_in_small(tmp_path: Path) -> None:
    sizes = ["--rows", "100", "--test", "20", "--score", "50", "--epochs", "1"]
    result = check_of(iwae, tmp_path / "iwae.json", "--draws", "1", "5", *sizes)
    bounds = [(run["bound"], run["negative_log_likelihood"]) for run in result["runs"]]
    assert all(0 < nll < 784 and nll <= bound + 5 for bound, nll in bounds)


def test_spread_says_mean_and_range() -> None:
    assert report_quality.spread([1.0, 2.0, 6.0], 1) == "3.0 (1.0 to 6.0)" and report_quality.spread([2.0], 2) == "2.00"


def test_a_training_that_a_signal_ended_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(state: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    fit = minigen.GAN.fit
    monkeypatch.setattr(minigen.GAN, "fit", lambda self, X, **how: fit(self, X, callbacks=[end], **how))
    with pytest.raises(KeyboardInterrupt):
        pacgan.train("ring", pacgan.SETTINGS["minigen's own"], steps=2, seed=0)
