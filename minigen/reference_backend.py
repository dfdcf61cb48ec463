"""The reference as a backend: the pure functions of :mod:`minigen.reference` write into the caller's buffers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import HostBackend
from minigen.reference import (
    activations,
    averaging,
    batch,
    categorical_loss,
    clipping,
    condition,
    dense,
    dropout,
    gan_loss,
    gaussian_loss,
    gumbel_softmax,
    importance,
    latent,
    maxout,
    mixed_loss,
    normalization,
    optimizer,
    penalty,
    random,
    schedule,
    self_gated,
    spectral_norm,
    vae_loss,
)
from minigen.step.record import EFFECTS, Operation


class Repeat:
    """A program that calls its step again each time."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step

    def run(self, steps: int) -> None:
        """Call the step ``steps`` times."""
        for _ in range(checks.integer("steps", steps, 0)):
            self.step()


class NumpyBackend(HostBackend):
    """The operations on ``numpy.ndarray`` of ``dtype``, float32 or float64."""

    name = "numpy"
    PRECISIONS = ("ieee",)

    @staticmethod
    def default_precision() -> str:
        return "ieee"

    def __init__(self, dtype: Any = np.float32, precision: str = "ieee") -> None:
        self.dtype = np.dtype(dtype)
        self.precision = checks.choice("precision", precision, self.PRECISIONS)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype must be float32 or float64, not {self.dtype}")

    def execute(self, operation: Operation) -> None:
        results = FORMULAS[operation.name](operation)
        written = [operation.buffers[name] for name in EFFECTS[operation.name][1] if name in operation.buffers]
        for buffer, result in zip(written, results if isinstance(results, tuple) else (results,), strict=True):
            buffer[...] = result

    def capture(self, step: Callable[[], None]) -> Repeat:
        """Nothing is recorded: a step may also compute with NumPy, as a layer does that is no operation yet."""
        if not callable(step):
            raise TypeError(f"step must be a function without arguments, not {type(step).__name__}")
        return Repeat(step)


def _optimizer(op: Operation) -> Any:
    p, g, rate = op["p"], op["g"], float(op["lr"][0])
    if op["optimizer"] == "sgd":
        return optimizer.sgd(p, g, op["m"], rate, op["momentum"], op["weight_decay"])
    if op["optimizer"] == "rmsprop":
        settings = op["beta2"], op["eps"], op["momentum"], op["weight_decay"]
        return optimizer.rmsprop(p, g, op["m"], op["v"], rate, *settings)
    if op["optimizer"] == "lion":
        return optimizer.lion(p, g, op["m"], rate, op["beta1"], op["beta2"], op["weight_decay"])
    betas = op["beta1"], op["beta2"], op["eps"]
    return optimizer.adamw(p, g, op["m"], op["v"], rate, _step(op) + 1, *betas, op["weight_decay"])


def _dense_wgrad(op: Operation) -> Any:
    gradients = zip(("dW", "db"), dense.wgrad(op["x"], op["dz"]), strict=True)
    return tuple(op[name] + g if op["accumulate"] else g for name, g in gradients if name in op.buffers)


def _curvature(op: Operation) -> Any:
    e = activations.curvature(op["dz"], op["z_tangent"], op["y"], op["activation"])
    return op["e"] + e if op["accumulate"] else e


def _advance(op: Operation) -> Any:
    history = op["history"].copy()
    history[_step(op) % len(history)] = op["losses"]
    return op["step"] + np.uint64(1), history


def _step(op: Operation) -> int:
    return int(op["step"][0])


def _gan_loss(op: Operation) -> Any:
    if op["player"] == "generator":
        return gan_loss.generator(op["logits"], op["kind"])
    return gan_loss.discriminator(op["logits"], op["n_real"], op["kind"], op["smoothing"])


