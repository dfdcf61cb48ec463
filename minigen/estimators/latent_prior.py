"""What a VAE draws its latents from: N(0, I), or a mixture of Gaussians fitted to the latents of its training data."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from minigen import checks
from minigen.backend import Array
from minigen.estimators import mixture
from minigen.estimators.conditions import Conditions, group_count, group_of_rows
from minigen.estimators.encoding import Encodes
from minigen.estimators.mixture import Mixture
from minigen.estimators.scoring import NOISE_TABLE, Scores, noise_rows
from minigen.reference import latent, random
from minigen.training.checkpoint import Tensors

PRIORS = ("normal", "mixture")


class LatentPrior(Encodes, Scores):
    """The half of a VAE that knows how its latents are distributed."""

    latent_prior: str
    components: int
    latent_prior_: Mixture | None

    def latent_score(
        self, X: Any, y: Any = None, *, samples: int = 0, seed: int = 0, prior: str | None = None
    ) -> np.ndarray:
        """Log density of the latent of each row of ``X``, in nats, ``float64[N]``; low scores are anomalies.

        It is that of the mean of ``q(z | x)`` or, with ``samples``, the mean over so many draws, which the seed and the
        row's values decide. It asks whether the row lies where rows of the training data lie, and leaves out how well
        it is reconstructed, which in :meth:`score_samples` makes simple rows likely. ``prior`` as in :meth:`sample`;
        the mixture of a model with labels is the one of the row's class.
        """
        self._require_fit()
        checks.integer("samples", samples, 0)
        checks.seed("seed", seed)
        chosen = mixture.check("prior", prior, self.latent_prior_)
        chosen = chosen or mixture.standard_normal(self._frozen["latent_dim"])
        with self._ops.on_device_of(X):
            rows = self._check_rows(X)
            codes = self._condition_codes(y, len(rows))
            mu, logvar = (self._ops.to_host(part) for part in self._posterior(rows, codes))
            noise = self._ops.to_host(noise_rows(rows, self._ops))
        groups = chosen.groups_of(codes, len(mu))
        if not samples:
            return chosen.log_density(mu, groups)
        total = np.zeros(len(mu))
        for k in range(samples):
            eps = self._normal((NOISE_TABLE, mu.shape[1]), seed, random.SAMPLE, block=k)[noise]
            total += chosen.log_density(mu + np.exp(logvar / 2) * eps, groups)
        return total / samples

    def fit_latent_prior(
        self, X: Any, y: Any = None, *, draws: int = mixture.LEAST_POINTS, least_variance: float = 1e-6
    ) -> Self:
        """Fit the mixture of ``latent_prior="mixture"`` to the latents of ``X``, also of a model trained without one.

        From then on it is the model's own, for :meth:`sample`, :meth:`latent_score` and a file. ``components`` as in
        the class. Of fewer rows than ``draws``, or of fewer in a class, each row gives several latents;
        ``least_variance``, in the latent's units, keeps a component from closing in on a few rows. Raises ImportError
        without scikit-learn.
        """
        self._require_fit()
        checks.integer("draws", draws, 1)
        checks.number("least_variance", least_variance, 0, exclude_low=True)
        mixture.check_available()
        with self._ops.on_device_of(X):
            rows = self._check_rows(X)
            codes = self._condition_codes(y, len(rows))
            self._fit_mixture(rows, codes, data=True, draws=draws, least_variance=least_variance)
        return self

    def _draw_latents(self, n: int, seed: int, prior: str | None, codes: np.ndarray | None) -> np.ndarray:
        """``float32[n, latent_dim]`` from the distribution that ``prior`` names."""
        chosen = mixture.check("prior", prior, self.latent_prior_)
        normals = self._normal((n, self._frozen["latent_dim"]), seed, random.SAMPLE)
        if chosen is None:
            return normals
        uniforms = self._uniform((n,), seed, random.LABELS, block=1)
        return chosen.draw(chosen.groups_of(codes, n), uniforms, normals)

    def _check_params(self) -> None:
        super()._check_params()
        checks.integer("components", self.components, 1)
        checks.choice("latent_prior", self.latent_prior, PRIORS)

    def _before_training(self) -> None:
        if self.latent_prior == "mixture":
            mixture.check_available()
        self.latent_prior_ = None  # the weights are about to change, and with them the latents

    def _after_training(self, rows: Array, codes: np.ndarray | None) -> None:
        """Fit the mixture where one is asked for. Of a model without a step there is nothing to fit to yet."""
        if self.latent_prior == "mixture" and self.history_.steps:
            self._fit_mixture(rows, codes, data=rows.dtype == np.uint8)  # others are standardised

    def _fit_mixture(self, rows: Array, codes: np.ndarray | None, *, data: bool, **how: Any) -> None:
        """Fit the mixture to the latents of ``rows``, or of some if there are many; ``data`` as in :meth:`_apply`."""
        groups = group_of_rows(group_count(self.conditions_), codes, len(rows))
        chosen = np.sort(np.random.default_rng(self.seed).permutation(len(rows))[: mixture.MOST_ROWS])
        chosen = np.union1d(chosen, np.unique(groups, return_index=True)[1])  # a row of each class, however rare
        some, of_some = rows[chosen], None if codes is None else codes[chosen]
        with self._ops.on_device_of(some):
            heads = self._apply(self.encoder_, some, of_some, data=data)
            mu, logvar = (self._ops.to_host(part) for part in latent.posterior(heads))
        deviation = np.exp(logvar / 2)
        count = group_count(self.conditions_)
        self.latent_prior_ = mixture.fit(mu, deviation, groups[chosen], count, self.components, self.seed, **how)

    def _own_tensors(self) -> Tensors:
        return {} if self.latent_prior_ is None else self.latent_prior_.tensors()

    def _check_own_tensors(self, tensors: Tensors, known: Conditions | None) -> None:
        Mixture.from_tensors(tensors, group_count(known), self.latent_dim)

    def _load_own_tensors(self, tensors: Tensors) -> None:
        self.latent_prior_ = Mixture.from_tensors(tensors, group_count(self.conditions_), self.latent_dim)
