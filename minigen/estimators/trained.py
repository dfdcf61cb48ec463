"""What a trained model does with data and latents: it checks them, converts units, and applies its networks."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

import numpy as np

from minigen import checks, output, plotting
from minigen.backend import Array, Backend
from minigen.datasets import frames
from minigen.errors import ArgumentError
from minigen.estimators import inputs, scaling, sklearn_protocol
from minigen.estimators.conditions import Conditions
from minigen.estimators.scaling import Columns
from minigen.estimators.settings import Settings
from minigen.models.layers import INFERENCE, Context
from minigen.models.network import Network
from minigen.notebook import estimator_html
from minigen.reference import random
from minigen.training.history import History

ROWS_AT_ONCE = 4096  # rows that sampling and scoring hold in memory at a time


class TrainedModel(Settings):
    """The half of an estimator that uses its networks, which ``fit`` and :func:`minigen.load` make.

    Attributes after ``fit`` or :func:`minigen.load`: ``history_``, ``item_shape_`` (shape of one sample),
    ``n_features_in_`` (numbers in one sample), ``data_dtype_`` (what samples come back as: ``uint8``, ``float32``, or
    that of zeros and ones), ``binary_`` (whether the data were zeros and ones), ``columns_`` (mean and standard
    deviation of each column, where the data were standardised, else ``None``), ``device_`` and ``precision_`` (the
    backend in use, and how it takes matrix products), ``source_`` (the name of the data, where the command line gave
    one).
    ``feature_names_in_`` are the names of the columns, where the training data were a table that has such;
    ``classes_`` are the labels of a model that was trained with labels, in order, else ``None``.
    ``frame_`` is ``"pandas"`` or ``"polars"`` where they were a DataFrame: what the model makes in the data's units
    then comes back as one, or as an array where that library is not installed; set to ``None`` always as an array.
    """

    fitted_from_data: ClassVar[tuple[str, ...]] = ("scale_", "shift_")
    """What ``fit`` decides from the data: from uint8 to the range of the model, ``x * scale_ + shift_``."""

    scale_: float
    shift_: float
    feature_names_in_: np.ndarray
    frame_: str | None
    columns_: Columns | None
    conditions_: Conditions | None
    classes_: np.ndarray | None
    history_: History
    networks_: tuple[Network, ...]
    _ops: Backend
    item_shape_: tuple[int, ...]
    n_features_in_: int
    data_dtype_: np.dtype[Any]

    def _in_range(self, rows: Array, *from_data: Any) -> Array:
        """Floating ``rows``, clipped to what the model can reach where rounding has carried them out of it; uint8 as
        they are. Raises ValueError for others."""
        raise NotImplementedError

    def sample(self, n: int = 1, seed: int | None = None, *, y: Any = None, balanced: bool = False) -> np.ndarray:
        """``n`` new samples, ``[n, ...]`` in the units, type and shape of the training data."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """For notebooks."""
        return estimator_html(self)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn 1.6 and newer ask of an estimator in a pipeline or a search; only they call this."""
        return sklearn_protocol.tags(transformer=hasattr(self, "transform"))

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted()

    # --- is it trained, and on what -------------------------------------------------------------

    def _column_names(self) -> list[str] | None:
        return list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None

    def _fitted(self) -> bool:
        return hasattr(self, "networks_")

    def _require_fit(self) -> None:
        if not self._fitted():
            message = f"this {type(self).__name__} is not trained yet: call fit, or minigen.load a file"
            raise sklearn_protocol.not_fitted(message)

    def _check_rows(self, X: Any, name: str = "X") -> Array:
        """Rows of data for a fitted model, in the units that the data of the training had."""
        return self._rows_and_shape(X, name)[0]

    def _rows_and_shape(self, X: Any, name: str = "X") -> tuple[Array, tuple[int, ...]]:
        """The same, and the shape of an item of ``X``: that of the training data, or flat."""
        frames.check_columns(name, X, self._column_names())
        values = scaling.bits_as_bytes(X)[0] if self.binary_ else X
        rows, item_shape = self._ops.rows_of(values, name, min_rows=1)
        inputs.check_items(self, name, item_shape)
        if self.binary_:
            if rows.dtype != np.uint8 or rows.max() > 1:
                raise ArgumentError(name, "must be zeros and ones in bool or integers, like the data of the training")
            return rows, item_shape
        rows = inputs.in_trained_type(self, name, values, rows)
        if rows.dtype == np.uint8 or self.columns_ is not None:
            return rows, item_shape
        return self._in_range(rows, *(getattr(self, attribute) for attribute in self.fitted_from_data)), item_shape

    # --- from the data's units to the networks and back ----------------------------------------

    # What follows takes arrays of the host and, inside of ``on_device_of``, of the model's GPU: NumPy's functions then
    # call CuPy's of the same name.

    def _apply(self, net: Network, x: Array, codes: np.ndarray | None = None, *, data: bool = False) -> Array:
        """Output of ``net`` for rows ``x``, a piece at a time; ``data`` are in the units of the training's data, and
        ``codes`` the rows' conditions as the networks take them."""
        out = np.empty_like(x, np.float32, shape=(len(x), net.outputs))
        most = min(len(x), ROWS_AT_ONCE)
        context = self._context(None if codes is None else codes[:most])
        work = net.workspace(most, grad_rows=0, context=context)
        for a in range(0, len(x), ROWS_AT_ONCE):
            b = min(a + ROWS_AT_ONCE, len(x))
            if codes is not None and a:
                self._ops.upload(codes[a:b], out=context.condition[: b - a])  # type: ignore[index]
            rows = self._ops.operand(self._to_model(x[a:b]) if data else x[a:b])
            out[a:b] = self._ops.result(net.forward(rows, work.rows(0, b - a)), x)
        return out

    def _context(self, codes: np.ndarray | None) -> Context:
        """Of rows with these conditions, which are not trained on."""
        if codes is None:
            return INFERENCE
        return Context(condition=self._ops.upload(codes if codes.ndim == 1 else codes.astype(self._ops.dtype)))

    def _condition_codes(self, y: Any, rows: int) -> np.ndarray | None:
        """The conditions ``y`` of ``rows`` rows as the networks take them; None for a model without."""
        if self.conditions_ is None:
            if y is not None:
                raise ArgumentError("y", "must be None: the model was trained without labels, and does not know any")
            return None
        if y is None:
            what = "the rows' labels" if self.classes_ is not None else "the numbers beside the rows"
            raise ArgumentError(
                "y",
                f"must be given, {what}: the model was trained with them. In a pipeline whose labels are for a later "
                "step, conditional=False trains without",
            )
        return self.conditions_.codes("y", y, rows)

    def _codes_to_sample(self, n: int, seed: int, y: Any, balanced: bool) -> np.ndarray | None:
        """The conditions of ``n`` new samples: those of ``y``, each class in turn, or labels as frequent as in the data
        of the training."""
        if checks.choice("balanced", balanced, (True, False)):
            if self.classes_ is None or y is not None:
                reason = "the model has no labels" if self.classes_ is None else "y says which labels"
                raise ArgumentError("balanced", f"must be False: {reason}")
            return self.conditions_.balanced(n)  # type: ignore[union-attr]
        if y is None and self.classes_ is not None:
            return self.conditions_.draw(self._uniform((n,), seed, random.LABELS, block=0))  # type: ignore[union-attr]
        return self._condition_codes(y, n)

    @property
    def binary_(self) -> bool:
        """Whether the data of the training were zeros and ones, in bool or integers."""
        return self.data_dtype_ != np.float32 and self.scale_ >= 1  # of bytes, 255 is as far from 0

    def _latents(self, z: Any) -> Array:
        """``z[n, latent_dim]`` as float32. Raises ValueError for another shape."""
        z = self._ops.vectors_of(z, "z")
        width = self._frozen["latent_dim"]
        if z.ndim != 2 or z.shape[1] != width:
            raise ArgumentError("z", f"must have shape (n, {width}), not {z.shape}")
        return z

    def _standardised(self, rows: Array) -> Array:
        """``rows`` with the columns' mean and scale of the training taken out, where it did that."""
        return rows if self.columns_ is None else self.columns_.standardise(rows, self._ops)

    def _to_model(self, rows: Array) -> Array:
        """From the data's own units to the model's range."""
        if rows.dtype != np.uint8:
            return self._standardised(rows)
        return rows * np.float32(self.scale_) + np.float32(self.shift_)

    def _to_data(self, rows: Array) -> Array:
        """From the model's range to the data's own units, type and item shape.

        For data of zeros and ones the result is float32, between them. Raises ValueError where uint8 data would have to
        hold a NaN, which the networks give where they overflow.
        """
        if self.columns_ is not None:
            rows = self.columns_.restore(rows, self._ops)
        if self.data_dtype_ != np.float32:
            rows = (rows - np.float32(self.shift_)) / np.float32(self.scale_)
            if not self.binary_:
                bad = np.isnan(rows).any(axis=1)
                if bad.any():
                    raise ValueError(f"row {int(bad.argmax())} lies too far out: what the model makes of it is NaN")
                rows = np.clip(np.rint(rows), 0, 255).astype(np.uint8)
        return rows.reshape(len(rows), *self.item_shape_)

    def _as_frame(self, rows: Array) -> Any:
        """``rows`` as a DataFrame where the training data were one. CuPy's arrays stay."""
        if self.frame_ is None or not isinstance(rows, np.ndarray):
            return rows
        return frames.as_frame(rows, self.frame_, self._column_names())

    def _rounded_if_binary(self, items: Array) -> Array:
        """``items``, in the units of the data; for data of zeros and ones rounded to these, in the data's type."""
        return (items > 0.5).astype(self.data_dtype_) if self.binary_ else items

    def _normal(self, shape: tuple[int, ...], seed: int | None, stream: int, block: int = 0) -> np.ndarray:
        """Standard normals on the host from the model's device; ``seed=None`` takes a fresh one."""
        seed = fresh_seed(seed)
        out: Array = self._ops.empty(shape)
        self._ops.random_normal(out, seed, stream, self._ops.upload(np.array([block], np.uint64)))
        return self._ops.download(out)

    def show(
        self, n: int = 64, seed: int | None = None, *, y: Any = None, columns: int | None = None, **how: Any
    ) -> plotting.Picture:
        """``n`` new samples as a grid that a notebook shows, as :func:`minigen.show` does; ``.save(path)`` writes it.

        Of a model with labels each row of the grid has samples of one class, as many as ``columns`` or else about
        ``n`` in all, unless ``y`` says which labels to draw. ``how``: further arguments of :meth:`sample`.

        Raises ``ValueError`` where the items are no pictures, and :class:`~minigen.NotFittedError` before ``fit``.
        """
        self._require_fit()
        items, columns = self._grid(checks.integer("n", n, 1), seed, y, columns, **how)
        return plotting.Picture(output.picture(self, (items,), columns), f"{len(items)} samples")

    def _grid(
        self, n: int, seed: int | None, y: Any = None, columns: int | None = None, **how: Any
    ) -> tuple[Any, int | None]:
        """Samples for a grid, and how many stand in a row of it (None: as looks well): a row a class where there are
        labels, no more classes than ``n``, and no ``y``."""
        if y is not None or self.classes_ is None or len(self.classes_) > n:
            return self.sample(n, seed, **({} if y is None else {"y": y}), **how), columns
        across = max(1, round(n / len(self.classes_))) if columns is None else checks.integer("columns", columns, 1)
        return self.sample(across * len(self.classes_), seed, y=np.repeat(self.classes_, across), **how), across

    def _uniform(self, shape: tuple[int, ...], seed: int, stream: int, block: int) -> np.ndarray:
        """Uniforms in [0, 1) on the host from the model's device."""
        out: Array = self._ops.empty(shape)
        self._ops.random_uniform(out, seed, stream, self._ops.upload(np.array([block], np.uint64)))
        return self._ops.download(out)


def fresh_seed(seed: int | None) -> int:
    """``seed``, or a fresh one for ``None``."""
    return secrets.randbits(32) if seed is None else checks.seed("seed", seed)
