"""What can go wrong by name."""

from __future__ import annotations

import copyreg
from typing import Any


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used here; the message says why and what to install."""


class ModelFileError(ValueError):
    """A file is not a minigen model, or is truncated or altered."""


class NotFittedError(ValueError, AttributeError):
    """The model has not been trained or loaded yet (same bases as scikit-learn's error of that name)."""


class _WithAttributes(Exception):
    """An error that is made with more than its message."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickles and copies, which else would call the class with ``args`` alone and fail: a process pool would
        wait for ever."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class _OfArgument(_WithAttributes):
    argument: str

    def __init__(self, argument: str, what: str) -> None:
        super().__init__(f"{argument}{what}" if what.startswith(":") else f"{argument} {what}")
        self.argument = argument.partition("[")[0]


class ArgumentError(_OfArgument, ValueError):
    """An argument has a value that is not allowed.

    ``argument`` is its name, with which the message begins; of an element such as ``hidden[0]``, the name of the whole.
    """


class ArgumentTypeError(_OfArgument, TypeError):
    """An argument has a type that is not allowed; ``argument`` as in :class:`ArgumentError`."""


class TrainingDiverged(_WithAttributes, ArithmeticError):
    """A loss, a weight or the optimizer's state became NaN or infinite; ``step`` and ``layer`` say where it began."""

    def __init__(self, message: str, *, step: int, layer: str) -> None:
        super().__init__(message)
        self.step = step
        self.layer = layer


class SomeDiverged(TrainingDiverged):
    """Of models that were trained at once some diverged. ``errors`` are theirs, by their place among the models;
    ``step`` and ``layer`` are those of the first."""

    def __init__(self, message: str, *, errors: dict[int, TrainingDiverged]) -> None:
        first = next(iter(errors.values()))
        super().__init__(message, step=first.step, layer=first.layer)
        self.errors = errors
