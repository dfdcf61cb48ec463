"""Where the caller's arrays lie, and how a backend takes and returns them.

Data, latents and results of a model are on the host or, where the caller has put them there, in the memory of the GPU
that the model computes on. A backend takes both, and answers where it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigen.datasets.load import as_numbers, as_rows, check_on_host

Array = Any


class Placement:
    """A backend's methods for arrays of its callers.

    As they stand they are those of a backend that computes on the host, where every array of a caller lies. The
    backend of a GPU overrides the first four.
    """

    dtype: np.dtype[Any]

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Copy ``host`` into the backend's memory, see :meth:`minigen.backend.Backend.upload`."""
        raise NotImplementedError

    def download(self, buffer: Array) -> np.ndarray:
        """A new host array with the contents of ``buffer``."""
        raise NotImplementedError

    def holds(self, array: Any) -> bool:
        """Whether the caller's ``array`` lies in the memory of the GPU of this backend."""
        return False

    @contextmanager
    def on_device_of(self, array: Any) -> Iterator[Callable[[Array], Array]]:
        """Compute with ``array`` where it lies: NumPy's functions then call those of its own library.

        Yields a function that makes a result ready for the caller.
        """
        # Networks answer what is far outside of their data with what they can: infinities are results, not warnings.
        with np.errstate(all="ignore"):
            yield lambda result: result

    def rows_of(self, X: Any, name: str, min_rows: int) -> tuple[Array, tuple[int, ...]]:
        """``X`` as rows, where it lies, and the shape of an item, see :func:`minigen.datasets.as_rows`."""
        return as_rows(X, name=name, min_rows=min_rows)

    def vectors_of(self, z: Any, name: str) -> Array:
        """``z`` as float32, where it lies. Raises TypeError or ValueError for what are no finite numbers."""
        check_on_host(name, z)
        return as_numbers(name, z, np.float32)

    # --- for all backends -----------------------------------------------------------------------

    def to_device_of(self, rows: Array, host: np.ndarray) -> Array:
        """``host``, an array of the host, where ``rows`` lie."""
        return self.upload(host) if self.holds(rows) else host

    def to_host(self, array: Array) -> np.ndarray:
        """The caller's ``array`` on the host."""
        return self.download(array) if self.holds(array) else np.asarray(array)

    def operand(self, x: Array, dtype: Any = None) -> Array:
        """The caller's ``x`` as a buffer for an operation, contiguous and of ``dtype`` (None: the backend's own)."""
        if self.holds(x):
            return x if x.flags.c_contiguous else x.copy()
        return self.upload(np.ascontiguousarray(x, self.dtype if dtype is None else dtype))

    def result(self, buffer: Array, x: Array) -> Array:
        """What an operation wrote into ``buffer``, where the caller's ``x`` lies."""
        return buffer if self.holds(x) else self.download(buffer)
