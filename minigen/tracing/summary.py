"""What a step has done to each layer, collected from its records as they come: sizes of gradients and updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigen.models.network import Network
from minigen.models.optimizer import OPTIMIZERS
from minigen.reference import activations, latent, self_gated
from minigen.tracing.records import Record, norm

FLAT = 0.01
"""A unit counts as saturated where its activation's derivative is below this part of the largest one."""
STEEPEST = {"sigmoid": 0.25}


@dataclass
class LayerSummary:
    """Of a layer in a step; NaN where it has no such number.

    ``gradient``, ``weights`` and ``update``: norms over all of its parameters, of their gradient, of themselves and of
    their change. ``backward``: the norm of ``dz`` for a row, the root of the mean square over the rows. ``saturated``:
    the share of its outputs where the activation is flat, and ``dead`` that of the units that are so in every row;
    ``activation`` is ``""`` where the layer has none that could be.
    """

    gradient: float = math.nan
    weights: float = math.nan
    update: float = math.nan
    backward: float = math.nan
    saturated: float = math.nan
    dead: float = math.nan
    activation: str = ""
    units: int = 0
    rows: int = 0


@dataclass
class StepSummary:
    """Of one step: its ``layers`` by name, and the records that tell how the players or the latents stand."""

    step: int
    layers: dict[str, LayerSummary]
    told: dict[str, Record] = field(default_factory=dict)
    """The last record of ``gan_loss_discriminator`` and ``gan_loss_generator``, of the draw of z, ``posterior``, and of
    the ``reconstruction`` term."""
    not_finite: Record | None = None
    """The first record that wrote a NaN or an infinity."""


def _tells(record: Record) -> str:
    """What a record tells of the training, ``""`` for most."""
    if record.operation in ("gan_loss_discriminator", "gan_loss_generator"):
        return record.operation
    if "heads" in record.inputs and "z" in record.outputs:
        return "posterior"
    return "reconstruction" if "doutput" in record.outputs and "loss" in record.outputs else ""


class Collector:
    """Takes the records of steps of these ``networks`` and has a :class:`StepSummary` of each in ``steps``."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks: Mapping[str, Network] = {net.name: net for net in networks}
        self.steps: list[StepSummary] = []
        self._clipped: set[str] = set()  # networks whose gradient was, since their last update

    def __call__(self, record: Record) -> None:
        if not self.steps or self.steps[-1].step != record.step:
            layers = {layer.name: LayerSummary() for net in self.networks.values() for layer in net.layers}
            self.steps.append(StepSummary(record.step, layers))
        now = self.steps[-1]
        if tells := _tells(record):
            now.told[tells] = record
        if now.not_finite is None and not all(_finite(array) for array in record.outputs.values()):
            now.not_finite = record
        if record.operation in (*OPTIMIZERS, "clip_norm") and record.layer in self.networks:
            self._parameters(now, record)
        self._backward(now, record)
        if record.layer in now.layers:
            _saturation(now.layers[record.layer], record)

    def _parameters(self, now: StepSummary, record: Record) -> None:
        net = self.networks[record.layer]
        clipping = record.operation == "clip_norm"
        if clipping or net.name not in self._clipped:  # the gradient's size is that from before it is clipped
            for layer, size in _by_layer(net, record.inputs["g"]).items():
                now.layers[layer].gradient = size
        self._clipped = (self._clipped | {net.name}) if clipping else (self._clipped - {net.name})
        if not clipping:
            before = record.inputs["p"]
            for layer, size in _by_layer(net, before).items():
                now.layers[layer].weights = size
            for layer, size in _by_layer(net, record.outputs["p"] - before).items():
                now.layers[layer].update = size

    def _backward(self, now: StepSummary, record: Record) -> None:
        """``dz`` of a layer, in the pass that its own network learns from."""
        for name, array in record.outputs.items():
            layer, _, part = record.names[name].partition("[")[0].rpartition(".")
            through = layer.startswith("discriminator") and record.part == "generator_gradient"
            if part == "dz" and layer in now.layers and not through and array.ndim == 2:
                now.layers[layer].backward = norm(array) / math.sqrt(len(array))


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _by_layer(net: Network, flat: np.ndarray) -> dict[str, float]:
    squares: dict[str, float] = {}
    for layer, part in net.named(flat):
        squares[layer] = squares.get(layer, 0.0) + norm(part) ** 2
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def _saturation(layer: LayerSummary, record: Record) -> None:
    activation, y = record.settings.get("activation", "linear"), record.outputs.get("y")
    if activation in ("linear", "leaky_relu") or y is None or not y.size:
        return
    if activation in self_gated.SELF_GATED:
        slope = np.abs(self_gated.backward(np.ones_like(record.inputs["z"]), record.inputs["z"], activation))
    else:
        slope = activations.derivative(y, activation)
    flat = (slope < FLAT * STEEPEST.get(activation, 1)).reshape(-1, y.shape[-1])
    layer.activation, layer.units, layer.rows = activation, flat.shape[1], len(flat)
    layer.saturated, layer.dead = float(flat.mean()), float(flat.all(axis=0).mean())


def summaries(records: Sequence[Record], networks: Iterable[Any]) -> list[StepSummary]:
    """Of each step that these ``records`` are of."""
    collect = Collector(networks)
    for record in records:
        collect(record)
    return collect.steps


def mean_kl(record: Record) -> np.ndarray:
    """The KL of each latent in nats, the mean over the rows, from a record with the encoder's ``heads``."""
    mu, logvar = latent.posterior(record.inputs["heads"].astype(np.float64))
    return np.asarray((mu * mu + np.expm1(logvar) - logvar).mean(axis=0) / 2)
