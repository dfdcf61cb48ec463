"""The variational autoencoder of tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.estimators.vae import VAE
from minigen.tables.model import TableModel

FEW_ROWS = 1000
OF_FEW_ROWS, OF_MANY_ROWS = (128,), (256, 256)
"""The hidden layers where none are given: of few rows a small one is as good, and takes a third of the time."""


class TableVAE(TableModel):
    """Synthetic rows of a table by a variational autoencoder: numbers, dates, categories, booleans and missing values.

    >>> model = minigen.TableVAE().fit(people)
    >>> synthetic = model.sample(1000)
    >>> rich = model.sample(100, where={"income": ">50K"})

    Attributes after ``fit``: ``schema_``, the columns' types (print it); ``model_``, the :class:`minigen.VAE` of the
    encoded rows; ``condition_``, the column that it is conditional on, or None; ``history_``, its losses.

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
    latent_dim : width of the latent
    hidden : sizes of the encoder's hidden layers; the decoder's are these in reverse. ``None`` takes (256, 256), or
        (128,) of tables with fewer than 1,000 rows
    activation : of the hidden layers, one of ``minigen.ACTIVATIONS``
    normalization : of the hidden layers: ``"batch"``, ``"layer"`` or ``None``
    dropout : share of the hidden units that are dropped in training
    variance : of the numbers' likelihood: ``"learned"``, one of each, or a number
    beta : weight of the KL; small, since the mixture of ``latent_prior`` makes up for latents that are no normals
    latent_prior : what samples' latents are drawn from: ``"normal"``, or ``"mixture"``, one of Gaussians fitted to
        those of the training rows (needs scikit-learn)
    components : Gaussians in that mixture
    kl_warmup : epochs over which the weight of the KL grows from 0 to beta
    learning_rate : step size of Adam
    schedule : of the learning rate over the epochs: ``"constant"``, ``"cosine"``, ``"linear"`` or ``"step"``
    batch_size : rows a step
    epochs : passes over the table; ``None`` takes as many as make about 4,000 steps, 100 at most
    seed : of all that is random; the same seed gives the same bits on the same device with the same instruction set
    device : ``"auto"``, ``"numpy"``, ``"cpu"`` or ``"cuda"``
    precision : of matrix products, as that of :class:`minigen.VAE`
    """

    kind = "table-vae"
    steps = 4000
    most_epochs = 100

    def __init__(
        self,
        *,
        continuous: str = "quantiles",
        calibrate: bool = True,
        rejection: bool = True,
        training_by_sampling: bool = False,
        max_categories: int = 1000,
        latent_dim: int = 16,
        hidden: tuple[int, ...] | None = None,
        activation: str = "relu",
        normalization: str | None = None,
        dropout: float = 0.0,
        variance: float | str = "learned",
        beta: float = 0.2,
        latent_prior: str = "mixture",
        components: int = 20,
        kl_warmup: float = 0.0,
        learning_rate: float = 3e-3,
        schedule: str = "cosine",
        batch_size: int = 128,
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
        self.variance = variance
        self.beta = beta
        self.latent_prior = latent_prior
        self.components = components
        self.kl_warmup = kl_warmup
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.precision = precision

    def _inner(self, widths: tuple[int, ...], batch_size: int, epochs: int, rows: int) -> Any:
        shared = {name: getattr(self, name) for name in self._parameter_names() if name in VAE._parameter_names()}
        shared.update(batch_size=batch_size, epochs=epochs, standardize=False)
        if self.hidden is None:
            shared["hidden"] = OF_FEW_ROWS if rows < FEW_ROWS else OF_MANY_ROWS
        return VAE(**shared, likelihood="mixed", blocks=widths)

    def _sampled(self, n: int, seed: int, labels: Any) -> Any:
        given = {} if labels is None else {"y": labels}
        return np.asarray(self.model_.sample(n, seed, noise=True, **given))
