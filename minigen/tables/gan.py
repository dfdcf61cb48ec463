"""The generative adversarial network of tables."""

from __future__ import annotations

from typing import Any

from minigen.estimators.gan import GAN
from minigen.tables.model import TableModel


class TableGAN(TableModel):
    """Synthetic rows of a table by a generative adversarial network; like :class:`minigen.TableVAE`, which is quicker.

    >>> model = minigen.TableGAN().fit(people)
    >>> synthetic = model.sample(1000)

    Categories come out of a Gumbel softmax (Jang et al. 2017), so that the discriminator sees one-hot rows of both.
    Attributes after ``fit``: as those of :class:`minigen.TableVAE`; ``model_`` is a :class:`minigen.GAN`.

    Parameters
    ----------
    continuous : how numbers go into the network: ``"quantiles"``, by their place among the data's, as a standard normal
        has it; or ``"modes"``, by the modes of a mixture of Gaussians (Xu et al. 2019; needs scikit-learn)
    calibrate : after the training correct each number's distribution, of ``"quantiles"``, by what the model makes of it
    rejection : after a training on 5,000 rows or more, without ``condition=``, teach boosted trees to tell real from
        generated rows, and leave out rows that they reject (Azadi et al. 2019, :mod:`minigen.tables.rejection`; needs
        scikit-learn)
    training_by_sampling : with ``condition=``, train on its values by the logarithm of their frequency (Xu et al.
        2019), so that rows of rare ones are learnt too; samples have the data's frequencies all the same
    max_categories : categories of a column that are told apart; rarer ones share a place and are drawn by frequency
    latent_dim : width of the noise
    hidden : sizes of the generator's hidden layers; the discriminator's are these in reverse
    activation : of the hidden layers, one of ``minigen.ACTIVATIONS``
    normalization : of the generator's hidden layers: ``"batch"``, ``"layer"`` or ``None``
    dropout : share of the discriminator's hidden units that are dropped in training
    temperature : of the softmax that categories come out of
    loss : of both players, one of ``minigen.GAN_LOSSES``
    r1 : weight of the penalty on the gradient of the discriminator's logit at real rows (Mescheder et al. 2018)
    gradient_penalty : weight of the penalty at rows between real and generated ones (Gulrajani et al. 2017)
    n_critic : updates of the discriminator a step
    pack : rows that the discriminator judges together (PacGAN, Lin et al. 2018)
    ema : decay of an average of the generator's weights over the steps, which samples are drawn with; 0 keeps none
    learning_rate : step size of Adam
    schedule : of the learning rate over the epochs: ``"constant"``, ``"cosine"``, ``"linear"`` or ``"step"``
    batch_size : rows a step
    epochs : passes over the table; ``None`` takes as many as make about 10,000 steps, 300 at most
    seed : of all that is random; the same seed gives the same bits on the same device with the same instruction set
    device : ``"auto"``, ``"numpy"``, ``"cpu"`` or ``"cuda"``
    precision : of matrix products, as that of :class:`minigen.GAN`
    """

    kind = "table-gan"
    steps = 10_000

    def __init__(
        self,
        *,
        continuous: str = "quantiles",
        calibrate: bool = True,
        rejection: bool = False,
        training_by_sampling: bool = True,
        max_categories: int = 1000,
        latent_dim: int = 64,
        hidden: tuple[int, ...] = (256, 256),
        activation: str = "leaky_relu",
        normalization: str | None = None,
        dropout: float = 0.0,
        temperature: float = 0.2,
        loss: str = "non_saturating",
        r1: float = 0.1,
        gradient_penalty: float = 0.0,
        n_critic: int = 1,
        pack: int = 1,
        ema: float = 0.999,
        learning_rate: float = 1e-3,
        schedule: str = "linear",
        batch_size: int = 256,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.continuous = continuous
        self.calibrate = calibrate
        self.rejection = rejection
        self.training_by_sampling = training_by_sampling
        self.max_categories = max_categories
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.activation = activation
        self.normalization = normalization
        self.dropout = dropout
        self.temperature = temperature
        self.loss = loss
        self.r1 = r1
        self.gradient_penalty = gradient_penalty
        self.n_critic = n_critic
        self.pack = pack
        self.ema = ema
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.precision = precision

    def _inner(self, widths: tuple[int, ...], batch_size: int, epochs: int, rows: int) -> Any:
        shared = {name: getattr(self, name) for name in self._parameter_names() if name in GAN._parameter_names()}
        batch_size = max(self.pack, batch_size - batch_size % self.pack)
        shared.update(batch_size=batch_size, epochs=epochs, beta1=0.0, output="linear", standardize=False)
        return GAN(**shared, blocks=widths)
