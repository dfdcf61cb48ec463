"""How a training stands, read off one of its steps: who is winning, what vanishes, what is saturated; with figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minigen.reference.activations import sigmoid
from minigen.tracing.records import Record
from minigen.tracing.summary import LayerSummary, StepSummary, mean_kl

VANISHED = 1e-3  # a gradient that loses more than this factor from the last layer to the first
LARGE_UPDATE, SMALL_UPDATE = 0.1, 1e-7  # of a layer's weights
ACTIVE = 0.01  # nats of KL from which on a latent carries something
SURE = 0.5  # difference of the probabilities that D gives to real and generated rows
UNSURE = 0.1
WON = 0.05  # a discriminator's loss below which nothing is left for it to learn
GROWN = 200  # steps in which weights may double
PROBABILITIES = ("non_saturating", "minimax")
THRESHOLDS = {"least_squares": 0.5, "hinge": 0.0}


@dataclass(frozen=True)
class Finding:
    """One sentence about a step, and the ``figures`` that are in it."""

    subject: str
    """``players``, ``generator's signal``, ``gradients``, ``updates``, ``units``, ``latents`` or ``numbers``."""
    text: str
    figures: Mapping[str, float]

    def __str__(self) -> str:
        return self.text


def explain(step: StepSummary) -> list[Finding]:
    """What there is to say of a step."""
    found = [*_numbers(step), *_players(step.told), *_signal(step.told), *_latents(step.told)]
    nets: dict[str, dict[str, LayerSummary]] = {}
    for name, layer in step.layers.items():
        nets.setdefault(name.rpartition(".")[0], {})[name] = layer
    for name, layers in nets.items():
        found += [*_gradients(name, layers), *_updates(layers), *_units(layers)]
    return found


def _numbers(step: StepSummary) -> Iterator[Finding]:
    if (record := step.not_finite) is not None:
        where = f" of {record.layer}" if record.layer else ""
        text = f"Not finite: {record.operation}{where}, number {record.number} of the step, is the first to write a "
        text += f"NaN or an infinity ({record.file}:{record.line})."
        yield Finding("numbers", text, {"number": record.number})


# --- GAN --------------------------------------------------------------------------------------------------


def _players(told: Mapping[str, Record]) -> Iterator[Finding]:
    if (record := told.get("gan_loss_discriminator")) is None:
        return
    kind, n_real = record.settings["kind"], record.settings["n_real"]
    logits = record.inputs["logits"][:, 0].astype(np.float64)
    real, fake = logits[:n_real], logits[n_real:]
    loss = float(record.outputs["loss"][0])
    if kind in PROBABILITIES:
        p, q = float(sigmoid(real).mean()), float(sigmoid(fake).mean())
        text = f"it gives real rows a probability of {p:.3f} of being real and generated ones {q:.3f}, means of the "
        text += f"batch; its loss is {loss:.4f}, where it cannot tell them apart 2 log 2 = {2 * math.log(2):.4f}"
        verdict = _standing(p - q)
        if p - q > UNSURE and loss > 2 * math.log(2):
            text += ". The loss is above that all the same: of a few rows it is certain, and wrong"
        elif p - q > SURE and loss < WON:
            verdict = "The discriminator has won"
            text += ". It hardly learns from such rows any more. Where that stays so: a smaller rate for it "
            text += "(learning_rate=(g, d)), r1, or a smaller network"
        yield Finding("players", f"{verdict}: {text}.", {"real": p, "generated": q, "loss": loss})
        return
    figures = {"real": float(real.mean()), "generated": float(fake.mean()), "loss": loss}
    text = f"{figures['real']:.4g} for real rows, {figures['generated']:.4g} for generated ones"
    if kind not in THRESHOLDS:
        ahead = "The discriminator" if figures["real"] > figures["generated"] else "The generator"
        gap = figures["real"] - figures["generated"]
        yield Finding("players", f"{ahead} is ahead: mean logits {text}, a difference of {gap:.4g}.", figures)
        return
    limit = THRESHOLDS[kind]
    right = {"real_right": float((real > limit).mean()), "generated_right": float((fake < limit).mean())}
    verdict = _standing(right["real_right"] + right["generated_right"] - 1)
    text += f"; {right['real_right']:.1%} and {right['generated_right']:.1%} are on their side of {limit:g}"
    yield Finding("players", f"{verdict}: mean logits {text}.", figures | right)


def _standing(gap: float) -> str:
    """From -1, the discriminator takes all for the other, to 1, it takes all for what they are."""
    if gap > SURE:
        return "The discriminator is winning"
    if gap > UNSURE:
        return "The discriminator is ahead"
    if gap < -UNSURE:
        return "The generator is ahead"
    return "The discriminator cannot tell real from generated"


def _signal(told: Mapping[str, Record]) -> Iterator[Finding]:
    """How much of the generator's loss comes back through the logits."""
    record = told.get("gan_loss_generator")
    if record is None or record.settings["kind"] not in PROBABILITIES:
        return
    share = float(np.abs(record.outputs["dlogits"]).mean() * len(record.outputs["dlogits"]))
    kind = record.settings["kind"]
    text = f"The generator's loss ({kind}) has a mean slope of {share:.4g} by the logits, of 1 at most"
    if share < 0.1:
        text += ": it is saturated, and the generator learns slowly" + (
            "; non_saturating does not saturate where D rejects its rows" if kind == "minimax" else ""
        )
    yield Finding("generator's signal", f"{text}.", {"slope": share})


