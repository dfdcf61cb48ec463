"""Numbers of a continuous column as networks take them, and back: by quantiles, or by the modes of a mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.tables import normal

KNOTS = 1000  # quantiles that are kept of a column
ROWS_OF_MIXTURE = 20_000  # values that a mixture is fitted to, at most
MODES = 10
LEAST_WEIGHT = 0.005  # of a mode that is kept, as in Xu et al. 2019
REACH = 4.0  # deviations from the mean of a mode that a value may be away


@dataclass(frozen=True)
class Quantiles:
    """A number by its place among the training data's, as a standard normal has it: ``z = Phi^-1(F(x))``.

    ``values`` are in order, ``below`` is the share of the data up to each. Where the data have few values, ``exact``,
    these are all, and value ``i`` owns the places from ``below[i - 1]`` to ``below[i]``; a row of the training gets one
    of them by chance, so that a normal goes in and a normal is to come out. Else the data's quantiles are joined by
    straight lines.
    """

    values: np.ndarray
    below: np.ndarray
    exact: bool
    rows: int
    modes: int = 0

    @classmethod
    def measure(cls, values: np.ndarray) -> Quantiles:
        found, counts = np.unique(values, return_counts=True)
        if len(found) <= KNOTS:
            return cls(found, np.cumsum(counts) / len(values), True, len(values))
        shares = np.linspace(0, 1, KNOTS)
        return cls(np.quantile(values, shares), shares, False, len(values))

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``z[n, 1]``; ties are broken by chance."""
        if self.exact:
            at = np.clip(np.searchsorted(self.values, values), 0, len(self.values) - 1)
            low, high = np.append(0.0, self.below)[at], self.below[at]
        else:  # the first and the last quantile of those that are the same
            low = -np.interp(-values, -self.values[::-1], -self.below[::-1])
            high = np.interp(values, self.values, self.below)
        share = low + (high - low) * rng.random(len(values))
        margin = 0.5 / self.rows
        return normal.quantile(np.clip(share, margin, 1 - margin))[:, None]

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Values for ``z[n, 1]``: never below the least or above the largest one of the training data."""
        share = normal.distribution(encoded[:, 0].astype(np.float64))
        if self.exact:
            at = np.searchsorted(self.below, share, side="left")
            return self.values[np.minimum(at, len(self.values) - 1)]
        return np.interp(share, self.below, self.values)

    def place(self, value: float) -> float:
        """Where a single value lies among the others, as ``z`` in [-2, 2]."""
        share = float(np.mean(self.values < value)) if self.exact else float(np.interp(value, self.values, self.below))
        return float(np.clip(normal.quantile(np.array(share)), -2, 2))

    def to_file(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {"by": "quantiles", "exact": self.exact, "rows": self.rows}, {"values": self.values, "below": self.below}


@dataclass(frozen=True)
class Modes:
    """Mode-specific normalisation (Xu et al. 2019): which mode of a mixture of Gaussians a number is drawn from,
    one-hot, and how many of this mode's deviations it is away from its mean.

    ``means``, ``deviations``: of each mode that is kept; ``low``, ``high``: least and largest value of the data.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    low: float
    high: float

    @property
    def modes(self) -> int:
        return len(self.means)

    @classmethod
    def measure(cls, values: np.ndarray, rng: np.random.Generator) -> Modes:
        """Fit the mixture. Raises ImportError without scikit-learn."""
        try:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.mixture import BayesianGaussianMixture
        except ImportError as error:
            raise ImportError("continuous='modes' needs scikit-learn: pip install 'minigen-engine[tables]'") from error
        import warnings

        some = values if len(values) <= ROWS_OF_MIXTURE else rng.choice(values, ROWS_OF_MIXTURE, replace=False)
        centre, scale = some.mean(), some.std() or 1.0
        mixture = BayesianGaussianMixture(
            n_components=min(MODES, len(np.unique(some))),
            weight_concentration_prior_type="dirichlet_process",
            weight_concentration_prior=0.001,
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # where it stops is as good as any mixture here
            mixture.fit((some[:, None] - centre) / scale)
        kept = mixture.weights_ > LEAST_WEIGHT
        means = mixture.means_[kept, 0] * scale + centre
        deviations = np.sqrt(mixture.covariances_[kept, 0, 0]) * scale
        return cls(mixture.weights_[kept], means, deviations, float(values.min()), float(values.max()))

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``[n, 1 + modes]``: deviations from the mode's mean, in [-4, 4], and the mode, drawn by its probability."""
        away = (values[:, None] - self.means) / self.deviations
        log_density = np.log(self.weights / self.deviations) - away**2 / 2
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        until = np.cumsum(density, axis=1)
        mode = (until < rng.random((len(values), 1)) * until[:, -1:]).sum(axis=1)
        own = np.take_along_axis(away, mode[:, None], axis=1).clip(-REACH, REACH)
        return np.concatenate([own, np.eye(self.modes)[mode]], axis=1)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        mode = encoded[:, 1:].argmax(axis=1)
        away = encoded[:, 0].astype(np.float64).clip(-REACH, REACH)
        return np.clip(self.means[mode] + away * self.deviations[mode], self.low, self.high)

    def place(self, value: float) -> float:
        return 0.0

    def to_file(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {"weights": self.weights, "means": self.means, "deviations": self.deviations}
        return {"by": "modes", "low": self.low, "high": self.high}, arrays


Continuous = Quantiles | Modes


def from_file(said: dict[str, Any], arrays: dict[str, np.ndarray]) -> Continuous:
    """What ``to_file`` told of. Raises KeyError or ValueError where its parts do not fit."""
    by_name = {"quantiles": ("values", "below"), "modes": ("weights", "means", "deviations")}
    parts = [np.asarray(arrays[name], np.float64) for name in by_name[said["by"]]]
    if not all(part.shape == (len(parts[0]),) and len(part) and np.isfinite(part).all() for part in parts):
        raise ValueError("quantiles and modes must be finite numbers, as many values as shares")
    if said["by"] == "modes":
        if not (parts[2] > 0).all() or not (parts[0] > 0).all():
            raise ValueError("weights and deviations of modes must be greater than 0")
        return Modes(parts[0], parts[1], parts[2], low=float(said["low"]), high=float(said["high"]))
    values, below = parts
    if (np.diff(values) < 0).any() or (np.diff(below) < 0).any() or not np.isclose(below[-1], 1):
        raise ValueError("quantiles must be in order, and their shares go up to 1")
    return Quantiles(values, below, bool(said["exact"]), int(said["rows"]))
