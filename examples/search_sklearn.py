"""A grid of VAEs trained at once, the best of them by held-out rows, and an ensemble that finds what is unusual.

    python examples/search_sklearn.py                # the bundled digits: a minute or two
    python examples/search_sklearn.py --epochs 2     # quick and rough

scikit-learn makes the grid, the split and the figure at the end; `minigen.fit_many` trains a model a core, where
`GridSearchCV` would copy the data into each of its processes. Three seeds of the best settings then form an ensemble:
digits are taken for unusual where all three give them little density. The unusual ones here are digits upside down.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid, train_test_split

import minigen

GRID = {"latent_dim": [5, 20], "learning_rate": [1e-3, 3e-3], "hidden": [(100,), (200,)]}


def main(arguments: list[str] | None = None) -> float:
    """Search, and return the ensemble's area under the ROC curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", type=int, default=5000, help="of the 5,000 digits")
    options = parser.parse_args(arguments)

    digits = np.asarray(minigen.datasets.mnist_sample())[: options.rows]
    train, held_out = train_test_split(digits, test_size=0.2, random_state=0)

    settings = list(ParameterGrid(GRID))
    models = [minigen.VAE(**each, epochs=options.epochs) for each in settings]
    minigen.fit_many(models, train, on_divergence="warn")
    bounds = [model.elbo(held_out).mean() for model in models]
    for each, bound in zip(settings, bounds, strict=True):
        print(f"{bound:8.1f} nats of held-out rows: {each}")
    best = settings[int(np.nanargmax(bounds))]

    ensemble = [minigen.VAE(**best, epochs=options.epochs, seed=seed) for seed in range(3)]
    minigen.fit_many(ensemble, train)
    rows = np.concatenate([held_out, held_out[:, ::-1]])
    unusual = np.repeat([False, True], len(held_out))
    scores = np.max([model.elbo(rows) for model in ensemble], axis=0)  # unusual only where no model knows it
    area = float(roc_auc_score(unusual, -scores))
    print(f"upside down or not: area under the ROC curve {area:.3f} of the ensemble with {best}")
    return area


if __name__ == "__main__":
    main()
