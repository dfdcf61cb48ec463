"""What can go wrong by name. Bad arguments raise plain ``ValueError`` and ``TypeError``."""

from __future__ import annotations

from functools import partial
from typing import Any


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used here; the message says why and what to install."""


class ModelFileError(ValueError):
    """A file is not a minigen model, or is truncated or altered."""


class NotFittedError(ValueError, AttributeError):
    """The model has not been trained or loaded yet (same bases as scikit-learn's error of that name)."""


class TrainingDiverged(ArithmeticError):
    """A loss, a weight or the optimizer's state became NaN or infinite; ``step`` and ``layer`` say where it began."""

    def __init__(self, message: str, *, step: int, layer: str) -> None:
        super().__init__(message)
        self.step = step
        self.layer = layer

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickles and copies, which else would call the class with ``args`` alone and fail: a process pool would
        wait for ever."""
        return partial(type(self), step=self.step, layer=self.layer), self.args, self.__dict__
