"""What a GAN draws: samples, from noise or between two points of latent space."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array
from minigen.datasets.load import as_numbers
from minigen.errors import ArgumentError
from minigen.estimators.interpolation import great_circle
from minigen.estimators.rejecting import Rejects
from minigen.estimators.trained import fresh_seed


class Generates(Rejects):
    """The half of a GAN that draws samples."""

    def sample(
        self,
        n: int = 1,
        seed: int | None = None,
        *,
        y: Any = None,
        balanced: bool = False,
        average: bool | None = None,
        noise: bool | None = None,
        reject: bool | None = None,
    ) -> np.ndarray:
        """``n`` new samples, ``[n, ...]`` in the units, type and shape of the training data.

        ``seed=None`` draws fresh noise each time. ``average``: with the average of the generator's weights, or with
        the weights as they are; ``None`` takes the average where ``ema`` keeps one. Labels in ``blocks`` are drawn
        from their probabilities, which are given instead with ``noise=False``. Of a model with ``reject`` the samples
        that its discriminator finds least like data are left out and drawn anew; with ``reject=False`` they stay, and
        sample ``i`` is what :meth:`generate` makes of ``latent(n, seed)[i]``.

        Of a model with labels, ``y`` is the label of all samples or has one for each; without it they are drawn as
        frequent as in the data, or, ``balanced``, sample ``i`` is of class ``classes_[i % len(classes_)]``. Of a model
        with numbers beside its rows, ``y[C]`` or ``y[n, C]`` are those.

        Raises :class:`~minigen.NotFittedError` before ``fit``, ``TypeError`` or ``ValueError`` for a bad ``y``, and for
        an average or a rejection that there is not.
        """
        self._require_fit()
        seed, n = fresh_seed(seed), checks.integer("n", n, 0)
        checks.choice("noise", noise, (None, True, False))
        checks.choice("reject", reject, (None, True, False))
        if reject and self.limits_ is None:
            raise ArgumentError("reject", "must be None or False for a model that was trained with reject=0")
        codes = self._codes_to_sample(n, seed, y, balanced)
        draw = self._sampled if reject is False or self.limits_ is None else self._accepted
        rows = draw(n, seed, codes, average, noise is not False)
        with self._ops.on_device_of(rows):
            items = self._to_data(rows)
            probabilities = noise is False and self._frozen["blocks"] is not None
            return self._as_frame(items if probabilities else self._rounded_if_binary(items))

    def latent(self, n: int = 1, seed: int | None = None) -> np.ndarray:
        """``n`` draws of the noise that :meth:`sample` takes, ``float32[n, latent_dim]``: normal, with the standard
        deviation ``latent_std``."""
        self._require_fit()
        return self._noise(checks.integer("n", n, 0), seed)

    def generate(self, z: Any, y: Any = None, *, average: bool | None = None) -> Array:
        """Samples for given noise ``z[n, latent_dim]``: ``[n, ...]`` in the units, type and shape of the training data.

        For zeros and ones these are float32, between them: how near to 1 the generator comes; of labels in ``blocks``
        the probabilities. A conditional model needs
        ``y``, one condition or one a row. ``average`` as in :meth:`sample`.
        Raises ``TypeError`` or ``ValueError`` for noise of another shape or that is no finite numbers.
        """
        self._require_fit()
        with self._ops.on_device_of(z) as give:
            z = self._latents(z)
            return give(self._as_frame(self._generated(z, self._condition_codes(y, len(z)), average)))

    def _generated(self, z: Any, codes: np.ndarray | None, average: bool | None) -> Array:
        """What the generator makes of noise ``z`` under these conditions, in the units of the data."""
        return self._to_data(self._apply(self._generator(average), self._latents(z), codes))

    def interpolate(self, a: Any, b: Any, steps: int = 8, y: Any = None, *, average: bool | None = None) -> np.ndarray:
        """``steps`` samples on the way from ``a`` to ``b``, ends included, ``[steps, ...]``.

        ``a`` and ``b`` are points of latent space, ``[latent_dim]``, or seeds. The way is the great circle of White
        2016 (slerp), on which the noise keeps its length: halfway along a straight line it would be shorter than the
        generator has been trained with. A conditional model needs ``y``, one condition or one for each step.
        ``average`` as in :meth:`sample`. Raises ``TypeError`` or ``ValueError`` for other ends, and for fewer than two
        steps.
        """
        self._require_fit()
        za, zb = self._endpoint("a", a), self._endpoint("b", b)
        z = great_circle(za, zb, checks.integer("steps", steps, 2))
        return self.generate(z, y, average=average)

    def _endpoint(self, name: str, value: Any) -> np.ndarray:
        if isinstance(value, (int, np.integer)):
            return self.latent(1, checks.seed(name, value))[0].astype(np.float64)
        z = as_numbers(name, value, np.float64)
        width = self._frozen["latent_dim"]
        if z.shape != (width,):
            raise ArgumentError(name, f"must be a seed (an integer) or a point of shape ({width},), not {z.shape}")
        return z
