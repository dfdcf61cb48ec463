"""The variational autoencoder as an estimator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.datasets import frames
from minigen.errors import ArgumentError
from minigen.estimators import scaling
from minigen.estimators.base import Estimator
from minigen.estimators.trained import ROWS_AT_ONCE, fresh_seed
from minigen.models.hidden import Hidden, dense_layers
from minigen.models.layers import Layer
from minigen.models.network import Network
from minigen.models.vae import LIKELIHOODS, VaeStep
from minigen.reference import activations, latent, random
from minigen.training.loop import Callback
from minigen.training.progress import progress_bar

NOISE_BITS = 11
NOISE_TABLE = 2**NOISE_BITS  # noise vectors in a draw; of more rows of data some share theirs
BAR_AFTER = 2.0  # seconds of scoring without a progress bar


class VAE(Estimator):
    """Variational autoencoder of dense layers (Kingma and Welling 2014).

    >>> model = minigen.VAE.preset("quality").fit(minigen.datasets.mnist_sample())
    >>> model.show(64)

    With labels it is conditional (Sohn, Lee and Yan 2015):

    >>> digits = minigen.datasets.mnist_sample()
    >>> model = minigen.VAE.preset("quality").fit(digits, digits.labels)
    >>> sevens = model.sample(10, y=7)

    Parameters
    ----------
    latent_dim : width of the latent ``z``
    hidden : sizes of the encoder's hidden layers; the decoder's are these in reverse
    activation : of the hidden layers, one of ``minigen.ACTIVATIONS``
    normalization : of the hidden layers of encoder and decoder, before the activation: ``"batch"`` (Ioffe and Szegedy
        2015), ``"layer"`` (Ba et al. 2016) or ``None``. Batch normalization encodes, decodes and scores by running
        statistics, which are part of the model; a last batch of a single row is then left out.
    dropout : share of the hidden units of encoder and decoder that are dropped in training (Srivastava et al. 2014)
    likelihood : ``"bernoulli"`` for data in [0, 1], but for a few units in the last place, which are clipped (uint8 is
        divided by 255, zeros and ones in bool or integers are taken as such), ``"gaussian"`` for any data
    variance : of the Gaussian likelihood, fixed; of standardised columns it is a share of each column's variance
    standardize : take the mean out of each column and divide it by its standard deviation, in the model; samples,
        reconstructions and densities are in the data's units. ``"auto"``: where the data are floating and the
        likelihood is Gaussian
    conditional : whether ``y`` makes the model conditional: ``"auto"`` where ``fit`` is given one, but not
        ``fit_transform``, since ``transform`` has no labels in a pipeline; True demands it; False ignores it, as labels
        in scikit-learn's searches and pipelines are meant for others
    beta : weight of the KL; 1 is the evidence lower bound (other values: Higgins et al. 2017)
    optimizer : ``"adam"``, ``"adamw"``, ``"sgd"``, ``"rmsprop"`` or ``"lion"``. Formulas and sources:
        :mod:`minigen.reference.optimizer`.
    learning_rate : step size
    schedule : of the learning rate over the ``epochs``: ``"constant"``; ``"cosine"`` or ``"linear"``, down to 0; or
        ``"step"``, a tenth of it in the last tenth of the training. Steps beyond the ``epochs`` keep the last one's
        rate. Formulas: :mod:`minigen.reference.schedule`.
    warmup : epochs, or a part of one, in which the learning rate rises to its value
    beta1 : decay of Adam's first moment; of Lion what the mean has in its step, 0.9 in its paper
    beta2 : decay of Adam's and RMSProp's second moment, and of Lion's mean, 0.99 in its paper
    eps : what Adam and RMSProp add to the root of the second moment
    momentum : of ``"sgd"`` and ``"rmsprop"``
    weight_decay : of ``"adamw"`` and ``"lion"``, decoupled from the gradient, of ``"sgd"`` and ``"rmsprop"`` part of it
    clip_norm : largest norm of a network's gradient, all its parameters together; a longer one is shortened (Pascanu et
        al. 2013). 0 sets none.
    batch_size : rows a step; the rows that an epoch leaves over form a last, smaller step
    epochs : passes over the data
    init : initial weights: ``"glorot_uniform"``, ``"glorot_normal"``, ``"he_uniform"``, ``"he_normal"``, or ``"auto"``,
        which is He for rectifiers and Glorot elsewhere. The default came to a better bound on MNIST in ten epochs
        than ``"auto"``.
    seed : of weights, order and noise. The same seed gives the same bits on the same device with the same instruction
        set (``minigen devices`` names it); elsewhere results differ by rounding.
    device : ``"auto"``, ``"numpy"``, ``"cpu"`` or ``"cuda"``
    precision : of matrix products: ``"auto"``, the device's fastest with an error like float32's, or, as far as the
        device has them, ``"ieee"``, ``"tf32x3"``, ``"bf16x6"``, ``"tf32"`` or ``"bf16"``. Sums and storage are float32;
        see :func:`minigen.device.get_backend`.
    """

    kind = "vae"
    frozen_params = (*Estimator.frozen_params, "likelihood", "variance")
    encoder_: Network
    decoder_: Network
    presets: ClassVar[dict[str, dict[str, Any]]] = {"article": {}, "quality": {"hidden": (512, 512), "epochs": 50}}

    def __init__(
        self,
        *,
        latent_dim: int = 20,
        hidden: tuple[int, ...] = (400,),
        activation: str = "relu",
        normalization: str | None = None,
        dropout: float = 0.0,
        likelihood: str = "bernoulli",
        variance: float = 1.0,
        standardize: str | bool = "auto",
        conditional: str | bool = "auto",
        beta: float = 1.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        schedule: str = "constant",
        warmup: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
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
        self.normalization = normalization
        self.dropout = dropout
        self.likelihood = likelihood
        self.variance = variance
        self.standardize = standardize
        self.conditional = conditional
        self.beta = beta
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup = warmup
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.epochs = epochs
        self.init = init
        self.seed = seed
        self.device = device
        self.precision = precision

    # --- using it -------------------------------------------------------------------------------

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

    def fit_transform(self, X: Any, y: Any = None, **fit_arguments: Any) -> Array:
        """``fit(X, **fit_arguments).transform(X)``. ``y`` is ignored unless ``conditional=True``.

        scikit-learn's pipelines call this with the labels of a later step, and :meth:`transform` without any: an
        encoder that needs labels would be of no use there, and one that sees them would give them away.
        """
        y = y if self.conditional is True else None
        return self.fit(X, y, **fit_arguments).transform(X, y)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of :meth:`transform`: ``vae0``, ``vae1``, ... ``input_features`` is ignored."""
        self._require_fit()
        return np.array([f"vae{i}" for i in range(self._frozen["latent_dim"])], dtype=object)

    def decode(self, z: Any, y: Any = None) -> Array:
        """Mean of ``p(x | z)`` for ``z[n, latent_dim]``: ``[n, ...]`` in the training data's units, type and shape.

        For zeros and ones these are probabilities, float32.
        Raises ``TypeError`` or ``ValueError`` for latents of another shape or that are no finite numbers.
        """
        self._require_fit()
        with self._ops.on_device_of(z) as give:
            z = self._latents(z)
            means = self._model_mean(z, self._condition_codes(y, len(z)))
            return give(self._as_frame(self._to_data(means)))

    def reconstruct(self, X: Any, y: Any = None) -> Array:
        """``decode(encode(X))``: the mean of ``p(x | z)`` at the mean of ``z``, in the units and the shape of ``X``,
        flat rows or not, so that the two can be subtracted."""
        self._require_fit()
        with self._ops.on_device_of(X) as give:
            rows, item_shape = self._rows_and_shape(X)
            codes = self._condition_codes(y, len(rows))
            means = self._as_frame(self._to_data(self._model_mean(self._posterior(rows, codes)[0], codes)))
            if item_shape != self.item_shape_:
                means = frames.without_names(means).reshape(-1, *item_shape)
            return frames.with_index_of(X, give(means))

    def sample(self, n: int = 1, seed: int | None = None, *, y: Any = None, balanced: bool = False) -> np.ndarray:
        """``n`` new samples, ``[n, ...]``, for ``z ~ N(0, I)``, fresh ones with ``seed=None``.

        Of zeros and ones and of standardised columns these are draws from ``p(x | z)``: zeros and ones in the data's
        type, and numbers that vary as the columns do. Of pictures they are the means of ``p(x | z)``, as is usual.

        Of a model with labels, ``y`` is the label of all samples or has one for each; without it they are drawn as
        frequent as in the data, or, ``balanced``, sample ``i`` is of class ``classes_[i % len(classes_)]``. Of a model
        with numbers beside its rows, ``y[C]`` or ``y[n, C]`` are those.
        """
        self._require_fit()
        seed, shape = fresh_seed(seed), (checks.integer("n", n, 0), self._frozen["latent_dim"])
        codes = self._codes_to_sample(n, seed, y, balanced)
        with self._ops.on_device_of(None):
            means = self._model_mean(self._normal(shape, seed, random.SAMPLE), codes)
            if self.columns_ is not None:
                spread = np.float32(np.sqrt(self._frozen["variance"]))
                means = means + spread * self._normal(means.shape, seed, random.SAMPLE, block=1)
            elif self.binary_ and self._bernoulli:
                means = (self._uniform(means.shape, seed, random.SAMPLE, block=1) < means).astype(np.float32)
            return self._as_frame(self._rounded_if_binary(self._to_data(means)))

    def elbo(self, X: Any, y: Any = None, *, samples: int = 1, seed: int = 0, progress: bool | None = None) -> Array:
        """Evidence lower bound of each row of ``X``, in nats, ``float64[N]``: ``E_q log p(x | z) - KL``.

        The expectation is over ``samples`` draws of ``z`` a row. Higher is likelier. Of a Gaussian likelihood it is a
        density in the data's units (of uint8, in units of 255).

        Of this method and :meth:`score_samples`: ``seed`` and a row's values decide its noise, so a row alone scores as
        it does among others, but for the rounding of float32, which may depend on the number of rows. A row so far from
        the training data that its likelihood overflows float32 scores ``-inf``, never NaN. ``progress`` shows a
        bar (``None``: on a terminal only, and when it takes longer than two seconds).
        """
        return self._scores(X, y, samples, seed, progress, weighted=False)

    def score_samples(
        self, X: Any, y: Any = None, *, samples: int = 64, seed: int = 0, progress: bool | None = None
    ) -> Array:
        """Estimated ``log p(x)`` of each row of ``X``, in nats, ``float64[N]``; low scores are anomalies.

        The importance-weighted bound of Burda et al. 2016 (equation 8), ``log mean_k p(x, z_k) / q(z_k | x)`` with
        ``samples`` draws a row, 64 by default: it lies above the ELBO and approaches ``log p(x)`` as ``samples`` grows.
        Each row is encoded once and decoded ``samples`` times. Units, noise and what overflows: see :meth:`elbo`.
        """
        return self._scores(X, y, samples, seed, progress, weighted=True)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`elbo` over the rows of ``X``: higher is better, for searches over settings. A model that
        is not conditional ignores ``y``."""
        self._require_fit()
        return float(self.elbo(X, y if self.conditions_ is not None else None).mean())

    def _scores(self, X: Any, y: Any, samples: int, seed: int, progress: bool | None, *, weighted: bool) -> Array:
        self._require_fit()
        checks.integer("samples", samples, 1)
        checks.seed("seed", seed)
        checks.choice("progress", progress, (None, True, False))
        with self._ops.on_device_of(X) as give:
            rows = self._check_rows(X)
            codes = self._condition_codes(y, len(rows))
            scores = np.empty_like(rows, np.float64, shape=(len(rows),))
            options = {"unit": "draw", "desc": f"{samples} draws a row", "delay": 0 if progress else BAR_AFTER}
            with progress_bar(len(rows) * samples, progress, **options) as bar:
                for a in range(0, len(rows), ROWS_AT_ONCE):
                    piece = rows[a : a + ROWS_AT_ONCE]
                    of_piece = None if codes is None else codes[a : a + ROWS_AT_ONCE]
                    scores[a : a + len(piece)] = self._score_piece(piece, of_piece, samples, seed, weighted, bar)
            return give(scores if self.columns_ is None else scores - self.columns_.log_scale)

    def _score_piece(
        self, rows: Array, codes: np.ndarray | None, samples: int, seed: int, weighted: bool, bar: Any
    ) -> Array:
        """ELBO, or importance-weighted bound, of at most ``ROWS_AT_ONCE`` rows, ``float64``."""
        score: Any = -np.inf if weighted else 0.0
        for reconstruction, kl, log_ratio in self._draws(rows, codes, samples, seed):
            value = log_ratio - reconstruction if weighted else -(reconstruction + kl)
            value = np.where(np.isnan(value), -np.inf, value)  # data and weights are finite: it is an overflow's
            score = np.logaddexp(score, value) if weighted else score + value
            bar.update(len(rows))
        return score - np.log(samples) if weighted else score / samples

    @property
    def _bernoulli(self) -> bool:
        return bool(self._frozen["likelihood"] == "bernoulli")

    def _posterior(self, rows: Array, codes: np.ndarray | None) -> tuple[Array, Array]:
        """``mu`` and ``logvar`` of ``q(z | x)``, each ``[N, latent_dim]``."""
        return latent.posterior(self._apply(self.encoder_, rows, codes, data=True))

    def _model_mean(self, z: Array, codes: np.ndarray | None) -> Array:
        """Of ``p(x | z)``, ``[n, D]`` in the units of the model."""
        return activations.forward(self._apply(self.decoder_, z, codes), "sigmoid" if self._bernoulli else "linear")

    def _draws(
        self, rows: Array, codes: np.ndarray | None, samples: int, seed: int
    ) -> Iterator[tuple[Array, Array, Array]]:
        """For each of ``samples`` draws of z: reconstruction term, KL, and ``log p(z) / q(z | x)``, a float64 a row.

        Computed by the operations of the training step. A draw is a table of noise vectors, and a hash of a row's
        values picks the one for that row: its score does not depend on which other rows there are, and since different
        rows have different noise, chance averages out over them.
        """
        ops, n, width = self._ops, len(rows), self._frozen["latent_dim"]
        noise_rows = ops.operand(_noise_rows(rows, ops), np.int32)
        x = ops.operand(self._to_model(rows))
        context = self._context(codes)
        heads = self.encoder_.forward(x, self.encoder_.workspace(n, context=context))
        mu, logvar = latent.posterior(ops.result(heads, rows).astype(np.float64))
        table, eps, z = ops.empty((NOISE_TABLE, width)), ops.empty((n, width)), ops.empty((n, width))
        nats, kl, loss = ops.empty((n,)), ops.empty((n,)), ops.empty((1,))
        work, gradient = self.decoder_.workspace(n, context=context), ops.empty(tuple(x.shape))
        for k in range(samples):
            ops.random_normal(table, seed, random.SAMPLE, ops.upload(np.array([k], np.uint64)))
            ops.batch_gather(table, noise_rows, eps)
            ops.latent_forward(heads, eps, z, kl, loss)
            self._reconstruction(self.decoder_.forward(z, work), x, gradient, nats, loss)
            noise, point, terms, divergence = (
                ops.result(buffer, rows).astype(np.float64) for buffer in (eps, z, nats, kl)
            )
            # log N(z; 0, I) - log N(z; mu, exp(logvar)), where (z - mu)^2 / exp(logvar) is eps^2
            yield terms, divergence, 0.5 * (noise**2 + logvar - point**2).sum(axis=1)

    def _reconstruction(self, output: Array, x: Array, gradient: Array, nats: Array, loss: Array) -> None:
        likelihood = "bernoulli" if self._bernoulli else "gaussian"
        self._ops.vae_loss(output, x, gradient, nats, loss, likelihood, self._frozen["variance"])

    # --- what Estimator asks for ----------------------------------------------------------------

    def _check_params(self) -> None:
        super()._check_params()
        checks.widths("hidden", self.hidden)
        checks.choice("likelihood", self.likelihood, LIKELIHOODS)
        checks.number("variance", self.variance, 0, exclude_low=True)
        checks.number("beta", self.beta, 0)

    _unbounded_hint = "likelihood='gaussian' takes any"

    def _choose_range(self, rows: Array, binary: bool) -> tuple[float, float]:
        return 1.0 if binary or rows.dtype != np.uint8 else 1 / 255, 0.0

    def _in_range(self, rows: Array, *from_data: Any) -> Array:
        if rows.dtype == np.uint8 or self._unbounded():
            return rows
        if not scaling.lies_in(rows, 0.0, 1.0):
            raise ArgumentError(
                "X",
                f"must lie in [0, 1] for likelihood='bernoulli', but its values go {scaling.digits(rows)}; "
                "rescale it, np.clip(X, 0, 1), or choose likelihood='gaussian'",
            )
        return scaling.clipped(rows, 0.0, 1.0)

    def _unbounded(self, *from_data: Any) -> bool:
        return bool(self.likelihood == "gaussian")

    def _layers(self, columns: int, *from_data: Any) -> dict[str, list[Layer]]:
        hidden, options = checks.widths("hidden", self.hidden), Hidden(self.normalization, self.dropout)
        encoder = dense_layers((columns, *hidden, 2 * self.latent_dim), self.activation, "linear", options)
        sizes = (self.latent_dim, *hidden[::-1], columns)
        return {"encoder": encoder, "decoder": dense_layers(sizes, self.activation, "linear", options, len(encoder))}

    def _step(self, rows: Array, conditions: np.ndarray | None = None) -> VaeStep:
        return VaeStep(
            self._ops,
            self.encoder_,
            self.decoder_,
            rows,
            batch_size=self.batch_size,
            settings=self._optimizer_settings(),
            likelihood=self.likelihood,
            variance=self.variance,
            beta=self.beta,
            seed=self.seed,
            scale=self.scale_,
            shift=self.shift_,
            log_scale=0.0 if self.columns_ is None else self.columns_.log_scale,
            conditions=conditions,
        )

    def _history_names(self) -> tuple[str, ...]:
        return VaeStep.loss_names


def _noise_rows(rows: Array, ops: Backend) -> Array:
    """``int32[N]`` in [0, NOISE_TABLE): a hash of the values of each of ``rows[N, D]``, uint8 or float32.

    A multilinear hash (Carter and Wegman 1979): the sum of the columns' 32 bits, each times an odd number of its
    own, modulo 2^32; the upper bits depend on every bit of the row.
    """
    words = rows.astype(np.uint32) if rows.dtype == np.uint8 else (rows + np.float32(0)).view(np.uint32)  # -0 is 0
    factors = random.blocks(-(-rows.shape[1] // 4), 0, random.SAMPLE, 0).reshape(-1)[: rows.shape[1]] | np.uint32(1)
    total = (words * ops.to_device_of(rows, factors)).sum(axis=1, dtype=np.uint32)
    return (total >> np.uint32(32 - NOISE_BITS)).astype(np.int32)


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
