"""The examples that search for settings, shortened."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_grid_and_an_ensemble_beside_scikit_learn(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    search = example("search_sklearn")
    monkeypatch.setattr(search, "GRID", {"latent_dim": [2, 8], "hidden": [(64,)], "learning_rate": [5e-3]})
    area = search.main(["--epochs", "5", "--rows", "1000"])
    out = capsys.readouterr().out
    assert out.count("nats of held-out rows") == 2 and 0.6 < area <= 1


def test_optuna_is_told_how_every_trial_went(capsys):
    optuna = pytest.importorskip("optuna")
    study = example("search_optuna").main(["--trials", "3", "--at-once", "2", "--epochs", "2", "--rows", "200"])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3 and study.best_value > 0
    assert isinstance(study, optuna.Study) and "Frechet distance" in capsys.readouterr().out
