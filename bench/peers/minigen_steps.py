"""minigen: the training step of `minigen.models`, captured once and repeated by the backend."""

from __future__ import annotations

from typing import Any

import numpy as np

import minigen
from bench.spec import Spec
from minigen.backend import Backend
from minigen.device import get_backend
from minigen.models.gan import GanStep
from minigen.models.network import Network, dense_layers
from minigen.models.optimizer import OptimizerSettings
from minigen.models.vae import VaeStep
from minigen.reference import random
from minigen.reference_backend import NumpyBackend
from minigen.training.run import TrainingRun


class Given:
    """A backend whose draws are given: row numbers and normals come from the check instead of the generator."""

    def __init__(self, ops: Backend, rows: np.ndarray, normals: list[np.ndarray]) -> None:
        self.ops, self.rows, self.normals = ops, rows, normals

    def batch_indices(self, indices: Any, *order: Any) -> None:
        self.ops.upload(self.rows.astype(np.int32), out=indices)

    def random_normal(self, out: Any, *key: Any) -> None:
        self.ops.upload(self.normals.pop(0), out=out)

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
        gan = spec.model == "gan"
        names = ("generator", "discriminator") if gan else ("encoder", "decoder")
        outputs = ("tanh" if gan else "linear", "linear")
        self.networks = [
            Network(self.ops, name, dense_layers(sizes, "relu", output))
            for name, sizes, output in zip(names, spec.networks, outputs, strict=True)
        ]
        self.reseed(0)
        self.reset(weights)

    def reseed(self, attempt: int) -> None:
        """A training with draws of its own: `reset` comes next."""
        spec, s = self.spec, self.spec.adam
        settings = OptimizerSettings("adam", learning_rate=s["lr"], beta1=s["beta1"], beta2=s["beta2"], eps=s["eps"])
        kind: Any = GanStep if spec.model == "gan" else VaeStep
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
        )
        self.training = TrainingRun(step)
        self.fresh = self.training.state()

    def backend(self) -> Any:
        if self.spec.device == "cpu":
            return get_backend(self.computes_on or "cpu", self.precision or "ieee")
        from minigen.cuda import CudaBackend

        return CudaBackend(precision=self.precision or self.spec.precision)

    def reset(self, weights: list[np.ndarray]) -> None:
        self.training.load_state(self.fresh)
        given = iter(weights)
        for network in self.networks:
            network.load_state({key: next(given) for key in network.state()})

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The step spelled out, operation by operation, on given draws."""
        training = self.training
        for rows, normals in zip(indices, noise, strict=True):
            training.step.ops = Given(self.ops, rows, [normals.reshape(-1, normals.shape[-1])])
            training.step.compute(self.spec.batch)
            training.done += 1
        training.step.ops = self.ops
        losses = training.recent_losses(len(indices))
        return losses if self.spec.model == "gan" else losses[:, :1]

    def draws(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """What the captured step draws first, as the reference draws it."""
        spec, reference = self.spec, NumpyBackend()
        indices = np.empty((steps, spec.batch), np.int32)
        noise = np.empty((steps, *spec.noise_shape), np.float32)
        for k in range(steps):
            step = np.array([k], np.uint64)
            order = (self.seed, random.ORDER, step, spec.batch, self.training.steps_per_epoch)
            reference.batch_indices(indices[k], spec.whole_rows, *order)
            if spec.model == "gan":
                both = noise[k].reshape(-1, noise.shape[-1])  # D's rows, then G's: one draw
                reference.random_normal(both, self.seed, random.NOISE, step)
            else:
                reference.random_normal(noise[k], self.seed, random.LATENT, step)
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
        return [w for network in self.networks for w in network.state().values()]

    def device_peak_bytes(self) -> int | None:
        """Of the arena, where all of minigen's buffers lie: the step has nothing in CuPy's pool."""
        if self.ops.name != "cuda":
            return None
        return self.ops.executor.arena.peak

    def versions(self) -> dict[str, Any]:
        isa = {"minigen's instruction set": self.ops.isa} if self.ops.name == "cpu" else {}
        return {"minigen": minigen.__version__} | isa
