"""The hyper-parameters that all models share, and what values are allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

from minigen import checks
from minigen.backend import ACTIVATIONS, SCHEDULES
from minigen.errors import ArgumentError
from minigen.estimators.sklearn_protocol import Parameters
from minigen.models.normalization import NORMALIZATIONS
from minigen.models.optimizer import OPTIMIZERS, OptimizerSettings

INITS = ("auto", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal")


class Settings(Parameters):
    """The hyper-parameters that GAN and VAE share. A subclass adds its own, and ``__init__`` takes them all."""

    presets: ClassVar[dict[str, dict[str, Any]]]
    frozen_params: ClassVar[tuple[str, ...]] = (
        "latent_dim",
        "hidden",
        "activation",
        "normalization",
        "dropout",
        "standardize",
        "optimizer",
        "init",
        "device",
        "precision",
    )
    """The hyper-parameters that a trained model keeps, whatever ``set_params`` says, until ``fit`` makes a new one."""

    # The hyper-parameters that both models have, in the order of their documentation.
    latent_dim: int
    activation: str
    normalization: str | None
    dropout: float
    standardize: str | bool
    conditional: str | bool
    optimizer: str
    learning_rate: float | tuple[float, float]
    schedule: str
    warmup: float
    beta1: float
    beta2: float
    eps: float
    momentum: float
    weight_decay: float
    clip_norm: float
    batch_size: int
    epochs: int
    init: str
    seed: int
    device: str
    precision: str

    _frozen: dict[str, Any]  # the values of ``frozen_params`` that the networks were made with

    @classmethod
    def preset(cls, name: str, **settings: Any) -> Self:
        """A model with the settings of a preset; ``settings`` override them. ``ValueError`` lists the known presets.

        ``"article"`` is the defaults, ``"quality"`` is wider and slower and draws clearer pictures.
        """
        checks.choice("preset", name, cls.presets)
        return cls(**{**cls.presets[name], **settings})

    def _check_params(self) -> None:
        """Raise for a bad hyper-parameter. Subclasses add their own."""
        checks.integer("latent_dim", self.latent_dim, 1)
        checks.choice("activation", self.activation, ACTIVATIONS)
        self._check_normalization("normalization", self.batch_size)
        checks.number("dropout", self.dropout, 0, 1)
        checks.choice("standardize", self.standardize, ("auto", True, False))
        checks.choice("conditional", self.conditional, ("auto", True, False))
        checks.choice("optimizer", self.optimizer, OPTIMIZERS)
        checks.choice("init", self.init, INITS)
        self._check_learning_rate()
        checks.choice("schedule", self.schedule, SCHEDULES)
        checks.number("warmup", self.warmup, 0)
        checks.number("beta1", self.beta1, 0, 1)
        checks.number("beta2", self.beta2, 0, 1)
        checks.number("eps", self.eps, 0, exclude_low=True)
        checks.number("momentum", self.momentum, 0, 1)
        checks.number("weight_decay", self.weight_decay, 0)
        checks.number("clip_norm", self.clip_norm, 0)
        if self.weight_decay and self.optimizer == "adam":
            raise ArgumentError("weight_decay", "must be 0 with optimizer='adam'; use optimizer='adamw' or another")
        checks.integer("batch_size", self.batch_size, 1)
        checks.integer("epochs", self.epochs, 0)
        if self.schedule != "constant" and self.warmup and self.warmup >= self.epochs:
            raise ArgumentError(
                "warmup", f"must be less than the {self.epochs} epochs of schedule={self.schedule!r}, not {self.warmup}"
            )
        checks.seed("seed", self.seed)

    def _check_normalization(self, name: str, rows: int) -> None:
        """Of the setting of this name, for batches of ``rows`` rows."""
        value = checks.choice(name, getattr(self, name), (None, *NORMALIZATIONS))
        if value == "batch" and rows == 1:
            raise ArgumentError(name, f"must not be 'batch' with batch_size={self.batch_size}: one row has no variance")

    def _check_learning_rate(self) -> None:
        """Raise for a bad one; a callback may set another on the way."""
        checks.number("learning_rate", self.learning_rate, 0, exclude_low=True)

    def _check_frozen(self) -> None:
        """Raise ValueError if a setting that the networks were made with has been changed since."""
        for name, made in self._frozen.items():
            now = _as_tuple(getattr(self, name))
            if now != made:
                raise ArgumentError(
                    name,
                    f"must stay {made!r} in partial_fit, not {now!r}: the model was made with it; fit makes a new one",
                )

    def _freeze(self) -> None:
        """Note the values that the networks are made with."""
        self._frozen = {name: _as_tuple(getattr(self, name)) for name in self.frozen_params}

    def _optimizer_settings(self) -> OptimizerSettings:
        names = OptimizerSettings.__dataclass_fields__
        settings = OptimizerSettings(**{name: getattr(self, name) for name in names})
        if isinstance(self.learning_rate, (tuple, list)):  # each network gets its own before the first step
            return replace(settings, learning_rate=self.learning_rate[0])
        return settings


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
