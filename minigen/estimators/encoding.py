"""The encoder of a trained VAE: from data to latents."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.estimators.trained import TrainedModel
from minigen.models.network import Network
from minigen.reference import latent


class Encodes(TrainedModel):
    """The part of a VAE that gives the latents of data, also as a step of scikit-learn's pipelines."""

    encoder_: Network

    def encode(self, X: Any, y: Any = None, *, return_logvar: bool = False) -> Array | tuple[Array, Array]:
        """``mu[N, latent_dim]`` of ``q(z | x)`` for each row of ``X``, float32; with ``return_logvar`` also ``logvar``.

        A conditional model needs ``y`` in this method and the next ones: the rows' labels, or the numbers beside them,
        as in ``fit``. Only :meth:`sample` can do without labels.

        Data of this method and the next ones, ``X[N, ...]``: items of the shape and dtype of the training data, at
        least one; flat rows ``[N, height * width]`` stand for pictures ``[N, height, width]`` and the other way round.
        Raises ``TypeError`` or ``ValueError`` for others and :class:`~minigen.NotFittedError` before
        ``fit``.
        """
        self._require_fit()
        with self._ops.on_device_of(X) as give:
            rows = self._check_rows(X)
            mu, logvar = self._posterior(rows, self._condition_codes(y, len(rows)))
            return (give(mu), give(logvar)) if return_logvar else give(mu)

    def transform(self, X: Any, y: Any = None) -> Array:
        """The mean of the latent for each row of ``X``, ``float32[N, latent_dim]``: :meth:`encode` under the name that
        scikit-learn's pipelines call."""
        return self.encode(X, y)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of :meth:`transform`: ``vae0``, ``vae1``, ... ``input_features`` is ignored."""
        self._require_fit()
        return np.array([f"vae{i}" for i in range(self._frozen["latent_dim"])], dtype=object)

    def _posterior(self, rows: Array, codes: np.ndarray | None) -> tuple[Array, Array]:
        """``mu`` and ``logvar`` of ``q(z | x)``, each ``[N, latent_dim]``."""
        return latent.posterior(self._apply(self.encoder_, rows, codes, data=True))