FORMULAS: dict[str, Callable[[Operation], Any]] = {
    "dense_forward": lambda op: dense.forward(op["x"], op["W"], op["b"], op["activation"]),
    "dense_dgrad": lambda op: dense.dgrad(op["dz"], op["W"], op["x"], op["activation"]),
    "dense_wgrad": _dense_wgrad,
    "activation_forward": lambda op: activations.forward(op["z"], op["activation"]),
    "activation_backward": lambda op: activations.backward(op["dy"], op["y"], op["activation"]),
    "activation_curvature": _curvature,
    "self_gated_forward": lambda op: self_gated.forward(op["z"], op["activation"]),
    "self_gated_backward": lambda op: self_gated.backward(op["dy"], op["z"], op["activation"]),
    "self_gated_curvature": lambda op: _on_top(op, "dz", self_gated.curvature(*_of(op, "dy z_tangent z activation"))),
    "batch_norm_forward": lambda op: normalization.batch_forward(
        *_of(op, "x gamma beta running_mean running_var momentum eps activation")
    ),
    "batch_norm_infer": lambda op: normalization.batch_infer(
        *_of(op, "x gamma beta running_mean running_var eps activation")
    ),
    "batch_norm_dgrad": lambda op: normalization.batch_dgrad(*_of(op, "dz x gamma mean inv_std")),
    "batch_norm_wgrad": lambda op: normalization.batch_wgrad(*_of(op, "dz x mean inv_std")),
    "layer_norm_forward": lambda op: normalization.layer_forward(*_of(op, "x gamma beta eps activation")),
    "layer_norm_dgrad": lambda op: normalization.layer_dgrad(*_of(op, "dz x gamma mean inv_std")),
    "layer_norm_wgrad": lambda op: _on_top(
        op, "dgamma dbeta", *normalization.layer_wgrad(*_of(op, "dz x mean inv_std"))
    ),
    "layer_norm_tangent": lambda op: normalization.layer_tangent(*_of(op, "x_tangent x gamma mean inv_std")),
    "layer_norm_tangent_wgrad": lambda op: (
        op["dgamma"] + normalization.layer_tangent_wgrad(*_of(op, "dz x_tangent x mean inv_std"))
    ),
    "layer_norm_curvature": lambda op: _on_top(
        op, "dx", normalization.layer_curvature(*_of(op, "dz x_tangent x gamma mean inv_std"))
    ),
    "dropout": lambda op: dropout.forward(op["x"], op["seed"], op["stream"], _step(op), op["first"], op["rate"]),
    "maxout_forward": lambda op: maxout.forward(op["x"]),
    "maxout_tangent": lambda op: maxout.tangent(op["x_tangent"], op["x"]),
    "maxout_backward": lambda op: maxout.backward(op["dy"], op["x"]),
    "spectral_norm": lambda op: spectral_norm.forward(op["W"], op["u"], op["iterate"]),
    "spectral_norm_backward": lambda op: _on_top(
        op, "dW", spectral_norm.backward(*_of(op, "dnormalized normalized u v sigma"))
    ),
    "gan_loss": _gan_loss,
    "gumbel_softmax_forward": lambda op: gumbel_softmax.forward(*_of(op, "z u ends activation temperature")),
    "gumbel_softmax_backward": lambda op: gumbel_softmax.backward(*_of(op, "dy y ends activation temperature")),
    "gradient_penalty": lambda op: penalty.penalty(op["g"], op["kind"], op["weight"]),
    "interpolate": lambda op: penalty.interpolate(op["real"], op["fake"], op["u"]),
    "vae_loss": lambda op: vae_loss.forward(op["output"], op["x"], op["likelihood"], op["variance"]),
    "gaussian_loss": lambda op: gaussian_loss.forward(op["output"], op["x"], op["logvar"]),
    "gaussian_logvar_gradient": lambda op: gaussian_loss.logvar_gradient(
        op["doutput"], op["output"], op["x"], op["logvar"]
    ),
    "categorical_loss": lambda op: categorical_loss.forward(op["output"], op["x"], op["ends"]),
    "mixed_loss": lambda op: mixed_loss.forward(*_of(op, "output x ends logvar")),
    "mixed_logvar_gradient": lambda op: mixed_loss.logvar_gradient(*_of(op, "doutput output x ends logvar")),
    "latent_forward": lambda op: latent.forward(op["heads"], op["eps"]),
    "latent_backward": lambda op: latent.backward(op["dz"], op["heads"], op["eps"], op["weights"]),
    "kl_weights": lambda op: latent.kl_weights(op["heads"], op["beta"][0], op["free_bits"]),
    "ramp": lambda op: latent.ramp(_step(op), op["high"], op["steps"]),
    "repeat_rows": lambda op: importance.repeat(op["x"], len(op["y"])),
    "importance_sample": lambda op: importance.sample(op["heads"], op["eps"]),
    "importance_weights": lambda op: importance.weights(op["nats"], op["ratios"], op["draws"]),
    "scale_rows": lambda op: op["g"] * op["weights"][:, None],
    "importance_backward": lambda op: importance.backward(op["dz"], op["z"], op["heads"], op["eps"], op["weights"]),
    "optimizer": _optimizer,
    "clip": lambda op: optimizer.clip(op["p"], op["limit"]),
    "clip_norm": lambda op: clipping.clip_norm(op["g"], op["most"]),
    "average": lambda op: averaging.average(op["average"], op["p"], _step(op), op["decay"]),
    "scheduled_rate": lambda op: schedule.rate(
        float(op["base"][0]), _step(op), op["schedule"], op["warmup"], op["horizon"]
    ),
    "random_uniform": lambda op: random.uniform(*_drawn(op)),
    "random_normal": lambda op: random.normal(*_drawn(op)),
    "add_noise": lambda op: random.add_noise(op["x"], op["noise"], _step(op), op["std"], op["steps"]),
    "batch_indices": lambda op: batch.indices(
        len(op["indices"]), op["n"], op["seed"], op["stream"], _step(op), op["batch_size"], op["steps_per_epoch"]
    ),
    "batch_gather": lambda op: batch.gather(op["data"], op["indices"], op["out"].dtype, op["scale"], op["shift"]),
    "batch_labels": lambda op: batch.labels(op["labels"], op["indices"]),
    "activation_of_sum": lambda op: condition.activation_of_sum(op["a"], op["b"], op["activation"]),
    "class_sums": lambda op: _on_top(op, "sums", condition.class_sums(op["x"], op["labels"], len(op["sums"]))),
    "projection_forward": lambda op: op["y"] + condition.projection_forward(op["x"], op["e"]),
    "projection_dgrad": lambda op: op["dx"] + condition.projection_dgrad(op["dz"], op["e"], op["x"], op["activation"]),
    "projection_wgrad": lambda op: condition.projection_wgrad(op["x"], op["dz"]),
    "advance": _advance,
}
"""What an operation writes, in the order in which its row names the buffers."""


def _on_top(op: Operation, names: str, *gradients: np.ndarray) -> tuple[np.ndarray, ...]:
    """``gradients`` for the buffers ``names``, with ``accumulate`` on top of what they hold."""
    held = zip(names.split(), gradients, strict=True)
    return tuple(op[name] + gradient for name, gradient in held) if op["accumulate"] else gradients


def _of(op: Operation, names: str) -> list[Any]:
    return [op[name] for name in names.split()]


def _drawn(op: Operation) -> tuple[Any, ...]:
    return op["out"].shape, op["seed"], op["stream"], _step(op), op["out"].dtype


@functools.cache
def derivation(recorded_as: str) -> str:
    """The file of :mod:`minigen.reference` with the formula of what is recorded by this name; ``""`` where there is
    none to derive."""
    modules = (globals().get(name) for name in FORMULAS[recorded_as].__code__.co_names)
    module = next((module for module in modules if getattr(module, "__package__", "") == "minigen.reference"), None)
    return "" if module is None else module.__name__.replace(".", "/") + ".py"