# --- VAE --------------------------------------------------------------------------------------------------


def _latents(told: Mapping[str, Record]) -> Iterator[Finding]:
    if (record := told.get("posterior")) is None:
        return
    kl = mean_kl(record)
    active, total = int((kl > ACTIVE).sum()), float(kl.sum())
    text = f"{active} of {len(kl)} latents carry more than {ACTIVE} nats; the KL is {total:.4g} nats a row"
    figures = {"active": active, "latents": len(kl), "kl": total}
    if "reconstruction" in told:
        figures["reconstruction"] = float(told["reconstruction"].outputs["loss"][0])
        text += f", the reconstruction term {figures['reconstruction']:.4g}"
    if active == 0:
        text += ". The posterior has collapsed to the prior: the decoder does not use z"
    yield Finding("latents", f"{text}.", figures)


# --- layers -----------------------------------------------------------------------------------------------


def _gradients(net: str, layers: Mapping[str, LayerSummary]) -> Iterator[Finding]:
    """From the last layer to the first, as the gradient goes."""
    sizes = {name: layer.backward for name, layer in layers.items() if not math.isnan(layer.backward)}
    if len(sizes) < 2:
        return
    first, last = next(iter(sizes)), next(reversed(sizes))
    if not sizes[last] > 0:
        yield Finding("gradients", f"{net}: no gradient comes into the last layer.", {"ratio": math.nan})
        return
    ratio = sizes[first] / sizes[last]
    verdict = "vanishes" if ratio < VANISHED else "explodes" if ratio > 1 / VANISHED else "keeps its size"
    way = ", ".join(f"{name} {size:.3g}" for name, size in reversed(sizes.items()))
    text = f"{net}: the gradient {verdict} on its way back: |dz| a row is {way}; first over last {ratio:.3g}."
    yield Finding("gradients", text, {"ratio": ratio, **sizes})


def _updates(layers: Mapping[str, LayerSummary]) -> Iterator[Finding]:
    """How far the optimizer has moved the parameters of each layer that rows go through, in parts of their size. Those
    of others, learned log variances, may be 0 and right."""
    through = {name: layer for name, layer in layers.items() if not math.isnan(layer.backward)}
    moved = {name: layer.update / layer.weights for name, layer in through.items() if layer.weights > 0}
    for name, part in moved.items():
        if part > LARGE_UPDATE:
            text = f"{name}: the update is {part:.2g} of the weights' norm, more than {LARGE_UPDATE}: "
            yield Finding("updates", f"{text}the learning rate is high.", {"part": part})
        elif part < SMALL_UPDATE:
            text = f"{name}: the update is only {part:.2g} of the weights' norm: this layer does not learn"
            yield Finding("updates", f"{text}.", {"part": part})
    usual = {name: part for name, part in moved.items() if SMALL_UPDATE <= part <= LARGE_UPDATE}
    if usual:
        text = ", ".join(f"{name} {part:.2g}" for name, part in usual.items())
        yield Finding("updates", f"Updates, in parts of the weights' norm: {text}.", usual)


def _units(layers: Mapping[str, LayerSummary]) -> Iterator[Finding]:
    """Activations that are flat where the layer is; in one sentence those that are flat nowhere."""
    last = list(layers)[-1]
    alive = {name: layer for name, layer in layers.items() if layer.activation and not layer.saturated}
    for name, layer in layers.items():
        if not layer.activation or name in alive:
            continue
        dead = round(layer.dead * layer.units)
        figures = {"saturated": layer.saturated, "dead": dead, "units": layer.units}
        text = f"{name}: {layer.activation} is flat at {layer.saturated:.1%} of the outputs"
        text += f", and {dead} of {layer.units} units are so in all {layer.rows} rows"
        if name == last:
            text += " (the network's output: right where the data lie at the ends of its range)"
        elif dead:
            text += " and learn nothing from them"
        yield Finding("units", f"{text}.", figures)
    alive.pop(last, None)
    if alive:
        text = f"{', '.join(alive)}: no unit's activation is flat in any row."
        yield Finding("units", text, {"saturated": 0.0, "dead": 0, "units": sum(x.units for x in alive.values())})


def _growth(steps: Sequence[StepSummary]) -> Iterator[Finding]:
    """Layers whose weights have grown much over the ``steps``: then an update is a small part of them again."""
    first, last = steps[0].layers, steps[-1].layers
    for name, layer in last.items():
        through = first[name].weights > 0 and not math.isnan(layer.backward)  # not a learned log variance
        grown = layer.weights / first[name].weights if through else math.nan
        if grown > 2 ** max(1, len(steps) / GROWN):
            text = f"{name}: the weights' norm has grown {grown:.3g}-fold in {len(steps)} steps"
            yield Finding("updates", f"{text}: the learning rate is high.", {"grown": grown})


def of_last(steps: Sequence[StepSummary]) -> list[Finding]:
    """Of the last of these steps, and of what the weights have done in them."""
    return [*explain(steps[-1]), *_growth(steps)] if steps else []
