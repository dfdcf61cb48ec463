"""What GAN and VAE share: hyper-parameters in the manner of scikit-learn, the training loop, saving."""

from __future__ import annotations

import inspect
import math
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

from minigen import checks, output, plotting
from minigen.backend import ACTIVATIONS, Array, Backend
from minigen.datasets import frames
from minigen.datasets.load import as_rows, check_dense, check_on_host
from minigen.estimators import inputs, scaling, sklearn_protocol
from minigen.estimators.saving import save
from minigen.estimators.scaling import Columns
from minigen.floors import get_backend
from minigen.models.layers import Layer
from minigen.models.network import Network
from minigen.models.optimizer import OPTIMIZERS, OptimizerSettings
from minigen.models.step import Step
from minigen.notebook import estimator_html
from minigen.training.history import History
from minigen.training.loop import Callback, check_callbacks, train
from minigen.training.progress import hint_at_preset
from minigen.training.run import State, TrainingRun

INITS = ("auto", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal")
ROWS_AT_ONCE = 4096  # rows that sampling and scoring hold in memory at a time


def lies_with(ops: Backend, array: Any) -> bool:
    """Whether ``array`` is in a GPU's memory, and ``ops`` works on one."""
    if ops.name != "cuda":
        return False
    from minigen.cuda import interop

    return interop.on_gpu(array)


@contextmanager
def beside(ops: Backend, array: Any) -> Iterator[Callable[[Array], Array]]:
    """Where to compute with ``array``: on the host or, if it lies there, on the GPU of ``ops``.

    Yields a function that makes a result ready for the caller.
    """
    # Networks answer what is far outside of their data with what they can: infinities are results, not warnings.
    with np.errstate(all="ignore"):
        if not lies_with(ops, array):
            yield lambda result: result
            return
        from minigen.cuda import interop

        with interop.working(ops) as give:
            yield give


def rows_of(ops: Backend, X: Any, name: str, min_rows: int) -> tuple[Array, tuple[int, ...]]:
    """``X`` as rows and the shape of an item, see :func:`minigen.datasets.as_rows`; on the GPU if it lies there."""
    if not lies_with(ops, X):
        return as_rows(X, name=name, min_rows=min_rows)
    from minigen.cuda import interop

    return interop.rows(ops, X, name=name, min_rows=min_rows)


def numbers(name: str, value: Any, dtype: Any) -> np.ndarray:
    """``value``, an array of the host or nested lists, as finite ``dtype``; else TypeError or ValueError."""
    check_dense(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be an array of real numbers, not of {array.dtype}")
    with np.errstate(over="ignore"):  # what dtype cannot hold becomes infinite, and is reported as such below
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite in {array.dtype}, but some values are NaN or infinite")
    return array


def _check_training(epochs: int | None, callbacks: Sequence[Callback], progress: bool | None) -> None:
    """Raise for a bad argument of ``fit`` or ``partial_fit`` other than the data."""
    if epochs is not None:
        checks.integer("epochs", epochs, 0)
    check_callbacks(callbacks)
    checks.choice("progress", progress, (None, True, False))


def _seed(seed: int | None) -> int:
    """``seed``, or a fresh one for ``None``."""
    return secrets.randbits(32) if seed is None else checks.seed("seed", seed)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Estimator:
    """Base of :class:`GAN` and :class:`VAE`.

    Attributes after ``fit`` or :func:`minigen.load`: ``history_``, ``item_shape_`` (shape of one sample),
    ``n_features_in_`` (numbers in one sample), ``data_dtype_`` (what samples come back as: ``uint8``, ``float32``, or
    that of zeros and ones), ``binary_`` (whether the data were zeros and ones), ``columns_`` (mean and standard
    deviation of each column, where the data were standardised, else ``None``), ``device_`` and ``precision_`` (the
    backend in use, and how it takes matrix products), ``source_`` (the name of the data, where the command line gave
    one).
    ``feature_names_in_`` are the names of the columns, where the training data were a table that has such;
    ``frame_`` is ``"pandas"`` or ``"polars"`` where they were a DataFrame: what the model makes in the data's units
    then comes back as one, or as an array where that library is not installed; set to ``None`` always as an array.
    """

    kind: ClassVar[str]
    presets: ClassVar[dict[str, dict[str, Any]]]
    frozen_params: ClassVar[tuple[str, ...]] = (
        "latent_dim",
        "hidden",
        "activation",
        "standardize",
        "optimizer",
        "init",
        "device",
        "precision",
    )
    """The hyper-parameters that a trained model keeps, whatever ``set_params`` says, until ``fit`` makes a new one."""
    fitted_from_data: ClassVar[tuple[str, ...]] = ("scale_", "shift_")
    """What ``fit`` decides from the data: from uint8 to the range of the model, ``x * scale_ + shift_``."""

    # The hyper-parameters that both models have, in the order of their documentation.
    latent_dim: int
    activation: str
    standardize: str | bool
    optimizer: str
    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    momentum: float
    weight_decay: float
    batch_size: int
    epochs: int
    init: str
    seed: int
    device: str
    precision: str

    scale_: float
    shift_: float
    feature_names_in_: np.ndarray
    frame_: str | None
    columns_: Columns | None
    history_: History
    networks_: tuple[Network, ...]
    _ops: Backend
    _frozen: dict[str, Any]  # the values of ``frozen_params`` that the networks were made with
    _run: TrainingRun | None  # the training under way
    _state: State | None  # counters and moments of the last training, to go on from

    # --- hyper-parameters -----------------------------------------------------------------------

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    @classmethod
    def preset(cls, name: str, **settings: Any) -> Self:
        """A model with the settings of a preset; ``settings`` override them. ``ValueError`` lists the known presets.

        ``"article"`` is the defaults, ``"quality"`` is wider and slower and draws clearer pictures.
        """
        checks.choice("preset", name, cls.presets)
        return cls(**{**cls.presets[name], **settings})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyper-parameters by name, as scikit-learn's estimators give them."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change hyper-parameters; they take effect at the next ``fit``. ``ValueError`` for an unknown name.

        ``partial_fit`` takes those that only steer the training, such as ``learning_rate``, and refuses changes of the
        others; a trained model is used and saved as it was made.
        """
        for name, value in params.items():
            checks.choice("parameter", name, self._parameter_names())
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return estimator_html(self)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn 1.6 and newer ask of an estimator in a pipeline or a search; only they call this."""
        return sklearn_protocol.tags(transformer=hasattr(self, "transform"))

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted()

    def _check_params(self) -> None:
        """Raise for a bad hyper-parameter. Subclasses add their own."""
        checks.integer("latent_dim", self.latent_dim, 1)
        checks.choice("activation", self.activation, ACTIVATIONS)
        checks.choice("standardize", self.standardize, ("auto", True, False))
        checks.choice("optimizer", self.optimizer, OPTIMIZERS)
        checks.choice("init", self.init, INITS)
        checks.number("learning_rate", self.learning_rate, 0, exclude_low=True)
        checks.number("beta1", self.beta1, 0, 1)
        checks.number("beta2", self.beta2, 0, 1)
        checks.number("eps", self.eps, 0, exclude_low=True)
        checks.number("momentum", self.momentum, 0, 1)
        checks.number("weight_decay", self.weight_decay, 0)
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("weight_decay must be 0 with optimizer='adam'; use optimizer='adamw' or 'sgd'")
        checks.integer("batch_size", self.batch_size, 1)
        checks.integer("epochs", self.epochs, 0)
        checks.seed("seed", self.seed)

    def _check_frozen(self) -> None:
        """Raise ValueError if a setting that the networks were made with has been changed since."""
        for name, made in self._frozen.items():
            now = _as_tuple(getattr(self, name))
            if now != made:
                raise ValueError(
                    f"{name} must stay {made!r} in partial_fit, not {now!r}: the model was made with it; "
                    "fit makes a new one"
                )

    def _settings(self) -> OptimizerSettings:
        names = OptimizerSettings.__dataclass_fields__
        return OptimizerSettings(**{name: getattr(self, name) for name in names})

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, also of a model in training: a callback may keep ``copy.deepcopy(end.model)``."""
        if not self._fitted():
            return dict(self.__dict__)
        return {**self.__dict__, "_state": self._training_state(), "_run": None}

    # --- training -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, callbacks: Sequence[Callback] = (), progress: bool | None = None) -> Self:
        """Train from scratch on ``X[N, ...]`` (see :func:`minigen.datasets.as_rows` for what is taken).

        With ``device="cuda"``, ``X`` may also be in that GPU's memory, a CuPy array or any with DLPack: training then
        reads it where it is, and so do the methods that take data or latents; these return CuPy arrays.

        ``callbacks`` are called at the end of every epoch with an :class:`~minigen.EpochEnd`; training stops when one
        returns ``True``, goes on at another learning rate when one sets ``end.model.learning_rate``, and ends with the
        error that one raises, the model then being as at that epoch's end. ``progress``
        shows a bar (``None``: on a terminal only). ``y`` is ignored.
        Raises ``TypeError`` or ``ValueError`` for a bad setting or bad data, before any work;
        :class:`~minigen.TrainingDiverged` when a loss, a weight or the optimizer's state is no longer finite.
        """
        return self._fit(X, None, callbacks, progress)

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> Self:
        """Go on training for ``epochs`` more (default: as the constructor says), as if it had never stopped.

        The same data, settings, device and instruction set continue bit for bit, also after :meth:`save` and
        :func:`minigen.load`. Data or a ``batch_size`` with another number of steps begin with a whole epoch, and may
        move the step counter on to the beginning of one. Raises as :meth:`fit` does, and ``ValueError`` where the
        data's items or a setting that the networks were made with are not those of the model.
        """
        if not self._fitted():
            return self._fit(X, epochs, callbacks, progress)
        self._check_idle("partial_fit")
        self._check_params()
        self._check_frozen()
        _check_training(epochs, callbacks, progress)
        with beside(self._ops, X):
            rows = self._check_rows(X)
            self._check_batch_size(rows)
            rows = self._standardised(rows)
        return self._train(rows, epochs, callbacks, progress)

    def _fit(self, X: Any, epochs: int | None, callbacks: Sequence[Callback], progress: bool | None) -> Self:
        self._check_idle("fit")
        self._check_params()
        _check_training(epochs, callbacks, progress)
        hint_at_preset(self, X, progress)
        ops = get_backend(self.device, self.precision)
        with beside(ops, X):
            values, bits = scaling.bits_as_bytes(X)
            rows, item_shape = rows_of(ops, values, "X", min_rows=2)
            self._check_batch_size(rows)
            if bits is None and rows.dtype == np.uint8 and rows.max() <= 1:  # of a library that NumPy does not know
                bits = rows.dtype
            from_data = self._choose_range(rows, bits is not None)
            columns = None
            if self._standardizes(rows, *from_data):
                columns = scaling.measure(rows, ops.download if lies_with(ops, rows) else np.asarray)
                rows = columns.standardise(rows, self._placer(ops, rows))
            else:
                rows = self._in_range(rows, *from_data)
        self._build(ops, item_shape, rows.dtype if bits is None else bits, *from_data, columns=columns)
        self._initialize()
        self.frame_ = frames.library_of(X)
        if (names := frames.column_names(X)) is not None:
            self.feature_names_in_ = names
        self.history_ = History(self._history_names())
        return self._train(rows, epochs, callbacks, progress)

    def _train(self, rows: Array, epochs: int | None, callbacks: Sequence[Callback], progress: bool | None) -> Self:
        """``epochs`` more, or as many as the hyper-parameter says."""
        run = self._training(rows)
        if self._state is not None:
            run.load_state(self._state)
            if run.done % run.steps_per_epoch != self.history_.steps_under_way:  # other data than before
                run.begin_epoch()
        self._run = run
        try:
            train(run, self, self.history_, self.epochs if epochs is None else epochs, callbacks, progress)
        except BaseException:  # of a callback, the device, a second Ctrl-C; a divergence has told its reason
            self.history_.stop_reason = self.history_.stop_reason or "error"
            raise
        finally:
            self._state, self._run = run.state(), None
        return self

    def _check_idle(self, method: str) -> None:
        """Raise RuntimeError in the middle of a training, such as in a callback."""
        if vars(self).get("_run") is not None:
            raise RuntimeError(
                f"{method} cannot be called in a callback, or anywhere else while this model is in "
                "training: let the callback return True, which ends the training, and call it then, or "
                "train a copy, copy.deepcopy(end.model)"
            )

    def _training_state(self) -> State | None:
        """Counters and moments as they stand, also in the middle of a training, for a callback that saves."""
        return self._state if self._run is None else self._run.state()

    def _check_batch_size(self, rows: Array) -> None:
        if len(rows) < self.batch_size:
            raise ValueError(f"batch_size must be at most the {len(rows)} rows of the data, not {self.batch_size}")

    def _check_rows(self, X: Any, name: str = "X") -> Array:
        """Rows of data for a fitted model, in the units that the data of the training had."""
        return self._rows_and_shape(X, name)[0]

    def _rows_and_shape(self, X: Any, name: str = "X") -> tuple[Array, tuple[int, ...]]:
        """The same, and the shape of an item of ``X``: that of the training data, or flat."""
        frames.check_columns(name, X, self._column_names())
        values = scaling.bits_as_bytes(X)[0] if self.binary_ else X
        rows, item_shape = rows_of(self._ops, values, name, min_rows=1)
        inputs.check_items(self, name, item_shape)
        if self.binary_:
            if rows.dtype != np.uint8 or rows.max() > 1:
                raise ValueError(f"{name} must be zeros and ones in bool or integers, like the data of the training")
            return rows, item_shape
        rows = inputs.in_trained_type(self, name, values, rows)
        if rows.dtype == np.uint8 or self.columns_ is not None:
            return rows, item_shape
        return self._in_range(rows, *(getattr(self, attribute) for attribute in self.fitted_from_data)), item_shape

    # --- what a model of this kind is made of ---------------------------------------------------

    def _choose_range(self, rows: Array, binary: bool) -> tuple[Any, ...]:
        """The values of ``fitted_from_data`` for these ``rows``; ``binary`` data are zeros and ones."""
        raise NotImplementedError

    def _in_range(self, rows: Array, *from_data: Any) -> Array:
        """Floating ``rows``, clipped to what the model can reach where rounding has carried them out of it; uint8 as
        they are. Raises ValueError for others."""
        raise NotImplementedError

    def _unbounded(self, *from_data: Any) -> bool:
        """Whether the model takes and gives any number, so that its data can be standardised."""
        raise NotImplementedError

    _unbounded_hint: ClassVar[str]
    """Which setting makes the model such, for a message."""

    def _standardizes(self, rows: Array, *from_data: Any) -> bool:
        """Whether ``fit`` standardises ``rows``. Raises ValueError where it is told to but cannot."""
        floating, unbounded = rows.dtype != np.uint8, self._unbounded(*from_data)
        if self.standardize == "auto":
            return floating and unbounded
        if self.standardize and not unbounded:
            raise ValueError(
                "standardize must be 'auto' or False for a model of data in a fixed range: standardised "
                f"columns have no such range; {self._unbounded_hint}"
            )
        if self.standardize and not floating:
            raise ValueError(
                "standardize must be 'auto' or False for uint8, zeros and ones, which have a range of "
                "their own; X.astype(np.float32) makes columns of them"
            )
        return bool(self.standardize)

    def _layers(self, columns: int, *from_data: Any) -> dict[str, list[Layer]]:
        """The layers of each network, by its name, for data of so many columns."""
        raise NotImplementedError

    def _step(self, rows: Array) -> Step:
        """The training step of the model on ``rows``."""
        raise NotImplementedError

    def _training(self, rows: Array) -> TrainingRun:
        return TrainingRun(self._step(rows))

    def sample(self, n: int = 1, seed: int | None = None) -> np.ndarray:
        """``n`` new samples, ``[n, ...]`` in the units, type and shape of the training data."""
        raise NotImplementedError

    def _history_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _build(
        self, ops: Backend, item_shape: tuple[int, ...], dtype: Any, *from_data: Any, columns: Columns | None = None
    ) -> None:
        """Make the networks, uninitialised, for data of this shape and type, as :meth:`_choose_range` decided.

        What may fail comes first: a model that was trained before is then left as it was.
        """
        layers = self._layers(math.prod(item_shape), *from_data)
        self.networks_ = tuple(Network(ops, name, of_network) for name, of_network in layers.items())
        vars(self).update(zip(self.fitted_from_data, from_data, strict=True))
        vars(self).update({f"{net.name}_": net for net in self.networks_})
        self.columns_ = columns
        self._ops = ops
        self._run = None
        self._state = None
        self._frozen = {name: _as_tuple(getattr(self, name)) for name in self.frozen_params}
        self.device_, self.precision_ = ops.name, ops.precision
        self.source_: str | None = None
        self.frame_ = None
        vars(self).pop("feature_names_in_", None)
        self.item_shape_ = item_shape
        self.n_features_in_ = math.prod(item_shape)
        self.data_dtype_ = np.dtype(dtype)

    def _initialize(self) -> None:
        first = 0
        for net in self.networks_:
            net.initialize(self.seed, self.init, first)
            first += len(net.layers)

    # --- using a trained model ------------------------------------------------------------------

    def _column_names(self) -> list[str] | None:
        return list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None

    def _fitted(self) -> bool:
        return hasattr(self, "networks_")

    def _require_fit(self) -> None:
        if not self._fitted():
            message = f"this {type(self).__name__} is not trained yet: call fit, or minigen.load a file"
            raise sklearn_protocol.not_fitted(message)

    # What follows takes arrays of the host and, inside of ``beside``, of the model's GPU: NumPy's functions then call
    # CuPy's of the same name.

    def _apply(self, net: Network, x: Array, *, data: bool = False) -> Array:
        """Output of ``net`` for rows ``x``, a piece at a time; ``data`` are in the units of the training's data."""
        out = np.empty_like(x, np.float32, shape=(len(x), net.outputs))
        work = net.workspace(min(len(x), ROWS_AT_ONCE))
        for a in range(0, len(x), ROWS_AT_ONCE):
            b = min(a + ROWS_AT_ONCE, len(x))
            rows = self._to_device(self._to_model(x[a:b]) if data else x[a:b])
            out[a:b] = self._from_device(net.forward(rows, work.rows(0, b - a)), x)
        return out

    @property
    def binary_(self) -> bool:
        """Whether the data of the training were zeros and ones, in bool or integers."""
        return self.data_dtype_ != np.float32 and self.scale_ >= 1  # of bytes, 255 is as far from 0

    @staticmethod
    def _placer(ops: Backend, rows: Array) -> Callable[[Any], Any]:
        """What takes an array of the host to where ``rows`` lie."""
        return ops.upload if lies_with(ops, rows) else np.asarray

    def _to_device(self, x: Array) -> Array:
        """``x`` for an operation."""
        if lies_with(self._ops, x):
            return x if x.flags.c_contiguous else x.copy()
        return self._ops.upload(np.ascontiguousarray(x, self._ops.dtype))

    def _from_device(self, buffer: Array, x: Array) -> Array:
        """What an operation wrote, where ``x`` lies."""
        return buffer if lies_with(self._ops, x) else self._ops.download(buffer)

    def _latents(self, z: Any) -> Array:
        """``z[n, latent_dim]`` as float32. Raises ValueError for another shape."""
        if lies_with(self._ops, z):
            from minigen.cuda import interop

            z = interop.vectors(self._ops, z, name="z")
        else:
            check_on_host("z", z)
            z = numbers("z", z, np.float32)
        width = self._frozen["latent_dim"]
        if z.ndim != 2 or z.shape[1] != width:
            raise ValueError(f"z must have shape (n, {width}), not {z.shape}")
        return z

    def _standardised(self, rows: Array) -> Array:
        """``rows`` with the columns' mean and scale of the training taken out, where it did that."""
        return rows if self.columns_ is None else self.columns_.standardise(rows, self._placer(self._ops, rows))

    def _to_model(self, rows: Array) -> Array:
        """From the data's own units to the model's range."""
        if rows.dtype != np.uint8:
            return self._standardised(rows)
        return rows * np.float32(self.scale_) + np.float32(self.shift_)

    def _in_units(self, rows: Array) -> Array:
        """From the model's range to the data's own units, type and item shape; of zeros and ones float32, in between.

        Raises ValueError for NaN, which no uint8 can tell from a number; the networks overflowed.
        """
        if self.columns_ is not None:
            rows = self.columns_.restore(rows, self._placer(self._ops, rows))
        if self.data_dtype_ != np.float32:
            rows = (rows - np.float32(self.shift_)) / np.float32(self.scale_)
            if not self.binary_:
                bad = np.isnan(rows).any(axis=1)
                if bad.any():
                    raise ValueError(f"row {int(bad.argmax())} lies too far out: what the model makes of it is NaN")
                rows = np.clip(np.rint(rows), 0, 255).astype(np.uint8)
        return rows.reshape(len(rows), *self.item_shape_)

    def _framed(self, rows: Array) -> Any:
        """``rows`` as a DataFrame where the training data were one. CuPy's arrays stay."""
        if self.frame_ is None or not isinstance(rows, np.ndarray):
            return rows
        return frames.as_frame(rows, self.frame_, self._column_names())

    def _like_data(self, items: Array) -> Array:
        """Items in the units of the data, of zeros and ones the nearer of the two in the data's type."""
        return (items > 0.5).astype(self.data_dtype_) if self.binary_ else items

    def _normal(self, shape: tuple[int, ...], seed: int | None, stream: int, block: int = 0) -> np.ndarray:
        """Standard normals on the host from the model's device; ``seed=None`` takes a fresh one."""
        seed = _seed(seed)
        out: Array = self._ops.empty(shape)
        self._ops.random_normal(out, seed, stream, self._ops.upload(np.array([block], np.uint64)))
        return np.array(self._ops.download(out))

    def show(self, n: int = 64, seed: int | None = None, *, columns: int | None = None) -> plotting.Picture:
        """``n`` new samples as a grid that a notebook shows, as :func:`minigen.show` does; ``.save(path)`` writes it.

        Raises ``ValueError`` where the items are no pictures, and :class:`~minigen.NotFittedError` before ``fit``.
        """
        self._require_fit()
        items = self.sample(checks.integer("n", n, 1), seed)
        return plotting.Picture(output.picture(self, (items,), columns), f"{n} samples")

    def _uniform(self, shape: tuple[int, ...], seed: int, stream: int, block: int) -> np.ndarray:
        """Uniforms in [0, 1) on the host from the model's device."""
        out: Array = self._ops.empty(shape)
        self._ops.random_uniform(out, seed, stream, self._ops.upload(np.array([block], np.uint64)))
        return np.array(self._ops.download(out))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file: settings, weights, optimizer state, losses.

        The file appears whole or not at all. Raises ``OSError``; an old file at ``path`` then survives.
        """
        self._require_fit()
        save(self, path)
