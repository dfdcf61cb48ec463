"""minigen: the training step of `minigen.models`, captured once and repeated by the backend."""

from __future__ import annotations

from typing import Any

import numpy as np

import minigen
from bench.spec import CLASSES, PENALTY_WEIGHT, R1_WEIGHT, Spec, labels
from minigen.backend import Backend
from minigen.device import get_backend
from minigen.models.conditional import Condition, with_condition_beside_input
from minigen.models.gan import GanStep
from minigen.models.hidden import Hidden, dense_layers
from minigen.models.layers import Layer
from minigen.models.network import Network
from minigen.models.optimizer import OptimizerSettings
from minigen.models.vae import VaeStep
from minigen.reference import random
from minigen.reference_backend import NumpyBackend
from minigen.training.run import TrainingRun


def layers_of(spec: Spec) -> dict[str, list[Layer]]:
    """Of both networks, by name."""
    first, second = spec.networks
    if spec.model == "vae":
        return {"encoder": dense_layers(first, "relu", "linear"), "decoder": dense_layers(second, "relu", "linear")}
    hidden = Hidden("batch") if spec.model == "gan-batch-norm" else Hidden()
    layers = {
        "generator": dense_layers(first, "relu", "tanh", hidden),
        "discriminator": dense_layers(second, "relu", "linear"),
    }
    if spec.model != "gan-conditional":
        return layers
    condition = Condition(CLASSES, labelled=True)
    return {name: with_condition_beside_input(own, condition) for name, own in layers.items()}


def trained(network: Network) -> list[str]:
    """Names of the parameters that `bench.spec` counts: no running statistics, and no bias before a normalization."""
    normalized = {f"{network.name}.{i - 1}.b" for i, layer in enumerate(network.layers) if "gamma" in layer.shapes}
    names = [f"{layer.name}.{name}" for layer in network.layers for name in layer.shapes]
    return [name for name in names if name not in normalized]


class Given:
    """A backend whose draws are given: row numbers and normals come from the check instead of the generator."""

    def __init__(self, ops: Backend, rows: np.ndarray, normals: list[np.ndarray], places: np.ndarray | None) -> None:
        self.ops, self.rows, self.normals, self.places = ops, rows, normals, places

    def batch_indices(self, indices: Any, *order: Any) -> None:
        self.ops.upload(self.rows.astype(np.int32), out=indices)

    def random_normal(self, out: Any, *key: Any) -> None:
        self.ops.upload(self.normals.pop(0), out=out)

    def random_uniform(self, out: Any, *key: Any) -> None:
        self.ops.upload(self.places, out=out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)


class Contender:
    algorithm = "common"
    computes_on: str | None = None
    """The device that computes, where it is not the one of the cell's device."""
    precision: str | None = None
    """Of matrix products, where it is not the cell's."""

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.spec = spec
        if spec.device == "cpu" and self.computes_on is None:
            minigen.set_num_threads(spec.threads)
        self.ops: Any = self.backend()
        self.data = data[: spec.whole_rows]
        self.networks = [Network(self.ops, name, layers) for name, layers in layers_of(spec).items()]
        self.reseed(0)
        self.reset(weights)

    def reseed(self, attempt: int) -> None:
        """A training with draws of its own: `reset` comes next."""
        spec, s = self.spec, self.spec.adam
        settings = OptimizerSettings("adam", learning_rate=s["lr"], beta1=s["beta1"], beta2=s["beta2"], eps=s["eps"])
        kind: Any = VaeStep if spec.model == "vae" else GanStep
        scale, shift = spec.range
        self.seed = spec.seed + attempt
        step = kind(
            self.ops,
            *self.networks,
            self.data,
            batch_size=spec.batch,
            settings=settings,
            seed=self.seed,
            scale=scale,
            shift=shift,
            **self.more(),
        )
        self.training = TrainingRun(step)
        self.fresh = self.training.state()

    def more(self) -> dict[str, Any]:
        """What a variant's step takes beside the others' arguments."""
        spec = self.spec
        if spec.model == "gan-conditional":
            return {"conditions": labels(spec)[: spec.whole_rows]}
        variants = {"gan-r1": {"r1": R1_WEIGHT}, "wgan-gp": {"loss": "wasserstein", "gradient_penalty": PENALTY_WEIGHT}}
        return variants.get(spec.model, {})

    def backend(self) -> Any:
        if self.spec.device == "cpu":
            return get_backend(self.computes_on or "cpu", self.precision or "ieee")
        from minigen.cuda import CudaBackend

        return CudaBackend(precision=self.precision or self.spec.precision)

    def reset(self, weights: list[np.ndarray]) -> None:
        self.training.load_state(self.fresh)
        given = iter(weights)
        for network in self.networks:
            state = network.state()
            # Before a normalization a bias does nothing and stays 0; running statistics begin at 0 and 1.
            fresh = {key: np.full_like(value, key.endswith("running_var")) for key, value in state.items()}
            network.load_state(fresh | {key: next(given) for key in trained(network)})

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The step spelled out, operation by operation, on given draws."""
        training = self.training
        for rows, normals in zip(indices, noise, strict=True):
            normals, places = self.spec.parts(normals)
            self.compute_with(Given(self.ops, rows, [normals.reshape(-1, normals.shape[-1])], places))
            training.step.compute(self.spec.batch)
            training.done += 1
        self.compute_with(self.ops)
        losses = training.recent_losses(len(indices))
        if self.spec.model == "vae":
            return losses[:, :1]
        losses[:, 0] += losses[:, 2:].sum(axis=1)  # the penalty, which is the discriminator's
        return losses[:, :2]

    def compute_with(self, ops: Any) -> None:
        """The step, and its penalty, which draws places itself, call ``ops`` from now on."""
        for part in (self.training.step, getattr(self.training.step, "penalty", None)):
            if part is not None:
                part.ops = ops

    def draws(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """What the captured step draws first, as the reference draws it."""
        spec, reference = self.spec, NumpyBackend()
        indices = np.empty((steps, spec.batch), np.int32)
        noise = np.empty((steps, *spec.noise_shape), np.float32)
        for k in range(steps):
            step = np.array([k], np.uint64)
            order = (self.seed, random.ORDER, step, spec.batch, self.training.steps_per_epoch)
            reference.batch_indices(indices[k], spec.whole_rows, *order)
            if spec.model == "vae":
                reference.random_normal(noise[k], self.seed, random.LATENT, step)
                continue
            normals, places = spec.parts(noise[k])
            both = normals.reshape(-1, spec.latent)  # D's rows, then G's: one draw
            reference.random_normal(both, self.seed, random.NOISE, step)
            if places is not None:
                reference.random_uniform(places, self.seed, random.INTERPOLATION, step)
        return indices, noise

    def run(self, steps: int) -> None:
        training = self.training
        while steps:
            left = training.steps_per_epoch - training.done % training.steps_per_epoch
            now = min(steps, left, training.most_steps)
            training.run(now)
            steps -= now
        self.ops.download(training.step.counter)  # waits

    def weights(self) -> list[np.ndarray]:
        return [network.state()[key] for network in self.networks for key in trained(network)]

    def device_peak_bytes(self) -> int | None:
        """Of the arena, where all of minigen's buffers lie: the step has nothing in CuPy's pool."""
        if self.ops.name != "cuda":
            return None
        return self.ops.executor.arena.peak

    def versions(self) -> dict[str, Any]:
        isa = {"minigen's instruction set": self.ops.isa} if self.ops.name == "cpu" else {}
        return {"minigen": minigen.__version__} | isa
