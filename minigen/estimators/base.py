"""What GAN and VAE share: training, and what a model of each kind has to say of itself."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend
from minigen.datasets import frames
from minigen.device import get_backend
from minigen.errors import ArgumentError
from minigen.estimators import scaling
from minigen.estimators.conditions import Conditions, Labels, learn
from minigen.estimators.monitor import Metric, Monitor, Watch
from minigen.estimators.saving import save
from minigen.estimators.scaling import Columns
from minigen.estimators.sharing import shared
from minigen.estimators.trained import TrainedModel
from minigen.models.conditional import Condition, with_condition_beside_input
from minigen.models.layers import Layer
from minigen.models.network import Network
from minigen.models.step import Step
from minigen.training.history import History
from minigen.training.loop import Callback, check_callbacks, train
from minigen.training.progress import hint_at_preset
from minigen.training.run import State, TrainingRun


def _check_training(epochs: int | None, callbacks: Sequence[Callback], progress: bool | None) -> None:
    """Raise for a bad argument of ``fit`` or ``partial_fit`` other than the data."""
    if epochs is not None:
        checks.integer("epochs", epochs, 0)
    check_callbacks(callbacks)
    checks.choice("progress", progress, (None, True, False))


class Estimator(TrainedModel):
    """Base of :class:`GAN` and :class:`VAE`, which say what their networks and their training step are.

    Its hyper-parameters are in :class:`Settings`, what it does once it is trained in :class:`TrainedModel`.
    """

    kind: ClassVar[str]
    _run: TrainingRun | None  # the training under way
    _state: State | None  # counters and moments of the last training, to go on from

    # --- training -------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
        validation: Any = None,
        evaluate_every: int | None = None,
        metrics: Sequence[Metric] | None = None,
        restore_best: bool = False,
        patience: int | None = None,
    ) -> Self:
        """Train from scratch on ``X[N, ...]`` (see :func:`minigen.datasets.as_rows` for what is taken).

        With ``device="cuda"``, ``X`` may also be in that GPU's memory, a CuPy array or any with DLPack: training then
        reads it where it is, and so do the methods that take data or latents; these return CuPy arrays.

        ``callbacks`` are called at the end of every epoch with an :class:`~minigen.EpochEnd`; training stops when one
        returns ``True``, goes on at another learning rate when one sets ``end.model.learning_rate``, and ends with the
        error that one raises, the model then being as at that epoch's end. ``progress``
        shows a bar (``None``: on a terminal only).

        ``validation`` are rows like ``X``, on the host, that the model is not trained on, or a pair of rows and their
        ``y``: once in ``evaluate_every`` epochs (a tenth of them unless given) and at the last one ``metrics`` are
        measured on up to 1,000 of them and as many samples. ``history_.metrics`` has the values of
        ``history_.evaluations.epochs``, and ``history_.evaluations.real`` those of training rows in the samples' place.
        ``metrics`` are names of :func:`minigen.metrics.evaluate`'s figures, or functions of the model and
        ``validation``, which are better the lower. By the first one ``restore_best`` goes back to the weights of the
        best epoch (``history_.evaluations.best_epoch``) at the end, and ``patience`` ends the training after so many
        evaluations without a better one. It warns of mode collapse (a coverage below a tenth of real rows') and of
        memorised rows.

        With ``y`` the model is conditional, unless the setting ``conditional`` is False: labels ``y[N]``, integers,
        strings or bools, in a list, an array or a Series; or numbers ``y[N, C]`` beside each row, which are
        standardised in the model. Whole numbers in floats are labels too.
        Raises ``TypeError`` or ``ValueError`` for a bad setting or bad data, before any work;
        :class:`~minigen.TrainingDiverged` when a loss, a weight or the optimizer's state is no longer finite.
        """
        watch = Watch(validation, evaluate_every, metrics, restore_best, patience)
        return self._fit(X, y, None, callbacks, progress, watch)

    @classmethod
    def _trained(cls, data: Any, preset: str, settings: dict[str, Any], **how: Any) -> Self:
        """A model of ``preset`` fitted to ``data``; some of the ``settings`` may be ``fit``'s."""
        measured = {field.name for field in fields(Watch)} & settings.keys()
        return cls.preset(preset, **{name: settings[name] for name in settings.keys() - measured}).fit(
            data, **how, **{name: settings[name] for name in measured}
        )

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
        validation: Any = None,
        evaluate_every: int | None = None,
        metrics: Sequence[Metric] | None = None,
        restore_best: bool = False,
        patience: int | None = None,
    ) -> Self:
        """Go on training for ``epochs`` more (default: as the constructor says), as if it had never stopped.

        The same data, settings, device and instruction set continue bit for bit, also after :meth:`save` and
        :func:`minigen.load`. Data or a ``batch_size`` with another number of steps begin with a whole epoch, and may
        move the step counter on to the beginning of one. Raises as :meth:`fit` does, and ``ValueError`` where the
        data's items, labels, or a setting that the networks were made with are not those of the model. A model that was
        trained with ``y`` needs it here too, with no other labels. ``validation`` and what follows are as in
        :meth:`fit`; the best epoch is the best of those to come.
        """
        watch = Watch(validation, evaluate_every, metrics, restore_best, patience)
        if not self._fitted():
            return self._fit(X, y, epochs, callbacks, progress, watch)
        self._check_idle("partial_fit")
        self._check_params()
        self._check_frozen()
        _check_training(epochs, callbacks, progress)
        monitor = watch.monitor(self, X, self.epochs if epochs is None else epochs)
        with self._ops.on_device_of(X):
            rows = self._check_rows(X)
            self._check_batch_size(rows)
            codes = self._condition_codes(self._taken(y), len(rows))
            rows = self._standardised(rows)
        return self._train(rows, codes, epochs, callbacks, progress, monitor)

    def _taken(self, y: Any) -> Any:
        """``y``, or None where the settings say that it is to be ignored."""
        if self.conditional is True and y is None:
            raise ArgumentError("y", "must be given with conditional=True: labels [N] or numbers [N, C]")
        return None if self.conditional is False else y

    def _fit(
        self,
        X: Any,
        y: Any,
        epochs: int | None,
        callbacks: Sequence[Callback],
        progress: bool | None,
        watch: Watch = Watch(),  # noqa: B008 (it is frozen)
    ) -> Self:
        self._check_idle("fit")
        self._check_params()
        _check_training(epochs, callbacks, progress)
        monitor = watch.monitor(self, X, self.epochs if epochs is None else epochs)
        hint_at_preset(self, X, progress)
        ops = get_backend(self.device, self.precision)
        with ops.on_device_of(X):
            values, bits = scaling.bits_as_bytes(X)
            rows, item_shape = ops.rows_of(values, "X", min_rows=2)
            self._check_batch_size(rows)
            y = self._taken(y)
            conditions = None if y is None else learn(y, len(rows), ops)
            codes = None if conditions is None else conditions.codes("y", y, len(rows))
            if bits is None and rows.dtype == np.uint8 and rows.max() <= 1:  # of a library that NumPy does not know
                bits = rows.dtype
            from_data = self._choose_range(rows, bits is not None)
            columns = None
            if self._standardizes(rows, *from_data):
                columns = self._measured(rows, ops)
                rows = columns.standardise(rows, ops)
            else:
                rows = self._in_range(rows, *from_data)
        dtype = rows.dtype if bits is None else bits
        self._build(ops, item_shape, dtype, *from_data, columns=columns, conditions=conditions)
        self._initialize(rows)
        self.frame_ = frames.library_of(X)
        if (names := frames.column_names(X)) is not None:
            self.feature_names_in_ = names
        self.history_ = History(self._history_names())
        return self._train(rows, codes, epochs, callbacks, progress, monitor)

    def _train(
        self,
        rows: Array,
        codes: np.ndarray | None,
        epochs: int | None,
        callbacks: Sequence[Callback],
        progress: bool | None,
        monitor: Monitor | None = None,
    ) -> Self:
        """``epochs`` more, or as many as the hyper-parameter says."""
        self._before_training()
        if monitor is not None:
            monitor.begin(self)
            callbacks = [monitor, *callbacks]
        run = self._training(shared(rows), None if codes is None else shared(codes))
        self._resume(run)
        self._run = run
        try:
            train(run, self, self.history_, self.epochs if epochs is None else epochs, callbacks, progress)
            if monitor is not None:
                monitor.end(self, run)
        except BaseException:  # of a callback, the device, a second Ctrl-C; a divergence has set its own reason
            self.history_.stop_reason = self.history_.stop_reason or "error"
            raise
        finally:
            self._state, self._run = run.state(), None
        self._look_back(rows, codes)
        self._after_training(rows, codes)
        if monitor is not None:
            monitor.warn(self)
        return self

    def _before_training(self) -> None:
        """Give up what a model of this kind knows of its weights, which are about to change."""

    def _after_training(self, rows: Array, codes: np.ndarray | None) -> None:
        """Learn what a model of this kind needs beside its networks, from the rows of the training."""

    def _resume(self, run: TrainingRun) -> None:
        """Let ``run`` go on where the last training ended, if there was one."""
        if self._state is not None:
            run.load_state(self._state)
            if run.done % run.steps_per_epoch != self.history_.steps_under_way:  # other data than before
                run.begin_epoch()

    def _look_back(self, rows: Array, codes: np.ndarray | None) -> None:
        """Warn of what a training on these ``rows`` that is over has come to, where that is of no use."""

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
            raise ArgumentError(
                "batch_size", f"must be at most the {len(rows)} rows of the data, not {self.batch_size}"
            )

    # --- what a model of this kind is made of ---------------------------------------------------

    def _choose_range(self, rows: Array, binary: bool) -> tuple[Any, ...]:
        """The values of ``fitted_from_data`` for these ``rows``; ``binary`` data are zeros and ones."""
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
            raise ArgumentError(
                "standardize",
                "must be 'auto' or False for a model of data in a fixed range: standardised "
                f"columns have no such range; {self._unbounded_hint}",
            )
        if self.standardize and not floating:
            raise ArgumentError(
                "standardize",
                "must be 'auto' or False for uint8, zeros and ones, which have a range of "
                "their own; X.astype(np.float32) makes columns of them",
            )
        return bool(self.standardize)

    def _measured(self, rows: Array, ops: Backend) -> Columns:
        """What ``fit`` standardises ``rows`` by."""
        return scaling.measure(rows, ops)

    def _layers(self, columns: int, *from_data: Any) -> dict[str, list[Layer]]:
        """The layers of each network, by its name, for data of ``columns`` columns, as if there were no conditions."""
        raise NotImplementedError

    def _all_layers(self, columns: int, *from_data: Any, condition: Condition | None) -> dict[str, list[Layer]]:
        """The layers of each network with those that take the condition."""
        layers = self._layers(columns, *from_data)
        if condition is None:
            return layers
        return {name: self._with_condition(name, of_network, condition) for name, of_network in layers.items()}

    def _with_condition(self, network: str, layers: list[Layer], condition: Condition) -> list[Layer]:
        return with_condition_beside_input(layers, condition)

    def _step(self, rows: Array, conditions: np.ndarray | None = None) -> Step:
        """The training step of the model on ``rows``, and on what the networks take as their ``conditions``."""
        raise NotImplementedError

    def _training(self, rows: Array, conditions: np.ndarray | None = None) -> TrainingRun:
        step = self._step(rows, conditions)
        step.set_learning_rate(self.learning_rate)
        return TrainingRun(step)

    @property
    def _averaged_networks(self) -> tuple[str, ...]:
        """The names of the networks whose parameters the training averages: part of its state."""
        return ()

    def _load_averages(self, state: State) -> None:
        """Take the averages over from a loaded ``state``."""

    def _own_tensors(self) -> State:
        """What a model file holds beside what all models have."""
        return {}

    def _check_own_tensors(self, tensors: State, known: Conditions | None) -> None:
        """Raise KeyError or ValueError for such that cannot be, of a model with these conditions."""

    def _load_own_tensors(self, tensors: State) -> None:
        """Take them over from a file."""

    def _history_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _build(
        self,
        ops: Backend,
        item_shape: tuple[int, ...],
        dtype: Any,
        *from_data: Any,
        columns: Columns | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        """Make the networks, uninitialised, for data of this shape and type, as :meth:`_choose_range` decided.

        What may fail comes first: a model that was trained before is then left as it was.
        """
        condition = None if conditions is None else conditions.kind
        layers = self._all_layers(math.prod(item_shape), *from_data, condition=condition)
        self.networks_ = tuple(Network(ops, name, of_network) for name, of_network in layers.items())
        vars(self).update(zip(self.fitted_from_data, from_data, strict=True))
        vars(self).update({f"{net.name}_": net for net in self.networks_})
        self.columns_ = columns
        self.conditions_ = conditions
        self.classes_ = np.array(conditions.classes) if isinstance(conditions, Labels) else None
        self._ops = ops
        self._run = None
        self._state = None
        self._freeze()
        self.device_, self.precision_ = ops.name, ops.precision
        self.source_: str | None = None
        self.labels_source_: str | None = None
        self.left_out_ = False
        self.frame_ = None
        vars(self).pop("feature_names_in_", None)
        self.item_shape_ = item_shape
        self.n_features_in_ = math.prod(item_shape)
        self.data_dtype_ = np.dtype(dtype)

    def _initialize(self, rows: Array) -> None:
        """First parameters of the networks, which are to be trained on ``rows``."""
        first = 0
        for net in self.networks_:
            net.initialize(self.seed, self.init, first)
            first += len(net.layers)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, also of a model in training: a callback may keep ``copy.deepcopy(end.model)``."""
        if not self._fitted():
            return dict(self.__dict__)
        return {**self.__dict__, "_state": self._training_state(), "_run": None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file: settings, weights, optimizer state, losses.

        The file appears whole or not at all. Raises ``OSError``; an old file at ``path`` then survives.
        """
        self._require_fit()
        save(self, path)
