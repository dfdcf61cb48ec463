"""Networks put together: hidden layers from a dense one and what comes behind it, and the last dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigen.backend import DENSE_ACTIVATIONS
from minigen.models.dropout import Dropout
from minigen.models.layers import Dense, Layer
from minigen.models.maxout import Maxout
from minigen.models.normalization import NORMALIZATIONS
from minigen.models.self_gated import SelfGated
from minigen.models.spectral_norm import SpectralDense


@dataclass(frozen=True)
class Hidden:
    """What hidden layers have beside weights and activation.

    ``normalization``: one of :data:`NORMALIZATIONS` before the activation; ``dropout``: the share dropped behind it;
    ``maxout``: how many pieces, in place of the activation; ``spectral_norm``: of the weights, the last layer's too.
    """

    normalization: str | None = None
    dropout: float = 0.0
    maxout: int | None = None
    spectral_norm: bool = False


PLAIN = Hidden()


def dense_layers(
    sizes: Sequence[int], hidden: str, output: str, options: Hidden = PLAIN, first: int = 0
) -> list[Layer]:
    """Layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs, with these activations.

    ``first`` is the number of the first layer in its model, for those that draw random numbers in training.
    """
    layers: list[Layer] = []
    for inputs, outputs in zip(sizes, sizes[1:-1], strict=False):
        layers += _hidden_layers(inputs, outputs, hidden, options, first + len(layers))
    dense = SpectralDense if options.spectral_norm else Dense
    return [*layers, dense(sizes[-2], sizes[-1], output)]


def _hidden_layers(inputs: int, outputs: int, activation: str, options: Hidden, number: int) -> list[Layer]:
    """Dense, normalization, activation, dropout: those there are, the activation within the first that can apply it."""
    dense = SpectralDense if options.spectral_norm else Dense
    followed_by = activation if options.maxout is None else "maxout"
    within = activation if followed_by in DENSE_ACTIVATIONS else "linear"
    columns = outputs * (options.maxout or 1)
    layers: list[Layer]
    if options.normalization is None:
        layers = [dense(inputs, columns, within, followed_by)]
    else:
        normalization = NORMALIZATIONS[options.normalization]
        layers = [dense(inputs, columns, "linear", followed_by), normalization(columns, within)]
    if options.maxout is not None:
        layers.append(Maxout(outputs, options.maxout))
    elif followed_by not in DENSE_ACTIVATIONS:
        layers.append(SelfGated(outputs, activation))
    if options.dropout:
        layers.append(Dropout(outputs, options.dropout, number + len(layers)))
    return layers
