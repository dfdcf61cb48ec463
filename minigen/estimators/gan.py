"""The GAN as an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.errors import ArgumentError
from minigen.estimators import gan_checks, presets, scaling, vae_checks
from minigen.estimators.base import Estimator
from minigen.estimators.data_range import OfRange
from minigen.estimators.game import check_penalty, check_rows, game
from minigen.estimators.generating import Generates
from minigen.models.conditional import Condition, side_by_side, with_projection
from minigen.models.gan import GanStep, loss_names
from minigen.models.gumbel_softmax import with_labels
from minigen.models.hidden import Hidden, dense_layers
from minigen.models.layers import Layer
from minigen.models.network import Network
from minigen.models.optimizer import Average
from minigen.reference import activations, mixed_loss
from minigen.training.loop import Callback


class GAN(Generates, OfRange):
    """Generative adversarial network of dense layers (Goodfellow et al. 2014).

    >>> model = minigen.GAN.preset("quality").fit(minigen.datasets.mnist_sample())
    >>> model.show(64)

    The preset ``"quality"`` draws digits that can be read: wider networks, ``r1``, and a learning rate that falls to 0
    over ``epochs``, with an average of the weights. The defaults are the small model of an article, quick to train and
    coarse.

    With labels, ``fit(digits, digits.labels)``, it draws what it is asked for: ``model.sample(10, y=7)``.

    The losses of the default game, in nats: where the discriminator cannot tell real from generated, its own is
    2 log 2 = 1.39 and the generator's log 2 = 0.69 (``loss="minimax"``: -0.69). They tell which player is ahead, not
    how good the samples are, and need not fall. A discriminator near 0 beside a generator that keeps rising has won:
    try a smaller discriminator or ``learning_rate``.

    There is no ``score``: a GAN has no likelihood, and its losses and :meth:`discriminate` only compare two networks
    with each other, so a better number is no better model. For a search over settings give scikit-learn a ``scoring``
    that looks at samples, such as a distance between ``sample(n)`` and rows held back.

    Parameters
    ----------
    latent_dim : width of the noise ``z ~ N(0, I)``
    hidden : sizes of the generator's hidden layers
    hidden_discriminator : sizes of the discriminator's hidden layers; by default those of ``hidden`` in reverse
    activation : of the hidden layers, one of ``minigen.ACTIVATIONS``
    normalization : of the generator's hidden layers, before the activation: ``"batch"`` (Ioffe and Szegedy 2015),
        ``"layer"`` (Ba et al. 2016) or ``None``. Batch normalization draws samples by running statistics, which are
        part of the model; in training the rows of each player are a batch of their own.
    normalization_discriminator : the same of the discriminator's; real and generated rows are batches of their own
    dropout : share of the discriminator's hidden units that are dropped in training (Srivastava et al. 2014), as
        Goodfellow et al. 2014 did
    maxout : pieces of the discriminator's hidden units, the largest of which they give, in place of the activation
        (Goodfellow et al. 2013), or ``None``
    spectral_norm : divide each weight of the discriminator by its largest singular value (Miyato et al. 2018), by a
        step of the power iteration in each forward pass of training
    output : activation of the generator's last layer: ``"tanh"`` for data in [-1, 1], ``"sigmoid"`` for [0, 1],
        ``"linear"`` for any. uint8 data are scaled to its range; floating data must lie in it, but for a few units in
        the last place, which are clipped. ``"auto"`` takes ``tanh`` for uint8, ``sigmoid`` for zeros and ones in bool
        or integers, else the first of sigmoid, tanh and linear whose range holds the data, and linear with
        ``standardize=True``.
    blocks : widths of the blocks of columns of a table, which add up to all columns: one column is a number, with the
        ``output`` activation; more are a label, one-hot, which the generator draws by a Gumbel softmax (Jang et al.
        2017; Maddison et al. 2017). :mod:`minigen.reference.gumbel_softmax` derives it.
    temperature : of that softmax in training: near 0 it is nearly one-hot, and its gradient rarely tells anything
    standardize : take the mean out of each column and divide it by its standard deviation, in the model; samples come
        back in the data's units. ``"auto"``: where the data are floating and the output is linear. Labels in ``blocks``
        stay as they are
    conditional : whether ``y`` makes the model conditional: ``"auto"`` where ``fit`` is given one; True demands it;
        False ignores it, as labels in scikit-learn's searches and pipelines are meant for others
    conditioning : how a conditional model's discriminator takes the condition: ``"input"``, beside its input (Mirza and
        Osindero 2014), or ``"projection"``, in its last layer (Miyato and Koyama 2018)
    loss : of both players, one of ``minigen.GAN_LOSSES``. Terms and sources: :mod:`minigen.reference.gan_loss`.
    r1 : weight of the penalty ``r1 / 2 mean |ds/dx|^2`` on the gradient of the discriminator's logit at real rows
        (Mescheder, Geiger and Nowozin 2018); 0 for none
    gradient_penalty : weight of the penalty ``mean (|ds/dx| - 1)^2`` at rows between real and generated ones (Gulrajani
        et al. 2017, who take 10, with the Wasserstein loss); 0 for none
    n_critic : updates of the discriminator a step, each on rows of its own, ``n_critic * batch_size`` of them in all;
        the history has the last one's loss (Arjovsky, Chintala and Bottou 2017, who take 5)
    weight_clip : bound on the size of each of the discriminator's parameters after its update (the same, 0.01); 0: none
    label_smoothing : share of a generated row's term in a real row's (one-sided, Salimans et al. 2016): 0.1 makes the
        label of real rows 0.9; 0 for none
    instance_noise : standard deviation of Gaussian noise on all that the discriminator sees in training, in the
        generator's range (Arjovsky and Bottou 2017; Sonderby et al. 2017); 0 for none
    instance_noise_decay : whether that falls linearly to 0 at the end of the training of ``epochs``
    pack : rows that the discriminator judges together, against samples of too little variety (PacGAN, Lin et al. 2018);
        ``batch_size`` must be a multiple of it. Conditions are judged side by side like their rows
    ema : decay of an average of the generator's weights over the steps, such as 0.999; 0 keeps none. Samples are drawn
        with the average then, which does not jump about as the weights do (Yazıcı et al. 2019). The first steps take a
        shorter average, Shamir and Zhang 2013: :mod:`minigen.reference.averaging`.
    latent_std : standard deviation of the noise that :meth:`sample` takes; the training always has 1. A larger one
        gives samples that differ more from each other, and more of them look wrong; a smaller one gives the opposite
        (Brock, Donahue and Simonyan 2019, section 3.1). ``reject`` leaves out those that look wrong, so the two go
        together. It may be changed after the training; the limits of ``reject`` then stay as they were measured
    reject : share of the generated samples, in [0, 0.5], that :meth:`sample` leaves out, those that the discriminator
        finds least like data (after Azadi et al. 2019: :mod:`minigen.estimators.rejecting`). Fewer samples look wrong
        then; of too large a share variety suffers, and kinds of rows that are hard to draw become rare. Of a model with
        labels it is the share of each class, so these keep their frequencies. Which to leave out is measured at the end
        of a training: a callback's samples have all
    optimizer : ``"adam"``, ``"adamw"``, ``"sgd"``, ``"rmsprop"`` or ``"lion"``, for both networks. Formulas and
        sources: :mod:`minigen.reference.optimizer`.
    learning_rate : step size; a pair such as ``(1e-4, 4e-4)`` is the generator's and the discriminator's (Heusel et al.
        2017, two time-scales)
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
    batch_size : real rows a step; as many generated ones join them. The rows that an epoch leaves over are dropped.
    epochs : passes over the data
    init : initial weights: ``"glorot_uniform"``, ``"glorot_normal"``, ``"he_uniform"``, ``"he_normal"``, or ``"auto"``,
        which is He for rectifiers and Glorot elsewhere
    seed : of weights, order and noise. The same seed gives the same bits on the same device with the same instruction
        set (``minigen devices`` names it); elsewhere results differ by rounding.
    device : ``"auto"``, ``"numpy"``, ``"cpu"`` or ``"cuda"``
    precision : of matrix products: ``"auto"``, the device's fastest with an error like float32's, or, as far as the
        device has them, ``"ieee"``, ``"tf32x3"``, ``"bf16x6"``, ``"bf16x3"``, ``"tf32"`` or ``"bf16"``. Sums and
        storage are float32; see :func:`minigen.device.get_backend`.
    """

    kind = "gan"
    frozen_params = (
        *Estimator.frozen_params,
        "hidden_discriminator",
        "normalization_discriminator",
        "maxout",
        "spectral_norm",
        "output",
        "blocks",
        "temperature",
        "r1",
        "gradient_penalty",
        "conditioning",
        "pack",
        "ema",
    )
    fitted_from_data = (*Estimator.fitted_from_data, "output_")
    output_: str
    discriminator_: Network
    presets: ClassVar[dict[str, dict[str, Any]]] = presets.GAN

    def __init__(
        self,
        *,
        latent_dim: int = 100,
        hidden: tuple[int, ...] = (128,),
        hidden_discriminator: tuple[int, ...] | None = None,
        activation: str = "leaky_relu",
        normalization: str | None = None,
        normalization_discriminator: str | None = None,
        dropout: float = 0.0,
        maxout: int | None = None,
        spectral_norm: bool = False,
        output: str = "auto",
        blocks: tuple[int, ...] | None = None,
        temperature: float = 0.2,
        standardize: str | bool = "auto",
        conditional: str | bool = "auto",
        conditioning: str = "input",
        loss: str = "non_saturating",
        r1: float = 0.0,
        gradient_penalty: float = 0.0,
        n_critic: int = 1,
        weight_clip: float = 0.0,
        label_smoothing: float = 0.0,
        instance_noise: float = 0.0,
        instance_noise_decay: bool = True,
        pack: int = 1,
        ema: float = 0.0,
        latent_std: float = 1.0,
        reject: float = 0.0,
        optimizer: str = "adam",
        learning_rate: float | tuple[float, float] = 2e-4,
        schedule: str = "constant",
        warmup: float = 0.0,
        beta1: float = 0.5,
        beta2: float = 0.999,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
        batch_size: int = 128,
        epochs: int = 300,
        init: str = "auto",
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.hidden_discriminator = hidden_discriminator
        self.activation = activation
        self.normalization = normalization
        self.normalization_discriminator = normalization_discriminator
        self.dropout = dropout
        self.maxout = maxout
        self.spectral_norm = spectral_norm
        self.output = output
        self.blocks = blocks
        self.temperature = temperature
        self.standardize = standardize
        self.conditional = conditional
        self.conditioning = conditioning
        self.loss = loss
        self.r1 = r1
        self.gradient_penalty = gradient_penalty
        self.n_critic = n_critic
        self.weight_clip = weight_clip
        self.label_smoothing = label_smoothing
        self.instance_noise = instance_noise
        self.instance_noise_decay = instance_noise_decay
        self.pack = pack
        self.ema = ema
        self.latent_std = latent_std
        self.reject = reject
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

    def discriminate(self, X: Any, y: Any = None) -> Array:
        """``D(x) = sigmoid(logit)``, the probability of being real, for each row of ``X``: ``float32[N]``.

        With a ``loss`` other than those of Goodfellow et al. it is no probability, but still grows with the logit.
        ``X[N, ...]`` has items of the shape and dtype of the training data; flat rows ``[N, height * width]`` stand for
        pictures ``[N, height, width]`` and the other way round. With ``pack = m`` each ``m`` neighbouring rows have one
        probability, of being real all of them: ``float32[N / m]``. A conditional model needs ``y``, and judges whether
        the rows are real ones of these conditions. Raises ``TypeError`` or ``ValueError`` for others, and for a number
        of rows that is no multiple of ``m``.
        """
        self._require_fit()
        m = self._frozen["pack"]
        with self._ops.on_device_of(X) as give:
            rows = self._check_rows(X)
            if len(rows) % m:
                raise ArgumentError(
                    "X", f"must have a multiple of {m} rows, which pack={m} judges together, not {len(rows)}"
                )
            codes = self._condition_codes(y, len(rows))
            if m > 1:
                rows = self._to_model(rows).reshape(len(rows) // m, -1)
                if codes is not None:
                    vectors = codes if self.classes_ is None else np.eye(len(self.classes_), dtype=np.float32)[codes]
                    codes = vectors.reshape(len(rows), -1)
            logits = self._apply(self.discriminator_, rows, codes, data=m == 1)
            return give(activations.forward(logits[:, 0], "sigmoid"))

    # --- what Estimator asks for ----------------------------------------------------------------

    def _check_params(self) -> None:
        super()._check_params()
        gan_checks.settings(self)
        self._check_normalization("normalization_discriminator", self.batch_size // self.pack)

    def _check_learning_rate(self) -> None:
        if not isinstance(self.learning_rate, (tuple, list)):
            super()._check_learning_rate()
            return
        gan_checks.learning_rate(self)

    def _measured(self, rows: Array, ops: Backend) -> scaling.Columns:
        columns = super()._measured(rows, ops)
        if self.blocks is None:
            return columns
        gan_checks.table(self, rows, 1.0)
        return scaling.without(columns, mixed_loss.labels(np.cumsum(checks.widths("blocks", self.blocks))))

    def _in_range(self, rows: Array, *from_data: Any) -> Array:
        if self.blocks is not None:
            gan_checks.table(self, rows, from_data[0])
        return super()._in_range(rows, *from_data)

    def _layers(self, columns: int, *from_data: Any) -> dict[str, list[Layer]]:
        hidden = checks.widths("hidden", self.hidden)
        mirrored = hidden[::-1] if self.hidden_discriminator is None else self.hidden_discriminator
        hidden_discriminator = checks.widths("hidden_discriminator", mirrored)
        output = from_data[-1]
        of_generator = Hidden(self.normalization)
        of_discriminator = Hidden(self.normalization_discriminator, self.dropout, self.maxout, self.spectral_norm)
        generator = dense_layers((self.latent_dim, *hidden, columns), self.activation, output, of_generator)
        if self.blocks is not None:
            blocks = checks.widths("blocks", self.blocks)
            vae_checks.add_up(blocks, columns)
            generator = with_labels(generator, blocks, self.temperature)
        sizes = (self.pack * columns, *hidden_discriminator, 1)
        discriminator = dense_layers(sizes, self.activation, "linear", of_discriminator, len(generator))
        return {"generator": generator, "discriminator": discriminator}

    def _with_condition(self, network: str, layers: list[Layer], condition: Condition) -> list[Layer]:
        if network == "discriminator":
            condition = side_by_side(condition, self.pack)
            if self.conditioning == "projection":
                return with_projection(layers, condition)
        return super()._with_condition(network, layers, condition)

    def _all_layers(self, columns: int, *from_data: Any, condition: Condition | None) -> dict[str, list[Layer]]:
        if condition is None and self.conditioning == "projection":
            raise ArgumentError("conditioning", "must be 'input' without labels: there is nothing to project on")
        layers = super()._all_layers(columns, *from_data, condition=condition)
        check_penalty(self, layers["discriminator"])
        return layers

    def _build(self, *data: Any, **known: Any) -> None:
        super()._build(*data, **known)
        self.averaged_generator_ = self.generator_.twin() if self._averaged_networks else None

    def _initialize(self, rows: Array) -> None:
        super()._initialize(rows)
        if self.averaged_generator_ is not None:
            self.averaged_generator_.load_state(self.generator_.state())

    @property
    def _averaged_networks(self) -> tuple[str, ...]:
        return ("generator",) if self.ema else ()

    def _load_averages(self, state: dict[str, np.ndarray]) -> None:
        if self.averaged_generator_ is not None:
            self._ops.upload(state["generator.average"], out=self.averaged_generator_.params)
            if len(self.averaged_generator_.running):
                self._ops.upload(state["generator.average_running"], out=self.averaged_generator_.running)

    def _step(self, rows: Array, conditions: np.ndarray | None = None) -> GanStep:
        averaged = self.averaged_generator_
        return GanStep(
            self._ops,
            self.generator_,
            self.discriminator_,
            rows,
            batch_size=self.batch_size,
            settings=self._optimizer_settings(),
            seed=self.seed,
            scale=self.scale_,
            shift=self.shift_,
            **game(self, len(rows)),
            pack=self.pack,
            average=None if averaged is None else Average(averaged, self.ema),
            conditions=conditions,
        )

    def _check_batch_size(self, rows: Array) -> None:
        super()._check_batch_size(rows)
        check_rows(self, len(rows))

    def _history_names(self) -> tuple[str, ...]:
        return loss_names(self.r1 or self.gradient_penalty)


def train_gan(
    data: Any,
    *,
    preset: str = "article",
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    **settings: Any,
) -> GAN:
    """Train a :class:`GAN` on ``data`` and return it; ``settings`` are its parameters, over those of ``preset``, and
    those of :meth:`GAN.fit` that measure on the way: ``validation``, ``evaluate_every``, ``metrics``, ``restore_best``,
    ``patience``.

    >>> model = minigen.train_gan(minigen.datasets.mnist_sample(), preset="quality")
    >>> model.show(64)

    The preset ``"quality"`` draws digits that can be read; ``"article"`` is a small model, quick to train and coarse.
    """
    return GAN._trained(data, preset, settings, callbacks=callbacks, progress=progress)
