"""Optuna chooses settings of a GAN on a table, several trials at a time, which `minigen.fit_many` trains at once.

    pip install optuna
    python examples/search_optuna.py                                # 24 trials, 4 at a time
    python examples/search_optuna.py --trials 4 --epochs 5          # quick and rough

Each round asks the study for a few trials, trains their models on a core each, and tells the study how far the samples
are from rows that no model has seen (the Frechet distance, the smaller the better). A model that diverges is a trial
that failed, and ends nothing.
"""

from __future__ import annotations

import argparse

import numpy as np
import optuna

import minigen


def table(rows: int, seed: int) -> np.ndarray:
    """Two noisy half circles in the plane, and a third column that follows from both."""
    rng = np.random.default_rng(seed)
    angle, upper = rng.uniform(0, np.pi, rows), rng.integers(0, 2, rows)
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) + rng.normal(0, 0.05, rows)
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) + rng.normal(0, 0.05, rows)
    return np.stack([x, y, x * y], axis=1)


def model_of(trial: optuna.Trial, epochs: int) -> minigen.GAN:
    width = trial.suggest_categorical("width", [32, 64, 128])
    return minigen.GAN(
        hidden=(width, width),
        latent_dim=8,
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        beta1=trial.suggest_float("beta1", 0.0, 0.9),
        r1=trial.suggest_float("r1", 1e-3, 1.0, log=True),
        batch_size=64,
        epochs=epochs,
        seed=trial.number,
    )


def main(arguments: list[str] | None = None) -> optuna.Study:
    """Search, and return the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rows", type=int, default=4000)
    options = parser.parse_args(arguments)

    train, held_out = table(options.rows, seed=0), table(options.rows, seed=1)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    while (left := options.trials - len(study.trials)) > 0:
        trials = [study.ask() for _ in range(min(left, options.at_once))]
        models = [model_of(trial, options.epochs) for trial in trials]
        watch = {"validation": held_out, "metrics": ["frechet distance"], "evaluate_every": options.epochs}
        minigen.fit_many(models, train, on_divergence="warn", **watch)
        for trial, model in zip(trials, models, strict=True):
            if model.history_.stop_reason == "diverged":
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, float(model.history_.metrics["frechet distance"][-1]))
    print(f"Frechet distance {study.best_value:.4g} with {study.best_params}")
    return study


if __name__ == "__main__":
    main()
