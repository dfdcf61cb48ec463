"""A detector of unusual rows: a small VAE, or an ensemble of them, in scikit-learn's form for outliers."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from minigen import checks
from minigen.anomalies import files
from minigen.anomalies.columns import COLUMNS, Quantiles, Standard
from minigen.anomalies.mixed import MixedColumns, is_mixed
from minigen.datasets import frames
from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError
from minigen.estimators import inputs, mixture, sklearn_protocol
from minigen.estimators.latent_prior import PRIORS
from minigen.estimators.many import fit_many
from minigen.estimators.vae import VAE

SCORES = ("bound", "likelihood", "reconstruction", "latent")
LEAST_ROWS = 2000  # of an epoch: fewer are repeated, since each epoch has a cost of its own; and draws for a mixture
COMPONENTS = 20  # of the mixture, at most: of few rows it has fewer
LEAST_VARIANCE = 1e-3  # of its components: they are to say where usual rows lie, not where each training row lies
WARMUP = 0.1  # share of the epochs in which the KL's weight grows from 0, or latents may stay unused
CLIP_NORM = 100.0  # of the gradient, far above its usual norm, so that one extreme row cannot undo many steps
AUTO_OFFSET = 0.01  # share of the training rows that contamination="auto" takes for unusual


class AnomalyDetector(sklearn_protocol.Parameters):
    """Finds unusual rows of a table, in the manner of scikit-learn's outlier detectors.

    >>> detector = minigen.AnomalyDetector().fit(X)
    >>> unusual = X[detector.predict(X) == -1]
    >>> why = detector.explain(unusual)  # nats by which each column makes a row unusual

    It trains VAEs with a Gaussian likelihood of one learned variance. A DataFrame may have categories, booleans, dates
    and missing values beside numbers: categories are then one-hot with a cross entropy, and what the training rows
    never had is unusual. The score of a row depends on no other row.

    Parameters
    ----------
    score_by : what a row is scored by, higher is more usual: ``"bound"``, the evidence lower bound of ``log p(x)``;
        ``"likelihood"``, the importance weighted estimate of it (Burda et al. 2016); ``"reconstruction"``, how likely
        the row is given its own latents; ``"latent"``, the log density of its latent under the mixture
    latent_prior : the ``p(z)`` that rows are scored with: ``"mixture"``, of Gaussians fitted to the training rows'
        latents (needs scikit-learn), or ``"normal"``, N(0, I), which knows less of where usual rows lie
    contamination : share of the training rows to call unusual, in (0, 0.5], or ``"auto"``, 0.01
    columns : ``"standard"``: mean 0 and deviation 1, with extreme values compressed by ``2 asinh(z / 2)``, so that a
        value that rarely occurs does not dominate all others; ``"quantile"``: by ranks, as a normal distribution has
        them, for skewed columns and such with a few huge values
    members : models in the ensemble, by ``seed``, ``seed + 1``, ..., trained at once; scores are their mean. More than
        one are a little better, and take as many times as long
    samples : draws of the latent for each row's score
    latent_dim : width of the latent, at most as many as there are columns
    hidden : sizes of the encoder's hidden layers; the decoder's are these in reverse
    steps : training steps of each model, however many rows there are; whole epochs, so that a few more may be done
    batch_size : rows a step, at most all
    learning_rate : step size of Adam
    seed : of weights, order and noise
    device : ``"auto"``, ``"numpy"``, ``"cpu"`` or ``"cuda"``

    Attributes after ``fit``
    ------------------------
    ``offset_``, the score below which a row counts as unusual; ``models_``, the trained :class:`~minigen.VAE`;
    ``n_features_in_``, and ``feature_names_in_`` of a table with names; ``mixed_``, the columns of a table of more than
    numbers, or None.
    """

    kind = "anomaly-detector"
    models_: list[VAE]
    scaling_: Standard | Quantiles | None  # None for an older file, whose models standardise by themselves
    mixed_: MixedColumns | None
    offset_: float
    item_shape_: tuple[int, ...]
    source_: str | None

    def __init__(
        self,
        *,
        score_by: str = "bound",
        latent_prior: str = "mixture",
        contamination: float | str = "auto",
        columns: str = "standard",
        members: int = 1,
        samples: int = 6,
        latent_dim: int = 8,
        hidden: tuple[int, ...] = (128,),
        steps: int = 1800,
        batch_size: int = 48,
        learning_rate: float = 3e-3,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.score_by = score_by
        self.latent_prior = latent_prior
        self.contamination = contamination
        self.columns = columns
        self.members = members
        self.samples = samples
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.device = device

    def __sklearn_tags__(self) -> Any:
        return sklearn_protocol.tags(transformer=False, estimator_type="outlier_detector")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "models_")

    def _check_params(self) -> None:
        checks.choice("score_by", self.score_by, SCORES)
        checks.choice("latent_prior", self.latent_prior, PRIORS)
        if self.score_by == "latent" and self.latent_prior == "normal":
            raise ArgumentError("latent_prior", "must be 'mixture' with score_by='latent', not 'normal'")
        checks.choice("columns", self.columns, COLUMNS)
        if self.contamination != "auto":
            if isinstance(self.contamination, str):
                raise ArgumentError("contamination", f"must be 'auto' or in (0, 0.5], not {self.contamination!r}")
            checks.number("contamination", self.contamination, 0, 0.5 + 1e-9, exclude_low=True)
        checks.integer("members", self.members, 1)
        checks.integer("samples", self.samples, 1)
        checks.integer("steps", self.steps, 1)
        checks.integer("batch_size", self.batch_size, 1)
        checks.integer("latent_dim", self.latent_dim, 1)
        checks.seed("seed", self.seed)

    # --- training -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, types: Mapping[str, str] | None = None) -> Self:
        """Train on ``X[N, ...]``, rows of numbers, or on a DataFrame; most rows are to be usual. ``y`` is ignored.

        ``types`` says what columns of a DataFrame are that are not what they look like: ``"numeric"``, ``"integer"``,
        ``"category"``, ``"boolean"`` or ``"date"``. Raises ``TypeError`` or ``ValueError`` for bad settings or data,
        before any work.
        """
        self._check_params()
        if self.latent_prior == "mixture":
            mixture.check_available()
        mixed = MixedColumns.measure(X, types) if types is not None or is_mixed(X) else None
        rows, item_shape = as_rows(X if mixed is None else mixed.encode(X), name="X", min_rows=2)
        rows = rows.astype(np.float32)
        scaling = COLUMNS[self.columns].of(rows[:, _numbers(rows, mixed)])
        seen = _seen(rows, scaling, mixed)
        repeated = np.tile(seen, (-(-LEAST_ROWS // len(seen)), 1))
        models = [self._member(i, len(repeated), rows.shape[1], mixed) for i in range(self.members)]
        fit_many(models, repeated, progress=False)
        if any(getattr(model, "history_", None) is None or model.history_.stop_signal for model in models):
            raise KeyboardInterrupt  # a part of the ensemble is no detector
        if self.latent_prior == "mixture":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # its advice is for a setting that there is not here
                for model in models:
                    # Not to the repeated rows, each of which would count several times.
                    model.fit_latent_prior(seen, draws=LEAST_ROWS, least_variance=LEAST_VARIANCE)
        self.models_, self.source_ = models, None
        self.scaling_, self.mixed_ = scaling, mixed
        self.item_shape_ = item_shape if mixed is None else (len(mixed.parts),)
        self.n_features_in_ = math.prod(self.item_shape_)
        vars(self).pop("feature_names_in_", None)
        if (names := frames.column_names(X)) is not None:
            self.feature_names_in_ = names
        share = AUTO_OFFSET if self.contamination == "auto" else float(self.contamination)
        self.offset_ = float(np.quantile(self._scores_of(seen), share))
        return self

    def _member(self, i: int, rows: int, width: int, mixed: MixedColumns | None) -> VAE:
        """The ``i``-th model of the ensemble, to be trained on as many ``rows`` of this ``width``."""
        batch = min(self.batch_size, rows)
        how: dict[str, Any] = {"likelihood": "gaussian", "variance": "learned_scalar"}
        if mixed is not None and not all(width == 1 for width in mixed.blocks):
            how = {"likelihood": "mixed", "blocks": mixed.blocks}
            how["variance"] = "learned_scalar" if len(mixed.numbers) else 1.0
        epochs = -(-self.steps // -(-rows // batch))
        return VAE(
            **how,
            latent_dim=min(self.latent_dim, width),
            hidden=self.hidden,
            components=COMPONENTS,
            kl_warmup=WARMUP * epochs,
            learning_rate=self.learning_rate,
            clip_norm=CLIP_NORM,
            batch_size=batch,
            epochs=epochs,
            seed=(self.seed + i) % checks.SEED_LIMIT,
            device=self.device,
        )

    # --- using it -------------------------------------------------------------------------------

    def score_samples(self, X: Any) -> np.ndarray:
        """How usual each row of ``X`` is, in nats, ``float64[N]``: higher is more usual."""
        return self._scores_of(self._check_rows(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples(X) - offset_``: below 0 for rows that are called unusual."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for each unusual row of ``X``, 1 for the others: ``int64[N]``."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """``fit(X).predict(X)``."""
        return self.fit(X).predict(X)

    def explain(self, X: Any) -> np.ndarray:
        """By how many nats each column makes a row unusual, ``float64[N, D]``.

        Of column d it is what the row's score would gain if d alone were as the models reconstruct it from the whole
        row; what does not matter is near 0. The shares need not add up to the score, as columns act together.
        """
        seen = self._check_rows(X)
        own = self._scores_of(seen)
        expected: Any = np.mean([model.reconstruct(seen) for model in self.models_], axis=0, dtype=np.float64)
        if self.mixed_ is not None:
            expected = self.mixed_.as_rows(expected)
        gains = np.empty((len(seen), self.n_features_in_))
        for d in range(self.n_features_in_):
            changed, place = seen.copy(), slice(d, d + 1) if self.mixed_ is None else self.mixed_.spans[d]
            changed[:, place] = expected[:, place]
            gains[:, d] = self._scores_of(changed) - own
        return gains

    def _check_rows(self, X: Any) -> np.ndarray:
        """``X`` as the models take it. Raises TypeError or ValueError for what is not like the training's."""
        if not self.__sklearn_is_fitted__():
            message = "this AnomalyDetector is not trained yet: call fit, or minigen.load a file"
            raise sklearn_protocol.not_fitted(message)
        names = getattr(self, "feature_names_in_", None)
        frames.check_columns("X", X, None if names is None else list(names))
        encoded = X if self.mixed_ is None else self.mixed_.encode(X)
        rows, item_shape = as_rows(encoded, name="X", min_rows=1)
        if self.mixed_ is None:
            inputs.check_items(self, "X", item_shape)
        return _seen(rows.astype(np.float32), self.scaling_, self.mixed_)

    def _scores_of(self, seen: np.ndarray) -> np.ndarray:
        """Mean score of the ensemble; a row so far out that it overflows gets the least number, not -inf."""
        scores = np.mean([self._score_by(model, seen) for model in self.models_], axis=0)
        return np.maximum(scores, np.finfo(np.float32).min)

    def _score_by(self, model: VAE, seen: np.ndarray) -> np.ndarray:
        if self.score_by == "latent":
            return model.latent_score(seen, samples=self.samples)
        how: dict[str, Any] = {"samples": self.samples, "progress": False}
        if self.score_by == "likelihood":
            return model.score_samples(seen, prior=self.latent_prior, **how)
        if self.score_by == "bound":
            return model.elbo(seen, prior=self.latent_prior, **how)
        bound = model.elbo(seen, **how)
        mu, logvar = (part.astype(np.float64) for part in model.encode(seen, return_logvar=True))
        return bound + (mu**2 + np.expm1(logvar) - logvar).sum(axis=1) / 2  # the bound without its KL

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the detector to one safetensors file, which :func:`minigen.load` reads. Raises ``OSError``."""
        if not self.__sklearn_is_fitted__():
            raise sklearn_protocol.not_fitted("this AnomalyDetector is not trained yet: call fit")
        files.save(self, path)


def _numbers(rows: np.ndarray, mixed: MixedColumns | None) -> np.ndarray:
    """The columns of encoded ``rows`` that are numbers."""
    return np.arange(rows.shape[1]) if mixed is None else mixed.numbers


def _seen(rows: np.ndarray, scaling: Standard | Quantiles | None, mixed: MixedColumns | None) -> np.ndarray:
    """``rows`` as the models see them: their numbers by ``scaling``, categories as they are."""
    if scaling is None:
        return rows
    seen, numbers = rows.copy(), _numbers(rows, mixed)
    seen[:, numbers] = scaling(rows[:, numbers])
    return seen
