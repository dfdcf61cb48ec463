"""More rows of rare classes, by the latents of one VAE of all classes, or from a VAE with labels.

``"transfer"`` gives a rare class the variation that is seen in classes with many rows. With ``z_i`` the latent of a row
of the rare class and ``z_k`` that of a row of a larger class, whose mean latent is ``m``::

    z = z_i + 0.75 (z_k - m)

Between two rows of the rare class itself, ``"interpolate"``, there is little that a classifier has not seen, and it
lies nearer to their mean than real rows do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen import checks
from minigen.datasets import frames
from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.estimators.conditions import Labels, learn
from minigen.estimators.sklearn_protocol import Parameters
from minigen.estimators.vae import VAE
from minigen.reference_backend import NumpyBackend

METHODS = ("transfer", "interpolate", "generate")
SHARE = 0.75  # of z_k - m


class Oversampler(Parameters):
    """Adds made rows to rare classes, in the form of imbalanced-learn's samplers.

    >>> X_more, y_more = minigen.Oversampler().fit_resample(X, y)

    Parameters
    ----------
    method : ``"transfer"``: one VAE learns the rows of all classes, and a new row is decoded from the latent of a row
        of its class plus three quarters of the difference between the latent of a row of a class at least as large and
        that class's mean; ``"interpolate"``: from a place between the latents of two rows of its class;
        ``"generate"``: a VAE with labels draws it
    sampling_strategy : ``"auto"``: as many rows of each class as the largest has; or a dictionary from classes to
        numbers of rows, those that are there included
    neighbours : of ``"interpolate"``, among how many of the nearest rows of the class, by latents, the second row is
        chosen; 0: any of the class
    steps : training steps of the VAE, whatever the number of rows; whole epochs, so that a few more may be done
    seed : of training, pairs and places
    model : the VAE to train, for other settings than those that suit the data; a copy with ``seed`` is trained, and its
        ``epochs`` stand in place of ``steps``

    After ``fit_resample``, ``model_`` is the trained VAE.
    """

    model_: VAE

    def __init__(
        self,
        *,
        method: str = "transfer",
        sampling_strategy: str | dict[Any, int] = "auto",
        neighbours: int = 0,
        steps: int = 3000,
        seed: int = 0,
        model: VAE | None = None,
    ) -> None:
        self.method = method
        self.sampling_strategy = sampling_strategy
        self.neighbours = neighbours
        self.steps = steps
        self.seed = seed
        self.model = model

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """The rows ``X[N, ...]`` with labels ``y[N]``, and after them the new rows and theirs, class by class.

        New rows have the type and units of ``X``; whole numbers are rounded. Of a DataFrame the result is one too.
        Raises ``TypeError`` or ``ValueError`` for bad settings or data, before any training.
        """
        self._check_params()
        rows, item_shape = as_rows(X, name="X", min_rows=2)
        known = learn(y, len(rows), NumpyBackend())
        if not isinstance(known, Labels):
            raise ArgumentError("y", "must be labels, one a row, not numbers [N, C]")
        codes, classes = known.codes("y", y, len(rows)), np.array(known.classes)
        missing = self._missing(known)
        items = rows.reshape(-1, *item_shape)
        made = [items[:0]]
        if any(missing):
            labels = classes[codes]
            self.model_ = self._model(items).fit(items, labels if self.method == "generate" else None, progress=False)
            new = {"transfer": self._transferred, "interpolate": self._interpolated, "generate": self._generated}
            rng = np.random.default_rng(self.seed)
            made += [new[self.method](items, codes, code, n, classes, rng) for code, n in enumerate(missing) if n]
        added = np.concatenate(made)
        return self._joined(X, items, added), np.concatenate([classes[codes], np.repeat(classes, missing)])

    def _check_params(self) -> None:
        checks.choice("method", self.method, METHODS)
        checks.integer("neighbours", self.neighbours, 0)
        checks.integer("steps", self.steps, 1)
        checks.seed("seed", self.seed)
        if self.model is not None and not isinstance(self.model, VAE):
            raise ArgumentTypeError("model", f"must be a minigen.VAE or None, not {self.model!r}")
        if not isinstance(self.sampling_strategy, dict) and self.sampling_strategy != "auto":
            raise ArgumentError("sampling_strategy", f"must be 'auto' or a dictionary, not {self.sampling_strategy!r}")

    def _missing(self, known: Labels) -> list[int]:
        """How many rows of each class are to be made."""
        if not isinstance(self.sampling_strategy, dict):
            return [max(known.counts) - count for count in known.counts]
        for name in self.sampling_strategy:
            checks.choice("sampling_strategy", name, known.classes)
        wanted = [self.sampling_strategy.get(c, n) for c, n in zip(known.classes, known.counts, strict=True)]
        pairs = zip(known.classes, wanted, known.counts, strict=True)
        return [checks.integer(f"sampling_strategy[{c!r}]", n, count) - count for c, n, count in pairs]

    def _model(self, items: np.ndarray) -> VAE:
        """The VAE to train on ``items``."""
        if self.model is not None:
            return VAE(**self.model.get_params() | {"seed": self.seed})
        batch = min(128, len(items))
        settings: dict[str, Any] = {"batch_size": batch, "epochs": -(-self.steps // -(-len(items) // batch))}
        if items.dtype != np.uint8:
            width = items[0].size
            settings |= {"likelihood": "gaussian", "variance": "learned_scalar", "hidden": (128,)}
            settings |= {"latent_dim": min(8, width), "learning_rate": 2e-3}
        return VAE(seed=self.seed, **settings)

    def _transferred(
        self, items: np.ndarray, codes: np.ndarray, code: int, n: int, classes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """``n`` rows of a class that vary as those of larger classes do."""
        z = np.asarray(self.model_.encode(items))
        counts = np.bincount(codes)
        sums = np.zeros((len(counts), z.shape[1]))
        np.add.at(sums, codes, z)
        first = rng.choice(np.flatnonzero(codes == code), n)
        other = rng.choice(np.flatnonzero(counts[codes] >= counts[code]), n)
        means = sums / counts[:, None]
        moved = z[first] + SHARE * (z[other] - means[codes[other]])
        return np.asarray(self.model_.decode(moved.astype(np.float32)))

    def _interpolated(
        self, items: np.ndarray, codes: np.ndarray, code: int, n: int, classes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """``n`` rows between the latents of two rows of a class; of a class of a single row, its reconstruction."""
        z = np.asarray(self.model_.encode(items[codes == code]))
        first = rng.integers(0, len(z), n)
        others = len(z) - 1 if not self.neighbours else min(self.neighbours, len(z) - 1)
        if others < 1:
            second = first
        elif not self.neighbours:
            second = (first + rng.integers(1, len(z), n)) % len(z)
        else:
            distances = np.square(z[:, None] - z[None]).sum(axis=2)
            np.fill_diagonal(distances, np.inf)
            second = distances.argsort(axis=1)[first, rng.integers(0, others, n)]
        place = rng.random((n, 1), np.float32)
        return np.asarray(self.model_.decode(z[first] + place * (z[second] - z[first])))

    def _generated(
        self, items: np.ndarray, codes: np.ndarray, code: int, n: int, classes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """``n`` rows of a class as the conditional model draws them."""
        return np.asarray(self.model_.sample(n, seed=int(rng.integers(checks.SEED_LIMIT)), y=classes[code]))

    def _joined(self, X: Any, items: np.ndarray, added: np.ndarray) -> Any:
        """``added`` below the rows of ``X``, in the form of ``X``."""
        library = frames.library_of(X)
        if library is not None:
            names = frames.column_names(X)
            return frames.as_frame(np.concatenate([items, added]), library, None if names is None else list(names))
        old = X if isinstance(X, np.ndarray) else items
        whole = old.dtype.kind in "biu"
        return np.concatenate([old, (np.rint(added) if whole else added).astype(old.dtype)])


def augment(X: Any, y: Any, **settings: Any) -> tuple[Any, np.ndarray]:
    """``X`` and ``y`` with new rows of the rare classes below: :meth:`Oversampler.fit_resample` of these settings.

    >>> X_more, y_more = minigen.augment(X, y)
    """
    return Oversampler(**settings).fit_resample(X, y)
