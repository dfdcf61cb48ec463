"""Which of a GAN's samples are left out: those that its own discriminator finds least like data.

Azadi et al. 2019 (Discriminator rejection sampling, section 3) accept a sample with a probability that grows with the
discriminator's logit, as the ratio of the two densities does where the discriminator is the best there can be. A
regularised one is far from that: its logits keep the order of the samples, but hardly their ratio. So the order decides
here: the share ``reject`` of the samples with the lowest logits is left out, and drawn anew.

Of a model with labels each class has a limit of its own, or classes that are hard to draw would become rare. The limits
are quantiles of the logits of 10,000 samples, which are drawn after a training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array
from minigen.errors import ArgumentError
from minigen.estimators import decoding
from minigen.estimators.conditions import Conditions, Labels, group_count, group_of_rows
from minigen.estimators.trained import TrainedModel
from minigen.models.network import Network
from minigen.reference import random
from minigen.training.checkpoint import Tensors, check_tensor

MEASURED = 10_000  # samples that the limits are taken from, or
MEASURED_OF_CLASS = 200  # of each class, if these are more
TRIES = 64  # a sample is drawn at most so many times; the last one is kept, whatever its logit


class Rejects(TrainedModel):
    """The part of a GAN that draws from its generator, and leaves some samples out."""

    reject: float
    latent_std: float
    seed: int
    generator_: Network
    averaged_generator_: Network | None
    discriminator_: Network
    limits_: np.ndarray | None
    """The least logit of a sample that is not left out, ``float64[1]`` or of each class; None where none is."""

    def _before_training(self) -> None:
        self.limits_ = None  # the weights are about to change, and with them the logits

    def _after_training(self, rows: Array, codes: np.ndarray | None) -> None:
        """Measure the limits, where samples are to be left out and the networks have learnt which."""
        if not self.reject or not self.history_.steps:
            return
        n, groups = MEASURED, group_count(self.conditions_)
        rng = np.random.default_rng([self.seed, 9])
        if isinstance(self.conditions_, Labels):
            n = max(n, MEASURED_OF_CLASS * groups)
            codes = self.conditions_.balanced(n)
        elif codes is not None:
            codes = codes[np.sort(rng.integers(len(codes), size=n))]
        logits = self._logits(self._sampled(n, int(rng.integers(2**32)), codes, None, True), codes)
        if np.isfinite(logits).all():  # a model that has diverged gets no limits
            group = group_of_rows(groups, codes, n)
            self.limits_ = np.array([np.quantile(logits[group == i], self.reject) for i in range(groups)])

    def _accepted(self, n: int, seed: int, codes: np.ndarray | None, average: bool | None, noise: bool) -> Array:
        """``n`` samples in the range of the model: one below its limit is drawn again, up to ``TRIES`` times in all.
        Row i depends on no other."""
        assert self.limits_ is not None
        rows = self._sampled(n, seed, codes, average, noise)
        limit = self.limits_[group_of_rows(len(self.limits_), codes, n)]
        below = np.flatnonzero(self._logits(rows, codes) < limit)
        for attempt in range(1, TRIES):
            if not len(below):
                break
            of_those = None if codes is None else codes[below]
            rows[below] = self._sampled(n, seed, of_those, average, noise, attempt, below)
            below = below[self._logits(rows[below], of_those) < limit[below]]
        return rows

    def _sampled(
        self,
        n: int,
        seed: int,
        codes: np.ndarray | None,
        average: bool | None,
        noise: bool,
        attempt: int = 0,
        chosen: Any = slice(None),
    ) -> Array:
        """The ``chosen`` ones of ``n`` samples in the range of the model; ``codes`` are their conditions. Labels in
        ``blocks`` are drawn with ``noise``, else their probabilities. Each ``attempt`` draws others."""
        z = self._noise(n, seed, 2 * attempt)[chosen]
        with self._ops.on_device_of(z):
            rows = self._apply(self._generator(average), z, codes)
            if noise and (blocks := self._frozen["blocks"]) is not None:
                u = self._uniform((n, rows.shape[1]), seed, random.SAMPLE, block=2 * attempt + 1)[chosen]
                rows = decoding.with_labels_drawn(rows, np.cumsum(blocks), u)
        return rows

    def _noise(self, n: int, seed: int | None, block: int = 0) -> np.ndarray:
        """What samples are made of, ``float32[n, latent_dim]``, with the standard deviation ``latent_std``."""
        z = self._normal((n, self._frozen["latent_dim"]), seed, random.SAMPLE, block)
        return z * np.float32(self.latent_std)

    def _logits(self, rows: Array, codes: np.ndarray | None) -> np.ndarray:
        """The discriminator's of ``rows`` in the range of the model, on the host."""
        with self._ops.on_device_of(rows):
            return self._ops.to_host(self._apply(self.discriminator_, rows, codes)[:, 0]).astype(np.float64)

    def _generator(self, average: bool | None) -> Network:
        """The generator with the average of its weights or with the weights, as ``sample`` is told."""
        checks.choice("average", average, (None, True, False))
        if average is False or (average is None and self.averaged_generator_ is None):
            return self.generator_
        if self.averaged_generator_ is None:
            raise ArgumentError("average", "must be None or False for a model that was trained with ema=0")
        return self.averaged_generator_

    def _own_tensors(self) -> Tensors:
        return {} if self.limits_ is None else {"reject.limits": self.limits_}

    def _check_own_tensors(self, tensors: Tensors, known: Conditions | None) -> None:
        if "reject.limits" in tensors:
            check_tensor(tensors, "reject.limits", (group_count(known),), np.float64)

    def _load_own_tensors(self, tensors: Tensors) -> None:
        self.limits_ = tensors.get("reject.limits")
