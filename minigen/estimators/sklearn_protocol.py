"""What scikit-learn expects of an estimator besides ``fit``. scikit-learn is imported only when it calls us."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any, Self

from minigen import checks
from minigen.errors import NotFittedError


class Parameters:
    """The arguments of the constructor as settings, each an attribute of its name."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name, as scikit-learn's estimators give them."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change settings; they take effect at the next ``fit``. ``ValueError`` for an unknown name.

        ``partial_fit``, where there is one, takes those that only steer the training, such as ``learning_rate``, and
        refuses changes of the others; a trained model is used and saved as it was made.
        """
        for name, value in params.items():
            checks.choice("parameter", name, self._parameter_names())
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"


def tags(transformer: bool, estimator_type: str | None = None) -> Any:
    """What scikit-learn 1.6 and newer want to know: no ``y``, items of one dimension or more, float32 from
    ``transform`` whatever comes in."""
    from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

    return Tags(
        estimator_type=estimator_type,
        target_tags=TargetTags(required=False),
        classifier_tags=None,
        regressor_tags=None,
        transformer_tags=TransformerTags(preserves_dtype=["float32"]) if transformer else None,
        input_tags=InputTags(two_d_array=True, three_d_array=True),
    )


def not_fitted(message: str) -> NotFittedError:
    """The error of a model that has not been trained.

    Where scikit-learn's errors are loaded it is one of them too, so that whoever catches
    ``sklearn.exceptions.NotFittedError`` catches ours. Whoever catches that class has loaded it.
    """
    theirs = sys.modules.get("sklearn.exceptions")
    return NotFittedError(message) if theirs is None else _joint_class(theirs.NotFittedError)(message)


@functools.cache
def _joint_class(theirs: type[Exception]) -> type[NotFittedError]:
    def reduce(self: Exception) -> tuple[Any, ...]:
        return not_fitted, self.args

    members = {"__module__": NotFittedError.__module__, "__doc__": NotFittedError.__doc__, "__reduce__": reduce}
    return type(NotFittedError.__name__, (NotFittedError, theirs), members)
