"""How good samples of pictures in ten classes are, as a classifier sees them that is trained here.

The classifier is a perceptron in PyTorch, 784-512-128-10; its last hidden layer, after the ReLU, gives 128 features
of a picture. In these, by `minigen.metrics`:

- the Frechet distance of two Gaussians with the sets' means and covariances (Heusel et al. 2017, equation 6):
  ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``. Its unit is the features', so that only distances by the same
  classifier may be compared;
- precision, the share of samples within the real pictures' support, and recall, the share of real pictures within
  the samples' (Kynkaanniemi et al. 2019, equations 1 and 2): the support is the union of balls around the pictures,
  each as wide as it is far to its third neighbour;
- the share of each class among the samples.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigen.metrics import frechet_distance, precision_recall

HIDDEN = (512, 128)
EPOCHS = 20
SURE = 0.9
"""Of the classifier: a sample whose most likely class is less likely than this counts as doubtful."""

Features = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def cache_folder() -> Path:
    """The folder of trained classifiers: ``$MINIGEN_BENCH_CLASSIFIERS``, else in the user's cache."""
    chosen = os.environ.get("MINIGEN_BENCH_CLASSIFIERS")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minigen-classifiers"


class Classifier:
    """The perceptron, trained on ``images[N, ...]`` (uint8) and ``labels[N]``, or read from ``folder``.

    Its file is named after a digest of the data and the settings, so that another training set gets another classifier.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, epochs: int = EPOCHS, folder: Path | None) -> None:
        import torch
        from torch import nn

        self.torch = torch
        sizes = (images[0].size, *HIDDEN)
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(0.2)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(sizes[-1], 10)
        self.net = nn.Sequential(self.body, self.head)
        digest = hashlib.sha256(repr((sizes, epochs)).encode() + images.tobytes() + labels.tobytes()).hexdigest()
        file = folder and folder / f"{digest[:16]}.pt"
        if file and file.exists():
            self.net.load_state_dict(torch.load(file, weights_only=True))
        else:
            self.train(images, labels, epochs)
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                temporary = file.with_name(f".{file.name}.{os.getpid()}")
                torch.save(self.net.state_dict(), temporary)
                temporary.replace(file)
        self.net.eval()

    def train(self, images: np.ndarray, labels: np.ndarray, epochs: int, batch: int = 128) -> None:
        torch = self.torch
        torch.manual_seed(0)
        for module in self.net.modules():
            if isinstance(module, torch.nn.Linear):
                module.reset_parameters()
        x, y = self.rows(images), torch.from_numpy(labels.astype(np.int64))
        adam = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        steps = -(-len(x) // batch) * epochs
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        self.net.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(batch):
                adam.zero_grad()
                torch.nn.functional.cross_entropy(self.net(x[rows]), y[rows]).backward()
                adam.step()
                decay.step()

    def rows(self, images: np.ndarray) -> Any:
        flat = np.ascontiguousarray(images).reshape(len(images), -1)
        return self.torch.from_numpy(flat.astype(np.float32) / 255)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``features[N, 128]`` in float64 and the classes' ``probabilities[N, 10]`` of ``images[N, ...]`` in uint8."""
        with self.torch.no_grad():
            features = self.body(self.rows(images))
            probabilities = self.torch.softmax(self.head(features), dim=1)
        return features.double().numpy(), probabilities.numpy()

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        return float((self(images)[1].argmax(axis=1) == labels).mean())


class Judge:
    """What real pictures are like, and how far samples are from them."""

    def __init__(self, features: Features, images: np.ndarray, support: int = 10_000) -> None:
        """``support`` of the real ``images`` are taken for precision and recall, all for the Frechet distance."""
        self.features = features
        self.real, _ = features(images)
        rows = np.random.default_rng(0).permutation(len(images))[:support]
        self.support = self.real[rows]

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        features, probabilities = self.features(images)
        precision, recall = precision_recall(features, self.support)
        classes = np.bincount(probabilities.argmax(axis=1), minlength=10) / len(images)
        return {
            "frechet_distance": frechet_distance(features, self.real),
            "precision": precision,
            "recall": recall,
            "classes": [round(float(share), 4) for share in classes],
            "doubtful": float((probabilities.max(axis=1) < SURE).mean()),
        }
