"""A classifier of dense layers, trained by this engine: its last hidden layer gives features, its output classes.

A distance between pictures says more on what a classifier makes of them than on their pixels (Heusel et al. 2017). The
figures depend on the classifier, so only those of the same one compare; each knows its accuracy on held-out rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.datasets import fashion_mnist, mnist
from minigen.datasets.dataset import Dataset
from minigen.datasets.load import as_rows
from minigen.device import get_backend
from minigen.errors import ArgumentError
from minigen.models.hidden import dense_layers
from minigen.models.network import Network, Workspace
from minigen.models.optimizer import Optimizer, OptimizerSettings
from minigen.models.step import Step
from minigen.paths import cache_folder
from minigen.training import checkpoint
from minigen.training.progress import progress_bar
from minigen.training.run import TrainingRun

ROWS_AT_ONCE = 4096
NAMED: dict[str, Callable[..., Dataset]] = {"mnist": mnist, "fashion-mnist": fashion_mnist}
CLASSIFIED = tuple(NAMED)
WIDTHS = (512, 256)  # of the hidden layers; the last one's outputs are the features
BATCH, EPOCHS, SLOW_EPOCHS = 128, 12, 4  # the last ones at a tenth of the rate
RATE = 1e-3


class ClassifierStep(Step):
    """A step of ``network`` on pictures and their labels: softmax cross entropy, Adam.

    ``data[N, D]`` (uint8 or float) ``* scale + shift``, ``labels[N]`` in ``0 .. network.outputs - 1``.
    """

    terms = loss_names = ("cross entropy",)

    def __init__(
        self,
        ops: Backend,
        network: Network,
        data: np.ndarray,
        labels: np.ndarray,
        *,
        batch_size: int,
        settings: OptimizerSettings,
        seed: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        self.network = network
        self.optimizer = Optimizer(ops, network, settings)
        super().__init__(
            ops, data, (network,), [self.optimizer], batch_size, seed, drop_last=True, scale=scale, shift=shift
        )
        classes = network.outputs
        self.one_hot = ops.resident(np.eye(classes, dtype=np.uint8)[labels])
        self.ends = ops.upload(np.array([classes], np.int32))  # one block of columns
        self.x, self.target = ops.empty((batch_size, data.shape[1])), ops.empty((batch_size, classes))
        self.nats = ops.empty((batch_size,))
        self.work = network.workspace(batch_size)

    def compute(self, rows: int) -> None:
        self.gather(self.x)
        self.ops.batch_gather(self.one_hot, self.indices, self.target)
        logits = self.network.forward(self.x, self.work)
        self.ops.categorical_loss(logits, self.target, self.ends, self.work[-1].dz, self.nats, self.losses)
        self.network.backward(self.x, self.work)
        self.optimizer.update(self.counter)
        self.ops.advance(self.counter, self.losses, self.ring)

    def workspaces(self, rows: int) -> list[tuple[Network, Workspace]]:
        return [(self.network, self.work)]


class Classifier:
    """A trained classifier of pictures: ``classifier(items)`` are features, ``classifier.classes(items)`` classes.

    ``accuracy``: the share of held-out rows whose class it names.
    """

    def __init__(self, network: Network, accuracy: float = float("nan"), data: str = "") -> None:
        self.network, self.accuracy = network, accuracy
        self.__name__ = f"a classifier of {data}" if data else "a classifier"

    def __call__(self, items: np.ndarray) -> np.ndarray:
        """Features ``float32[n, F]`` of ``items[n, ...]``, uint8 or from 0 to 1: what the last hidden layer gives."""
        return self._outputs(items, -2)

    def classes(self, items: np.ndarray) -> np.ndarray:
        """The class of each of ``items[n, ...]``, ``int64[n]``."""
        return self._outputs(items, -1).argmax(axis=1)

    def _outputs(self, items: np.ndarray, layer: int) -> np.ndarray:
        ops = self.network.ops
        rows, _ = as_rows(items, name="items", min_rows=1)
        if rows.shape[1] != self.network.inputs:
            raise ArgumentError("items", f"must have {self.network.inputs} numbers each, not {rows.shape[1]}")
        scale = ops.dtype.type(255 if rows.dtype == np.uint8 else 1)
        work = self.network.workspace(min(len(rows), ROWS_AT_ONCE), grad_rows=0)
        out = []
        for a in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows[a : a + ROWS_AT_ONCE]
            part = work.rows(0, len(piece))
            x: Array = ops.upload(piece.astype(ops.dtype) / scale)
            self.network.forward(x, part)
            out.append(ops.download(part[layer].y))
        return np.concatenate(out)


def train_classifier(
    images: Any, labels: Any, held_out: tuple[Any, Any], *, epochs: int = EPOCHS, device: str = "auto", seed: int = 0
) -> Classifier:
    """A classifier of uint8 ``images[N, ...]`` with ``labels[N]``, whole numbers from 0; ``held_out`` are others.

    ``epochs`` passes at a learning rate of 1e-3, a third as many more at a tenth of it. Raises ``TypeError`` or
    ``ValueError`` for images that are not uint8 and for labels that are not one whole number an image.
    """
    rows, targets = _pictures("images", images, labels)
    test, truth = _pictures("held_out", *held_out)
    checks.integer("epochs", epochs, 1)
    ops = get_backend(device, "auto")
    network = _network(ops, rows.shape[1], int(targets.max()) + 1)
    network.initialize(checks.seed("seed", seed), "auto", 0)
    settings = OptimizerSettings(learning_rate=RATE)
    batch = min(BATCH, len(rows))
    step = ClassifierStep(ops, network, rows, targets, batch_size=batch, settings=settings, seed=seed, scale=1 / 255)
    run = TrainingRun(step)
    total = epochs + -(-epochs * SLOW_EPOCHS // EPOCHS)
    with progress_bar(total, None, unit="epoch", desc="classifier") as bar:
        for epoch in range(total):
            if epoch == epochs:
                step.set_learning_rate(RATE / 10)
            while run.done < (epoch + 1) * run.steps_per_epoch:
                run.run(min(run.steps_left, run.most_steps))
            bar.update(1)
    classifier = Classifier(network)
    classifier.accuracy = float((classifier.classes(test) == truth).mean())
    return classifier


def digit_features(name: str = "mnist", *, device: str = "auto") -> Classifier:
    """The classifier of a data set, ``"mnist"`` or ``"fashion-mnist"``: trained at the first call, then kept in a file.

    784-512-256 and one output a class, in rectifiers. The training set and the test set, which gives its accuracy, are
    found or downloaded as :func:`minigen.datasets.mnist` does. The file lies in the cache folder, ``$MINIGEN_CACHE`` or
    the system's.

    >>> minigen.metrics.evaluate(model, train, held_out, features=minigen.metrics.digit_features())
    """
    load = NAMED[checks.choice("name", name, NAMED)]
    path = cache_folder() / "classifiers" / f"{name}-{'-'.join(map(str, WIDTHS))}-{EPOCHS + SLOW_EPOCHS}.safetensors"
    if path.is_file():
        return _read(path, device, name)
    train, test = load("train"), load("test")
    classifier = train_classifier(train.images, train.labels, (test.images, test.labels), device=device)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"inputs": classifier.network.inputs, "classes": classifier.network.outputs}
    checkpoint.write(path, json.dumps({**shape, "accuracy": classifier.accuracy}), classifier.network.state())
    return Classifier(classifier.network, classifier.accuracy, name)


def _read(path: os.PathLike[str], device: str, name: str) -> Classifier:
    settings, tensors = checkpoint.read(path)  # type: ignore[arg-type]
    network = _network(get_backend(device, "auto"), settings["inputs"], settings["classes"])
    network.load_state(tensors)
    return Classifier(network, settings["accuracy"], name)


def _network(ops: Backend, inputs: int, classes: int) -> Network:
    return Network(ops, "classifier", dense_layers((inputs, *WIDTHS, classes), "relu", "linear"))


def _pictures(name: str, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, _ = as_rows(images, name=name)
    if rows.dtype != np.uint8:
        raise ArgumentError(name, f"must be uint8, not {rows.dtype}")
    targets = np.asarray(labels)
    if targets.dtype.kind not in "iu" or targets.shape != (len(rows),) or targets.min() < 0:
        raise ArgumentError(
            name, f"must have one whole number from 0 on as the label of each of its {len(rows)} images"
        )
    return rows, targets
