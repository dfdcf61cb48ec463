"""A labelled set of pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Pictures with their classes. NumPy sees the pictures: ``np.asarray(dataset)`` is ``dataset.images``, not copied.

    ``images[N, height, width]`` and ``labels[N]`` are uint8; ``classes[label]`` is a class's name; ``origin`` says
    where the data were found.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    origin: str

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``images``."""
        return self.images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Pictures as NumPy's indexing gives them: ``dataset[:1000]``, ``dataset[dataset.labels == 7]``."""
        return self.images[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.images, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"Dataset({self.name!r}, {size} {self.images.dtype}, {len(self.classes)} classes, from {self.origin})"
