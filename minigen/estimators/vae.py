"""The variational autoencoder as an estimator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.datasets import frames
from minigen.errors import ArgumentError
from minigen.estimators import decoding, scaling, vae_checks, variances
from minigen.estimators.base import Estimator
from minigen.estimators.latent_prior import LatentPrior
from minigen.estimators.trained import fresh_seed
from minigen.models.conditional import Condition, with_condition_beside_input
from minigen.models.hidden import Hidden, dense_layers
from minigen.models.iwae import IwaeStep
from minigen.models.layers import Layer
from minigen.models.likelihood import LEARNED, LIKELIHOODS, WITH_VARIANCE, Likelihood, LogVariance
from minigen.models.network import Network
from minigen.models.vae import VaeStep
from minigen.reference import mixed_loss, random
from minigen.training.loop import Callback


class VAE(LatentPrior, Estimator):
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
    likelihood : ``"bernoulli"`` or ``"continuous_bernoulli"`` for data in [0, 1], but for a few units in the last
        place, which are clipped (uint8 is divided by 255, zeros and ones in bool or integers are taken as such),
        ``"gaussian"`` for any data, ``"categorical"`` for one-hot columns in ``blocks``, ``"mixed"`` for tables: a
        block of one column is Gaussian, a wider one a label; ``"multinomial"`` for rows of counts, such as what a user
        has chosen (Liang et al. 2018). For values between 0 and 1 the Bernoulli's is no density, the continuous one's
        is (Loaiza-Ganem and Cunningham 2019)
    variance : of Gaussian columns: a number, ``"learned"`` for one of each column, or ``"learned_scalar"`` for
        one of all (Rybkin et al. 2021). Of standardised columns it is a share of each column's variance. A fixed
        one that is larger than what the columns vary by leaves the latent unused. Learned ones start at the data's,
        never fall below 8.3e-7, and move at ten times the learning rate without weight decay; ``variance_`` gives them
    blocks : widths of the blocks of columns of the categorical or mixed likelihood, which add up to all columns
    standardize : take the mean out of each column and divide it by its standard deviation, in the model; samples,
        reconstructions and densities are in the data's units. ``"auto"``: where the data are floating and the
        likelihood is Gaussian or mixed. Labels stay as they are
    conditional : whether ``y`` makes the model conditional: ``"auto"`` where ``fit`` is given one, but not
        ``fit_transform``, since ``transform`` has no labels in a pipeline; True demands it; False ignores it, as labels
        in scikit-learn's searches and pipelines are meant for others
    beta : weight of the KL; 1 is the evidence lower bound (other values: Higgins et al. 2017)
    kl_warmup : epochs over which the weight of the KL grows from 0 to beta, a little with each step (Bowman et al.
        2016)
    free_bits : nats that each latent's mean KL in a batch may have at no cost (Kingma et al. 2016, equation 15)
    importance_samples : draws of the latent for each row of a batch: with more than 1 the training maximises the
        importance weighted bound instead of the ELBO (Burda et al. 2016), and takes nearly so many times as long
    latent_prior : ``"normal"``, or ``"mixture"``: at its end the training fits a mixture of Gaussians to draws of its
        rows' latents, of each class one where there are labels, which samples are then drawn from and
        :meth:`latent_score` is the density of. Needs scikit-learn. ``latent_prior_.log_densities`` are the mean log
        density of the latents it was fitted to and of held-out ones; where these are much worse ``fit`` warns
    components : Gaussians in the mixture of ``latent_prior``, at most one for 20 rows, and for six rows per latent
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
        device has them, ``"ieee"``, ``"tf32x3"``, ``"bf16x6"``, ``"bf16x3"``, ``"tf32"`` or ``"bf16"``. Sums and
        storage are float32; see :func:`minigen.device.get_backend`.
    """

    kind = "vae"
    frozen_params = (*Estimator.frozen_params, "likelihood", "variance", "blocks")
    encoder_: Network
    decoder_: Network
    noise_: Network  # of learned variances
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
        variance: float | str = 1.0,
        blocks: tuple[int, ...] | None = None,
        standardize: str | bool = "auto",
        conditional: str | bool = "auto",
        beta: float = 1.0,
        kl_warmup: float = 0.0,
        free_bits: float = 0.0,
        importance_samples: int = 1,
        latent_prior: str = "normal",
        components: int = 50,
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
        self.blocks = blocks
        self.standardize = standardize
        self.conditional = conditional
        self.beta = beta
        self.kl_warmup = kl_warmup
        self.free_bits = free_bits
        self.importance_samples = importance_samples
        self.latent_prior = latent_prior
        self.components = components
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

    def fit_transform(self, X: Any, y: Any = None, **fit_arguments: Any) -> Array:
        """``fit(X, **fit_arguments).transform(X)``. ``y`` is ignored unless ``conditional=True``.

        scikit-learn's pipelines call this with the labels of a later step, and :meth:`transform` without any: an
        encoder that needs labels would be of no use there, and one that sees them would give them away.
        """
        y = y if self.conditional is True else None
        return self.fit(X, y, **fit_arguments).transform(X, y)

    def decode(self, z: Any, y: Any = None) -> Array:
        """Mean of ``p(x | z)`` for ``z[n, latent_dim]``: ``[n, ...]`` in the training data's units, type and shape.

        For zeros and ones these are probabilities, float32; of a multinomial likelihood those of the next count.
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
            means = self._model_mean(self._posterior(rows, codes)[0], codes)
            if self._frozen["likelihood"] == "multinomial":
                means = means * rows.sum(axis=1, keepdims=True, dtype=np.float32)
            means = self._as_frame(self._to_data(means))
            if item_shape != self.item_shape_:
                means = frames.without_names(means).reshape(-1, *item_shape)
            return frames.with_index_of(X, give(means))

    def sample(
        self,
        n: int = 1,
        seed: int | None = None,
        *,
        y: Any = None,
        balanced: bool = False,
        noise: bool | None = None,
        prior: str | None = None,
    ) -> np.ndarray:
        """``n`` new samples, ``[n, ...]``, fresh ones with ``seed=None``.

        Their latents are from the mixture of ``latent_prior="mixture"`` where there is one, else, and with
        ``prior="normal"``, from N(0, I).

        With ``noise`` these are draws from ``p(x | z)``, the likelihood's noise included; without, its means, which for
        zeros and ones are probabilities, float32. ``None`` draws where that is usual: of zeros and ones, of labels,
        and of standardised columns, which then vary as the data's do; pictures are means. Of a multinomial likelihood
        samples are probabilities that add up to 1: how many counts to draw by them is not part of the model.

        Of a model with labels, ``y`` is the label of all samples or has one for each; without it they are drawn as
        frequent as in the data, or, ``balanced``, sample ``i`` is of class ``classes_[i % len(classes_)]``. Of a model
        with numbers beside its rows, ``y[C]`` or ``y[n, C]`` are those.
        """
        self._require_fit()
        checks.choice("noise", noise, (None, True, False))
        if noise and self._frozen["likelihood"] == "multinomial":
            raise ArgumentError(
                "noise", "must be None or False for likelihood='multinomial': numpy's rng.multinomial draws counts"
            )
        seed, n = fresh_seed(seed), checks.integer("n", n, 0)
        likelihood, ends = self._frozen["likelihood"], self._block_ends()
        usual = self.columns_ is not None or likelihood in ("categorical", "mixed")
        usual = usual or (self.binary_ and likelihood == "bernoulli")
        codes = self._codes_to_sample(n, seed, y, balanced)
        with self._ops.on_device_of(None):
            output = self._apply(self.decoder_, self._draw_latents(n, seed, prior, codes), codes)
            if not (usual if noise is None else noise):
                items = self._to_data(decoding.mean(likelihood, output, ends))
                as_they_are = noise is False or likelihood == "multinomial"
                return self._as_frame(items if as_they_are else self._rounded_if_binary(items))
            drawn = decoding.draw(
                likelihood,
                output,
                ends,
                self.variance_ if likelihood in WITH_VARIANCE else None,
                lambda: self._normal(output.shape, seed, random.SAMPLE, block=1),
                lambda: self._uniform(output.shape, seed, random.SAMPLE, 2 if likelihood == "mixed" else 1),
            )
            return self._as_frame(self._rounded_if_binary(self._to_data(drawn)))

    @property
    def variance_(self) -> Any:
        """Of Gaussian columns, fixed or learned: ``float64[D]`` with ``variance="learned"``, else a number.

        NaN in the columns of labels of a mixed likelihood.
        In the units of ``variance``: of standardised columns a share of each column's variance, of uint8 in units of
        255. Raises ``AttributeError`` for another likelihood.
        """
        self._require_fit()
        if self._frozen["likelihood"] not in WITH_VARIANCE:
            raise AttributeError(f"a {self._frozen['likelihood']} likelihood has no variance_")
        learned = self.noise_.state()["noise.0.logvar"] if self._frozen["variance"] in LEARNED else None
        return variances.values(self._frozen["variance"], learned, self._block_ends())

    def _likelihood(self) -> Likelihood:
        """That of the trained model, on its device."""
        variance = self.noise_ if self._frozen["variance"] in LEARNED else self._frozen["variance"]
        return Likelihood(self._ops, self._frozen["likelihood"], variance, self._blocks())

    def _model_mean(self, z: Array, codes: np.ndarray | None) -> Array:
        """Of ``p(x | z)``, ``[n, D]`` in the units of the model."""
        return decoding.mean(self._frozen["likelihood"], self._apply(self.decoder_, z, codes), self._block_ends())

    def _block_ends(self) -> np.ndarray | None:
        """Of a categorical, mixed or multinomial likelihood: the column before which each block ends."""
        blocks = self._blocks()
        return None if blocks is None else np.cumsum(blocks)

    def _blocks(self) -> tuple[int, ...] | None:
        """The widths of the blocks of columns that have a softmax each."""
        if self._frozen["likelihood"] == "multinomial":
            return (self.n_features_in_,)
        return None if self._frozen["blocks"] is None else tuple(self._frozen["blocks"])

    # --- what Estimator asks for ----------------------------------------------------------------

    def _check_params(self) -> None:
        super()._check_params()
        checks.widths("hidden", self.hidden)
        checks.choice("likelihood", self.likelihood, LIKELIHOODS)
        vae_checks.variance(self)
        vae_checks.blocks(self)
        checks.number("beta", self.beta, 0)
        vae_checks.bound(self)

    _unbounded_hint = "likelihood='gaussian' takes any"

    def _choose_range(self, rows: Array, binary: bool) -> tuple[float, float]:
        return 1.0 if binary or rows.dtype != np.uint8 else 1 / 255, 0.0

    def _measured(self, rows: Array, ops: Backend) -> scaling.Columns:
        if self.likelihood != "mixed":
            return super()._measured(rows, ops)
        labels = mixed_loss.labels(np.cumsum(checks.widths("blocks", self.blocks)))
        return scaling.without(super()._measured(self._in_range(rows), ops), labels)

    def _in_range(self, rows: Array, *from_data: Any) -> Array:
        if self.likelihood == "mixed":
            vae_checks.one_hot("X", rows, checks.widths("blocks", self.blocks), mixed=True)
        if self._unbounded():
            return rows
        if self.likelihood == "multinomial":
            vae_checks.counts("X", rows)
            return rows
        if rows.dtype != np.uint8:
            if not scaling.lies_in(rows, 0.0, 1.0):
                raise ArgumentError(
                    "X",
                    f"must lie in [0, 1] for likelihood={self.likelihood!r}, but its values go {scaling.digits(rows)}; "
                    "rescale it, np.clip(X, 0, 1), or choose likelihood='gaussian'",
                )
            rows = scaling.clipped(rows, 0.0, 1.0)
        if self.likelihood == "categorical":
            vae_checks.one_hot("X", rows, checks.widths("blocks", self.blocks))
        return rows

    def _rows_and_shape(self, X: Any, name: str = "X") -> tuple[Array, tuple[int, ...]]:
        rows, item_shape = super()._rows_and_shape(X, name)
        if (blocks := self._frozen["blocks"]) is not None:
            vae_checks.one_hot(name, rows, blocks, self._frozen["likelihood"] == "mixed")
        elif self._frozen["likelihood"] == "multinomial":
            vae_checks.counts(name, rows)
        return rows, item_shape

    def _unbounded(self, *from_data: Any) -> bool:
        return bool(self.likelihood in WITH_VARIANCE)

    def _layers(self, columns: int, *from_data: Any) -> dict[str, list[Layer]]:
        hidden, options = checks.widths("hidden", self.hidden), Hidden(self.normalization, self.dropout)
        encoder = dense_layers((columns, *hidden, 2 * self.latent_dim), self.activation, "linear", options)
        sizes = (self.latent_dim, *hidden[::-1], columns)
        decoder = dense_layers(sizes, self.activation, "linear", options, len(encoder))
        layers: dict[str, list[Layer]] = {"encoder": encoder, "decoder": decoder}
        if self.variance in LEARNED:
            layers["noise"] = [LogVariance(columns, columns if self.variance == "learned" else 1)]
        return layers

    def _with_condition(self, network: str, layers: list[Layer], condition: Condition) -> list[Layer]:
        """The label's weights start ``sqrt(latent_dim)`` times as large as a dense layer's. A label adds one row of
        ``E``, the latent a sum of ``latent_dim`` rows: with equal weights the label is drowned out at first, and a
        training on few rows ends before the networks have learnt to use it."""
        scale = math.sqrt(self.latent_dim) if condition.labelled else 1.0
        return layers if network == "noise" else with_condition_beside_input(layers, condition, scale)

    def _initialize(self, rows: Array) -> None:
        """The learned variances start at those of the columns, which are right for a decoder that knows only means."""
        super()._initialize(rows)
        if self._frozen["variance"] in LEARNED:
            how = self._frozen["variance"], rows, self.scale_, self._block_ends(), self._ops
            self.noise_.load_state({"noise.0.logvar": variances.first_logvar(*how)})

    def _look_back(self, rows: Array, codes: np.ndarray | None) -> None:
        vae_checks.warn_of_unused_latent(self)

    def _step(self, rows: Array, conditions: np.ndarray | None = None) -> VaeStep:
        settings: dict[str, Any] = {"beta": self.beta, "kl_warmup": self.kl_warmup, "free_bits": self.free_bits}
        kind: type[VaeStep] = VaeStep
        if self.importance_samples > 1:
            kind, settings = IwaeStep, {"draws": self.importance_samples}
        return kind(
            self._ops,
            self.encoder_,
            self.decoder_,
            rows,
            batch_size=self.batch_size,
            settings=self._optimizer_settings(),
            likelihood=self.likelihood,
            variance=self.noise_ if isinstance(self.variance, str) else self.variance,
            blocks=self._blocks(),
            seed=self.seed,
            scale=self.scale_,
            shift=self.shift_,
            log_scale=0.0 if self.columns_ is None else self.columns_.log_scale,
            conditions=conditions,
            **settings,
        )

    def _history_names(self) -> tuple[str, ...]:
        return VaeStep.loss_names


def train_vae(
    data: Any,
    *,
    preset: str = "article",
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    **settings: Any,
) -> VAE:
    """Train a :class:`VAE` on ``data`` and return it; ``settings`` are its parameters, over those of ``preset``, and
    those of :meth:`VAE.fit` that measure on the way: ``validation``, ``evaluate_every``, ``metrics``, ``restore_best``,
    ``patience``.

    >>> model = minigen.train_vae(minigen.datasets.mnist_sample(), preset="quality")
    >>> bound = model.elbo(minigen.datasets.mnist_sample())
    """
    return VAE._trained(data, preset, settings, callbacks=callbacks, progress=progress)
