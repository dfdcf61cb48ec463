"""The variational autoencoder as an estimator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.datasets import frames
from minigen.estimators.base import ROWS_AT_ONCE, Estimator, beside
from minigen.models.mlp import Mlp
from minigen.models.vae import LIKELIHOODS, VaeTraining
from minigen.reference import activations, latent, random
from minigen.training.loop import Callback


class VAE(Estimator):
    """Variational autoencoder of dense layers (Kingma and Welling 2014).

    >>> model = minigen.VAE.preset("quality").fit(minigen.datasets.mnist_sample())
    >>> model.show(64)

    Parameters
    ----------
    latent_dim : width of the latent ``z``
    hidden : sizes of the encoder's hidden layers; the decoder's are these in reverse
    activation : of the hidden layers, one of ``minigen.ACTIVATIONS``
    likelihood : ``"bernoulli"`` for data in [0, 1] (uint8 is divided by 255), ``"gaussian"`` for any data
    variance : of the Gaussian likelihood, fixed
    beta : weight of the KL; 1 is the evidence lower bound (other values: Higgins et al. 2017)
    optimizer, learning_rate, beta1, beta2, eps, momentum, weight_decay : ``"adam"``, ``"adamw"`` or ``"sgd"``
    batch_size : rows a step; the rows that an epoch leaves over form a last, smaller step
    epochs : passes over the data
    init : initial weights; ``"auto"`` is He for rectifiers and Glorot elsewhere. The default came to a better
        bound on MNIST in ten epochs than ``"auto"``.
    seed : of weights, order and noise. The same seed gives the same bits on the same device.
    device : ``"auto"``, ``"numpy"``, ``"cpu"`` or ``"cuda"``
    precision : of matrix products, see :func:`minigen.floors.get_backend`; sums and storage are float32 in all.
        ``"auto"``: the device's fastest with an error like float32's.
    """

    kind = "vae"
    lasting = (*Estimator.lasting, "likelihood", "variance")
    encoder_: Mlp
    decoder_: Mlp
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "article": {},
        "quality": {"hidden": (512, 512), "epochs": 50},
    }

    def __init__(
        self,
        *,
        latent_dim: int = 20,
        hidden: tuple[int, ...] = (400,),
        activation: str = "relu",
        likelihood: str = "bernoulli",
        variance: float = 1.0,
        beta: float = 1.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        batch_size: int = 128,
        epochs: int = 10,
        init: str = "glorot_uniform",
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.activation = activation
        self.likelihood = likelihood
        self.variance = variance
        self.beta = beta
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.init = init
        self.seed = seed
        self.device = device
        self.precision = precision

    # --- using it -------------------------------------------------------------------------------

    def encode(self, X: Any, return_logvar: bool = False) -> Array | tuple[Array, Array]:
        """``mu[N, latent_dim]`` of ``q(z | x)`` for each row of ``X``, float32; with ``return_logvar`` also ``logvar``.

        Data of this method and the next ones, ``X[N, ...]``: items of the shape and dtype of the training data, at
        least one. Raises ``TypeError`` or ``ValueError`` for others and :class:`~minigen.NotFittedError` before
        ``fit``.
        """
        self._require_fit()
        with beside(self._ops, X) as give:
            mu, logvar = self._posterior(X)
            return (give(mu), give(logvar)) if return_logvar else give(mu)

    def decode(self, z: Any) -> Array:
        """Mean of ``p(x | z)`` for ``z[n, latent_dim]``: ``[n, ...]`` in the training data's units, type and shape.

        Raises ``TypeError`` or ``ValueError`` for latents of another shape or that are no finite numbers.
        """
        self._require_fit()
        with beside(self._ops, z) as give:
            return give(self._mean(z))

    def reconstruct(self, X: Any) -> Array:
        """``decode(encode(X))``, ``[N, ...]``: the mean of ``p(x | z)`` at the mean of ``z``, in the units of ``X``."""
        self._require_fit()
        with beside(self._ops, X) as give:
            return frames.with_index_of(X, give(self._mean(self._posterior(X)[0])))

    def sample(self, n: int = 1, seed: int | None = None) -> np.ndarray:
        """``n`` new samples, ``[n, ...]``: means of ``p(x | z)`` for ``z ~ N(0, I)``, fresh ones with ``seed=None``."""
        self._require_fit()
        width = self._lasting["latent_dim"]
        return self.decode(self._normal((checks.integer("n", n, 0), width), seed, random.SAMPLE))

    def elbo(self, X: Any, *, samples: int = 1, seed: int = 0) -> Array:
        """Evidence lower bound of each row of ``X``, in nats, ``float64[N]``: ``E_q log p(x | z) - KL``.

        The expectation is over ``samples`` draws of ``z`` a row. Higher is likelier.
        """
        self._check_draws(samples, seed)
        with beside(self._ops, X) as give:
            total: Any = 0.0
            for reconstruction, kl, _ in self._draws(self._check_rows(X), samples, seed):
                total = total - (reconstruction + kl)
            return give(total / samples)

    def score_samples(self, X: Any, *, samples: int = 64, seed: int = 0) -> Array:
        """Estimated ``log p(x)`` of each row of ``X``, in nats, ``float64[N]``; low scores are anomalies.

        The importance-weighted bound of Burda et al. 2016 (equation 8), ``log mean_k p(x, z_k) / q(z_k | x)`` with
        ``samples`` draws: it lies above the ELBO and approaches ``log p(x)`` as ``samples`` grows.
        """
        self._check_draws(samples, seed)
        with beside(self._ops, X) as give:
            total: Any = -np.inf
            for reconstruction, _, log_ratio in self._draws(self._check_rows(X), samples, seed):
                total = np.logaddexp(log_ratio - reconstruction, total)
            return give(total - np.log(samples))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`elbo` over the rows of ``X``: higher is better, for searches over settings. ``y`` is
        ignored."""
        return float(self.elbo(X).mean())

    def _posterior(self, X: Any) -> tuple[Array, Array]:
        """``mu`` and ``logvar`` of ``q(z | x)``, each ``[N, latent_dim]``."""
        heads = self._apply(self.encoder_, self._to_model(self._check_rows(X)))
        mu, logvar = latent.split(heads)
        return mu, logvar

    def _mean(self, z: Any) -> Array:
        """Of ``p(x | z)``, in the units of the data."""
        output = self._apply(self.decoder_, self._latents(z))
        bernoulli = self._lasting["likelihood"] == "bernoulli"
        return self._to_data(activations.forward(output, "sigmoid" if bernoulli else "linear"))

    def _check_draws(self, samples: int, seed: int) -> None:
        self._require_fit()
        checks.integer("samples", samples, 1)
        checks.seed("seed", seed)

    def _draws(self, rows: Array, samples: int, seed: int) -> Iterator[list[Array]]:
        """For each of ``samples`` draws of z: reconstruction term, KL, and ``log p(z) / q(z | x)``, a float64 a row."""
        for k in range(samples):
            pieces = [
                self._draw(rows[a : a + ROWS_AT_ONCE], seed, (a // ROWS_AT_ONCE) * samples + k)
                for a in range(0, len(rows), ROWS_AT_ONCE)
            ]
            yield [np.concatenate(column) for column in zip(*pieces, strict=True)]

    def _draw(self, rows: Array, seed: int, block: int) -> tuple[Array, Array, Array]:
        """One draw for at most ``ROWS_AT_ONCE`` rows, by the operations of the training step."""
        ops, n, width = self._ops, len(rows), self._lasting["latent_dim"]
        x = self._to_device(self._to_model(rows))
        heads = self.encoder_.forward(x, self.encoder_.workspace(n))
        eps, z = ops.empty((n, width)), ops.empty((n, width))
        nats, kl, loss = ops.empty((n,)), ops.empty((n,)), ops.empty((1,))
        ops.random_normal(eps, seed, random.SAMPLE, ops.upload(np.array([block], np.uint64)))
        ops.latent_forward(heads, eps, z, kl, loss)
        output = self.decoder_.forward(z, self.decoder_.workspace(n))
        self._reconstruction(output, x, ops.empty(tuple(output.shape)), nats, loss)
        heads, eps, z, nats, kl = (
            self._from_device(buffer, rows).astype(np.float64) for buffer in (heads, eps, z, nats, kl)
        )
        # log N(z; 0, I) - log N(z; mu, exp(logvar)), where (z - mu)^2 / exp(logvar) is eps^2
        log_ratio = 0.5 * (eps**2 + heads[:, width:] - z**2).sum(axis=1)
        return nats, kl, log_ratio

    def _reconstruction(self, output: Array, x: Array, gradient: Array, nats: Array, loss: Array) -> None:
        if self._lasting["likelihood"] == "bernoulli":
            self._ops.vae_loss_bernoulli(output, x, gradient, nats, loss)
        else:
            self._ops.vae_loss_gaussian(output, x, gradient, nats, loss, self._lasting["variance"])

    # --- what Estimator asks for ----------------------------------------------------------------

    def _check_params(self) -> None:
        super()._check_params()
        checks.widths("hidden", self.hidden)
        checks.choice("likelihood", self.likelihood, LIKELIHOODS)
        checks.number("variance", self.variance, 0, exclude_low=True)
        checks.number("beta", self.beta, 0)

    def _choose_range(self, rows: Array) -> tuple[float, float]:
        if rows.dtype == np.uint8:
            return 1 / 255, 0.0
        _check_support(rows, self.likelihood)
        return 1.0, 0.0

    def _check_range(self, rows: Array) -> None:
        _check_support(rows, self._lasting["likelihood"])

    def _sizes(self, columns: int) -> dict[str, tuple[int, ...]]:
        hidden = checks.widths("hidden", self.hidden)
        return {
            "encoder": (columns, *hidden, 2 * self.latent_dim),
            "decoder": (self.latent_dim, *hidden[::-1], columns),
        }

    def _networks(self, ops: Backend, columns: int, *chosen: Any) -> tuple[Mlp, Mlp]:
        sizes = self._sizes(columns)
        return (
            Mlp(ops, "encoder", sizes["encoder"], self.activation, "linear"),
            Mlp(ops, "decoder", sizes["decoder"], self.activation, "linear"),
        )

    def _training(self, rows: Array) -> VaeTraining:
        return VaeTraining(
            self._ops, self.encoder_, self.decoder_, rows, batch_size=self.batch_size, settings=self._settings(),
            likelihood=self.likelihood, variance=self.variance, beta=self.beta, seed=self.seed,
            scale=self.scale_, shift=self.shift_,
        )  # fmt: skip

    def _history_names(self) -> tuple[str, ...]:
        return VaeTraining.loss_names


def _check_support(rows: Array, likelihood: str) -> None:
    """Raise ValueError for values that the likelihood has no probability for."""
    least, most = float(rows.min()), float(rows.max())
    if likelihood == "bernoulli" and (least < 0 or most > 1):
        raise ValueError(
            f"X must lie in [0, 1] for likelihood='bernoulli', not in [{least:g}, {most:g}]; "
            "rescale it or choose likelihood='gaussian'"
        )


def train_vae(
    data: Any,
    *,
    preset: str = "article",
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    **settings: Any,
) -> VAE:
    """Train a :class:`VAE` on ``data`` and return it; ``settings`` are its parameters, over those of ``preset``.

    >>> model = minigen.train_vae(minigen.datasets.mnist_sample(), preset="quality")
    >>> bound = model.elbo(minigen.datasets.mnist_sample())
    """
    return VAE.preset(preset, **settings).fit(data, callbacks=callbacks, progress=progress)
