"""What a VAE says of how likely data are: bounds and estimates of ``log p(x)``, from draws of the latent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.estimators import mixture
from minigen.estimators.mixture import Mixture
from minigen.estimators.trained import ROWS_AT_ONCE, TrainedModel
from minigen.models.likelihood import Likelihood
from minigen.models.network import Network
from minigen.reference import latent, random
from minigen.training.progress import progress_bar

NOISE_BITS = 11
NOISE_TABLE = 2**NOISE_BITS  # noise vectors in a draw; of more rows of data some share theirs
BAR_AFTER = 2.0  # seconds of scoring without a progress bar


class Scores(TrainedModel):
    """The half of a VAE that scores data."""

    encoder_: Network
    decoder_: Network
    latent_prior_: Mixture | None

    def _likelihood(self) -> Likelihood:
        """``p(x | z)`` of the trained model."""
        raise NotImplementedError

    def elbo(
        self,
        X: Any,
        y: Any = None,
        *,
        samples: int = 1,
        seed: int = 0,
        prior: str | None = "normal",
        progress: bool | None = None,
    ) -> Array:
        """Evidence lower bound of each row of ``X``, in nats, ``float64[N]``: ``E_q log p(x | z) - KL``.

        The expectation is over ``samples`` draws of ``z`` a row. Higher is likelier. Of a Gaussian or continuous
        Bernoulli likelihood it is a density in the data's units (of uint8, in units of 255).

        Of this method and :meth:`score_samples`: ``prior`` is the ``p(z)`` in it. ``"normal"``, N(0, I), is what the
        training's bound has; with ``"mixture"`` it is a bound of ``log p(x)`` of the rows that :meth:`sample` draws
        from the mixture: ``E_q [log p(x | z) + log p(z) - log q(z | x)]``; None as in :meth:`sample`.

        ``seed`` and a row's values decide its noise, so a row alone scores as it does among others, but for the
        rounding of float32, which may depend on the number of rows. A row so far from the training data that its
        likelihood overflows float32 scores ``-inf``, never NaN. ``progress`` shows a bar (``None``: on a terminal
        only, and when it takes longer than two seconds).
        """
        return self._scores(X, y, samples, seed, prior, progress, weighted=False)[0]

    def score_samples(
        self,
        X: Any,
        y: Any = None,
        *,
        samples: int = 64,
        n: int | None = None,
        seed: int = 0,
        return_std: bool = False,
        prior: str | None = "normal",
        progress: bool | None = None,
    ) -> Any:
        """Estimated ``log p(x)`` of each row of ``X``, in nats, ``float64[N]``; low scores are anomalies.

        The importance-weighted bound of Burda et al. 2016 (equation 8), ``log mean_k p(x, z_k) / q(z_k | x)`` with
        ``samples`` draws a row, 64 by default (``n`` is another word for it): in expectation it lies above the ELBO and
        approaches ``log p(x)`` as ``samples`` grows. Each row is encoded once and decoded ``samples`` times. Units,
        ``prior``, noise and what overflows: see :meth:`elbo`.

        Of grey levels under ``likelihood="bernoulli"`` neither this nor :meth:`elbo` is about a ``log p(x)``: that
        cross entropy is not normalised as a density over [0, 1] (:mod:`minigen.reference.vae_loss`). Such scores can be
        compared with each other, not with those of another likelihood; ``likelihood="continuous_bernoulli"`` is the
        normalised density.

        With ``return_std`` also its standard error, ``float64[N]``, which takes at least two ``samples``: how far the
        estimate is expected to lie from the one of infinitely many. It is NaN where the score is ``-inf``, and where a
        few draws have nearly all the weight it is too small itself.
        """
        checks.choice("return_std", return_std, (True, False))
        given = "samples" if n is None else "n"
        samples = checks.integer(given, samples if n is None else n, 2 if return_std else 1)
        scores, errors = self._scores(X, y, samples, seed, prior, progress, weighted=True)
        return (scores, errors) if return_std else scores

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`elbo` over the rows of ``X``: higher is better, for searches over settings. A model that
        is not conditional ignores ``y``."""
        self._require_fit()
        return float(self.elbo(X, y if self.conditions_ is not None else None).mean())

    def _scores(
        self, X: Any, y: Any, samples: int, seed: int, prior: str | None, progress: bool | None, *, weighted: bool
    ) -> tuple[Array, Array]:
        """A score for each row, and its standard error."""
        self._require_fit()
        checks.integer("samples", samples, 1)
        checks.seed("seed", seed)
        checks.choice("progress", progress, (None, True, False))
        chosen = mixture.check("prior", prior, self.latent_prior_)
        with self._ops.on_device_of(X) as give:
            rows = self._check_rows(X)
            codes = self._condition_codes(y, len(rows))
            scores, errors = (np.empty_like(rows, np.float64, shape=(len(rows),)) for _ in range(2))
            options = {"unit": "draw", "desc": f"{samples} draws a row", "delay": 0 if progress else BAR_AFTER}
            with progress_bar(len(rows) * samples, progress, **options) as bar:
                for a in range(0, len(rows), ROWS_AT_ONCE):
                    b = min(a + ROWS_AT_ONCE, len(rows))
                    of_piece = None if codes is None else codes[a:b]
                    scores[a:b], errors[a:b] = self._score_piece(
                        rows[a:b], of_piece, samples, seed, chosen, weighted, bar
                    )
            return give(scores if self.columns_ is None else scores - self.columns_.log_scale), give(errors)

    def _score_piece(
        self,
        rows: Array,
        codes: np.ndarray | None,
        samples: int,
        seed: int,
        chosen: Mixture | None,
        weighted: bool,
        bar: Any,
    ) -> tuple[Array, Array]:
        """ELBO, or importance-weighted bound, of at most ``ROWS_AT_ONCE`` rows, ``float64``, and the standard error.

        Of ``log mean w`` it is the error of ``mean w`` over ``mean w``, to first order: with S1 and S2 the sums of w
        and of w^2 over k draws, ``sqrt((k S2 / S1^2 - 1) / (k - 1))``. Of a mean it is ``sqrt(variance / (k - 1))``.
        """
        start = -np.inf if weighted else 0.0
        values: Any = np.full_like(rows, start, np.float64, shape=(2, len(rows)))  # log S1, log S2; or sums
        by_draws = weighted or chosen is not None  # the divergence from N(0, I) alone has a closed form
        for reconstruction, kl, log_ratio in self._draws(rows, codes, samples, seed, chosen):
            value = log_ratio - reconstruction if by_draws else -(reconstruction + kl)
            value = np.where(np.isnan(value), -np.inf, value)  # data and weights are finite: it is an overflow's
            if weighted:
                values = np.logaddexp(values, np.stack([value, 2 * value]))
            else:
                values = values + np.stack([value, value**2])
            bar.update(len(rows))
        with np.errstate(invalid="ignore", divide="ignore"):
            if weighted:
                relative = np.exp(np.log(samples) + values[1] - 2 * values[0]) - 1
                return values[0] - np.log(samples), np.sqrt(np.maximum(relative, 0) / (samples - 1))
            mean = values[0] / samples
            return mean, np.sqrt(np.maximum(values[1] / samples - mean**2, 0) / (samples - 1))

    def _draws(
        self, rows: Array, codes: np.ndarray | None, samples: int, seed: int, chosen: Mixture | None
    ) -> Iterator[tuple[Array, Array, Array]]:
        """For each of ``samples`` draws of z: reconstruction term, KL from N(0, I), and ``log p(z) / q(z | x)`` with
        p the ``chosen`` mixture or N(0, I), a float64 a row.

        Computed by the operations of the training step. A draw is a table of noise vectors, and a hash of a row's
        values picks the one for that row: its score does not depend on which other rows there are, and since different
        rows have different noise, chance averages out over them.
        """
        ops, n, width = self._ops, len(rows), self._frozen["latent_dim"]
        places = ops.operand(noise_rows(rows, ops), np.int32)
        x = ops.operand(self._to_model(rows))
        context = self._context(codes)
        heads = self.encoder_.forward(x, self.encoder_.workspace(n, grad_rows=0, context=context))
        mu, logvar = latent.posterior(ops.result(heads, rows).astype(np.float64))
        table, eps, z = ops.empty((NOISE_TABLE, width)), ops.empty((n, width)), ops.empty((n, width))
        nats, kl, loss = ops.empty((n,)), ops.empty((n,)), ops.empty((1,))
        work, gradient = self.decoder_.workspace(n, grad_rows=0, context=context), ops.empty(tuple(x.shape))
        likelihood = self._likelihood()
        for k in range(samples):
            ops.random_normal(table, seed, random.SAMPLE, ops.upload(np.array([k], np.uint64)))
            ops.batch_gather(table, places, eps)
            ops.latent_forward(heads, eps, z, kl, loss)
            likelihood.loss(self.decoder_.forward(z, work), x, gradient, nats, loss)
            noise, point, terms, divergence = (
                ops.result(buffer, rows).astype(np.float64) for buffer in (eps, z, nats, kl)
            )
            # log p(z) - log N(z; mu, exp(logvar)), where (z - mu)^2 / exp(logvar) is eps^2; log 2 pi cancels in N(0, I)
            if chosen is None:
                yield terms, divergence, 0.5 * (noise**2 + logvar - point**2).sum(axis=1)
                continue
            density = ops.to_device_of(rows, chosen.log_density(ops.to_host(point), chosen.groups_of(codes, n)))
            yield terms, divergence, density + 0.5 * (noise**2 + logvar + math.log(2 * math.pi)).sum(axis=1)


def noise_rows(rows: Array, ops: Backend) -> Array:
    """``int32[N]`` in [0, NOISE_TABLE): a hash of the values of each of ``rows[N, D]``, uint8 or float32.

    A multilinear hash (Carter and Wegman 1979): the sum of the columns' 32 bits, each times an odd number of its
    own, modulo 2^32; the upper bits depend on every bit of the row.
    """
    words = rows.astype(np.uint32) if rows.dtype == np.uint8 else (rows + np.float32(0)).view(np.uint32)  # -0 is 0
    factors = random.blocks(-(-rows.shape[1] // 4), 0, random.SAMPLE, 0).reshape(-1)[: rows.shape[1]] | np.uint32(1)
    total = (words * ops.to_device_of(rows, factors)).sum(axis=1, dtype=np.uint32)
    return (total >> np.uint32(32 - NOISE_BITS)).astype(np.int32)
