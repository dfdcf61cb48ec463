"""minigen: dense generative models, trained with gradients derived by hand on fused kernels.

>>> import minigen
>>> digits = minigen.datasets.mnist_sample()
>>> model = minigen.train_gan(digits, preset="quality")
>>> pictures = model.sample(64)
>>> model.show(64).save("digits.png")
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Names and where they live: imported when first used, so that ``import minigen`` stays light.
_HOMES = {
    "GAN": "minigen.estimators.gan",
    "train_gan": "minigen.estimators.gan",
    "VAE": "minigen.estimators.vae",
    "train_vae": "minigen.estimators.vae",
    "TableVAE": "minigen.tables.vae",
    "TableGAN": "minigen.tables.gan",
    "fit_many": "minigen.estimators.many",
    "trace": "minigen.tracing.run",
    "AnomalyDetector": "minigen.anomalies.detector",
    "Oversampler": "minigen.augmentation",
    "augment": "minigen.augmentation",
    "show": "minigen.plotting",
    "load": "minigen.estimators.loading",
    "devices": "minigen.device",
    "get_num_threads": "minigen.cpu",
    "set_num_threads": "minigen.cpu",
    "EpochEnd": "minigen.training.loop",
    "ACTIVATIONS": "minigen.backend",
    "GAN_LOSSES": "minigen.backend",
    "DeviceError": "minigen.errors",
    "ModelFileError": "minigen.errors",
    "NotFittedError": "minigen.errors",
    "SomeDiverged": "minigen.errors",
    "TrainingDiverged": "minigen.errors",
}
_MODULES = ("datasets", "metrics", "report", "tables")

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"minigen.{name}")
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
