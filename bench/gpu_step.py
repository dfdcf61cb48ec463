"""The training steps that the stages of ``bench/gpu.sh`` run, and the memory that their launches touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.gpu_result import rehearsing

PRECISION = "tf32x3"
BATCH, COLUMNS = (16, 20) if rehearsing() else (128, 784)
MODELS: dict[str, dict[str, Any]] = {
    "gan": {"latent_dim": 100, "hidden": (128,)},
    "vae": {"latent_dim": 20, "hidden": (400,)},
}
"""The article's GAN and the VAE beside it."""
if rehearsing():
    MODELS = {"gan": {"latent_dim": 6, "hidden": (8,)}, "vae": {"latent_dim": 5, "hidden": (8,)}}
FEW_ROWS = 5 * BATCH
"""Of the data set where outputs are compared. Whole batches: a smaller last one would be another program."""
MANY_ROWS = (4 if rehearsing() else 468) * BATCH


def pixels(rows: int) -> np.ndarray:
    """``uint8[rows, COLUMNS]``, the same on every machine: a multiplicative hash of each pixel's number.

    Not zeros: on those a card can be faster than it is on data.
    """
    numbers = np.arange(rows * COLUMNS, dtype=np.uint64)
    numbers *= np.uint64(0x9E3779B97F4A7C15)
    numbers ^= numbers >> np.uint64(29)
    numbers *= np.uint64(0xBF58476D1CE4E5B9)
    return (numbers >> np.uint64(56)).astype(np.uint8).reshape(rows, COLUMNS)


def training_on(model: str, ops: Any, rows: np.ndarray) -> Any:
    """A training from its first step on; nothing has run yet."""
    from minigen.cuda.tools.explain import training_of

    return training_of(model, ops, rows, MODELS[model] | {"batch_size": BATCH, "seed": 0})


def launches_of(training: Any) -> tuple[Any, ...]:
    """The launches of one step."""
    return training.ops.schedule(lambda: training.step.compute(BATCH)).launches


class Touched:
    """The buffers that launches are given, each once. ``places[i]`` are those of launch ``i``, as numbers."""

    def __init__(self, launches: Sequence[Any], executor: Any) -> None:
        self.buffers: list[Any] = []
        seen: dict[Any, int] = {}
        self.places: list[list[int]] = []
        for launch in launches:
            here = []
            for argument in launch.args:
                if not isinstance(argument, executor.array_type):
                    continue
                key = executor.address(argument), argument.shape, str(argument.dtype)
                if key not in seen:
                    seen[key] = len(self.buffers)
                    self.buffers.append(argument)
                here.append(seen[key])
            self.places.append(list(dict.fromkeys(here)))

    def shapes(self) -> list[list[Any]]:
        """Of each buffer, for comparison with another plan of the same step."""
        return [[list(buffer.shape), str(buffer.dtype)] for buffer in self.buffers]
