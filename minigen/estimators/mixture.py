"""Mixtures of Gaussians as the distribution of a VAE's latent, one for all rows or one for each class.

scikit-learn fits them; drawing from them and their density are NumPy's, so that a saved model needs no scikit-learn.
A component ``N(mu, P^-1)`` is kept as its mean and the upper triangular ``U`` with ``P = U U^T``. Then

    log N(z; mu, P^-1) = -L/2 log 2 pi + sum_j log U_jj - |U^T (z - mu)|^2 / 2

and ``z = mu + U^-T eps`` with ``eps ~ N(0, I)`` has the covariance ``U^-T U^-1 = P^-1``.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.errors import ArgumentError
from minigen.estimators.conditions import group_of_rows
from minigen.training.checkpoint import Tensors, check_tensor

HELD_OUT = 0.1  # share of the draws that judge a mixture, and are not fitted to
LEAST_POINTS = 5000  # draws that a mixture is fitted to; of fewer rows each gives several
MOST_ROWS = 60_000
ROWS_A_COMPONENT = 6.0  # times the width of the latent: of fewer, held-out draws are less likely for it
LEAST_ROWS_A_COMPONENT = 20
TOLERANCE = 3e-3  # nats a draw that a step of the EM algorithm must gain for another; samples are no better by less
WORSE = 0.15  # nats a latent by which held-out draws may be less likely than those of the fit


@dataclass(frozen=True)
class Mixture:
    """``G`` mixtures of at most ``K`` components; one of fewer has components of weight 0.

    ``weights[G, K]``, ``means[G, K, L]``, ``factors[G, K, L, L]``, each ``U`` as above, and ``log_densities[G, 2]``:
    the mean log density, in nats, of the draws that each mixture was fitted to and of held-out ones. All float64.
    """

    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    log_densities: np.ndarray

    @property
    def components(self) -> list[int]:
        """How many each mixture has."""
        return [int(n) for n in (self.weights > 0).sum(axis=1)]

    def groups_of(self, codes: np.ndarray | None, n: int) -> np.ndarray:
        """Which mixture each of ``n`` rows belongs to: that of its class ``codes[n]``, where there are several."""
        return group_of_rows(len(self.weights), codes, n)

    def log_density(self, z: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Of each row of ``z[n, L]`` under the mixture of its group, ``groups[n]``: ``float64[n]``."""
        out = np.empty(len(z))
        for group in np.unique(groups):
            mine = groups == group
            out[mine] = self._log_density_in(int(group), np.asarray(z[mine], np.float64))
        return out

    def _log_density_in(self, group: int, z: np.ndarray) -> np.ndarray:
        total = np.full(len(z), -np.inf)
        for weight, mean, factor in zip(self.weights[group], self.means[group], self.factors[group], strict=True):
            if weight:
                squares = (((z - mean) @ factor) ** 2).sum(axis=1)
                constant = np.log(np.diag(factor)).sum() - len(mean) / 2 * math.log(2 * math.pi)
                total = np.logaddexp(total, math.log(weight) + constant - squares / 2)
        return total

    def draw(self, groups: np.ndarray, uniforms: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """A latent from the mixture of each of ``groups[n]``, ``float32[n, L]``.

        Of ``uniforms[n]`` in [0, 1) each chooses a component, and ``normals[n, L]`` are its noise.
        """
        z = np.empty(normals.shape, np.float32)
        until = np.cumsum(self.weights, axis=1)
        last = np.array(self.components)[groups] - 1  # the sum of the weights may round to less than a uniform
        chosen = np.minimum((uniforms[:, None] >= until[groups]).sum(axis=1), last)
        for group, component in set(zip(groups.tolist(), chosen.tolist(), strict=True)):
            mine = (groups == group) & (chosen == component)
            noise = np.linalg.solve(self.factors[group, component].T, normals[mine].T.astype(np.float64)).T
            z[mine] = self.means[group, component] + noise
        return z

    def tensors(self) -> Tensors:
        """For a model file."""
        return {f"prior.{name}": np.ascontiguousarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Tensors, groups: int, width: int) -> Mixture | None:
        """The one that a model file holds, if any. Raises KeyError or ValueError for one that cannot be."""
        if not any(name.startswith("prior.") for name in tensors):
            return None
        components = tensors["prior.weights"].shape[-1] if "prior.weights" in tensors else 0
        shapes = ((components,), (components, width), (components, width, width), (2,))
        values = []
        for name, shape in zip(cls.__dataclass_fields__, shapes, strict=True):
            check_tensor(tensors, f"prior.{name}", (groups, *shape), np.float64)
            values.append(tensors[f"prior.{name}"])
        made = cls(*values)
        if (made.weights < 0).any() or not np.allclose(made.weights.sum(axis=1), 1):
            raise ValueError("prior.weights must be at least 0 and add up to 1")
        if (np.diff((made.weights > 0).astype(int), axis=1) > 0).any():
            raise ValueError("prior.weights of 0 must come last")
        if (np.diagonal(made.factors, axis1=2, axis2=3) <= 0).any():
            raise ValueError("prior.factors must have a diagonal above 0")
        return made


def fit(
    mu: np.ndarray,
    deviation: np.ndarray,
    groups: np.ndarray,
    count: int,
    components: int,
    seed: int,
    draws: int | None = None,
    least_variance: float = 1e-6,
) -> Mixture:
    """A mixture of ``components`` for each of ``count`` groups, fitted to draws from ``N(mu, deviation^2)``.

    ``mu[rows, L]`` and ``deviation[rows, L]`` are the rows' posteriors, ``groups[rows]`` says whose each row is. A
    group with few rows gets fewer components, and of each row several draws, ``draws`` in all (5,000 by default). A
    tenth of the rows of each group, at least one, is held out. ``least_variance`` is added to each variance.
    """
    pieces = []
    for group in range(count):
        mine = groups == group
        rng = np.random.default_rng([seed, group])
        shape = (max(1, -(-(draws or LEAST_POINTS) // int(mine.sum()))), *mu[mine].shape)
        known, held_out = _split(mu[mine] + deviation[mine] * rng.standard_normal(shape), rng)
        fewer = int(mine.sum() / max(LEAST_ROWS_A_COMPONENT, ROWS_A_COMPONENT * mu.shape[1]))
        pieces.append((*_fit_one(known, max(1, min(components, fewer)), seed, least_variance), known, held_out))
    most, width = max(len(piece[0]) for piece in pieces), mu.shape[1]
    weights, means = np.zeros((count, most)), np.zeros((count, most, width))
    factors = np.broadcast_to(np.eye(width), (count, most, width, width)).copy()
    mixture = Mixture(weights, means, factors, np.zeros((count, 2)))
    for i, (of_group, its_means, its_factors, *points) in enumerate(pieces):
        k = len(of_group)
        weights[i, :k], means[i, :k], factors[i, :k] = of_group, its_means, its_factors
        mixture.log_densities[i] = [mixture._log_density_in(i, part).mean() for part in points]
    _warn_of_overfit(mixture)
    return mixture


def _split(z: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The draws of most rows, and those of the rows that are held out; of a single row they are the same."""
    rows, width = z.shape[1:]
    order = rng.permutation(rows)
    held_out = max(1, round(HELD_OUT * rows))
    known = order[held_out:] if rows > 1 else order
    return z[:, known].reshape(-1, width), z[:, order[:held_out]].reshape(-1, width)


def _fit_one(
    points: np.ndarray, components: int, seed: int, least_variance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and factors of a mixture of ``points[n, L]``."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise _needs_sklearn() from error
    # Of a row far out the squares are so large that less than this is lost in rounding.
    least_variance = max(least_variance, 1e-12 * float(np.square(points, dtype=np.float64).max()))
    mixture = GaussianMixture(components, random_state=seed, reg_covar=least_variance, tol=TOLERANCE)
    with warnings.catch_warnings(), threadpool_limits(1):  # sums in one order, whatever the number of threads
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good the fit is, held-out draws say
        mixture.fit(points)
    return mixture.weights_, mixture.means_, mixture.precisions_cholesky_


def _warn_of_overfit(mixture: Mixture) -> None:
    training, held_out = mixture.log_densities.T
    gaps = (training - held_out) / mixture.means.shape[2]
    worst = int(gaps.argmax())
    if gaps[worst] > WORSE and mixture.components[worst] > 1:
        of_class = f" of class {worst}, in their order," if len(gaps) > 1 else ""
        warnings.warn(
            f"the mixture{of_class} gives latents of held-out rows {held_out[worst]:.4g} nats, those that it was "
            f"fitted to {training[worst]:.4g}: it has learnt these rows, not their distribution. Try fewer components "
            f"than {mixture.components[worst]}, or more rows.",
            UserWarning,
            stacklevel=7,  # of fit or partial_fit
        )


def check_available() -> None:
    """Raise ImportError, which says what to install, where a mixture could not be fitted in the end."""
    try:
        import sklearn.mixture  # noqa: F401
    except ImportError as error:
        raise _needs_sklearn() from error


def _needs_sklearn() -> ImportError:
    return ImportError(
        "latent_prior='mixture' needs scikit-learn: pip install 'minigen-engine[metrics]'; 'normal' does without"
    )


def standard_normal(width: int) -> Mixture:
    """``N(0, I)`` as a mixture of one."""
    none = np.full((1, 2), np.nan)
    return Mixture(np.ones((1, 1)), np.zeros((1, 1, width)), np.eye(width)[None, None], none)


def check(name: str, prior: Any, mixture: Mixture | None) -> Mixture | None:
    """The mixture that ``prior`` asks for, None for N(0, I); by default the model's own if it has one."""
    if prior not in (None, "mixture", "normal"):
        raise ArgumentError(name, f"must be None, 'mixture' or 'normal', not {prior!r}")
    if prior == "mixture" and mixture is None:
        raise ArgumentError(
            name,
            "must be None or 'normal': the model has no mixture; latent_prior='mixture' fits one at the end of fit",
        )
    return None if prior == "normal" else mixture
