"""What TableVAE and TableGAN share: a model of :mod:`minigen.estimators` inside, between a table and its rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError
from minigen.estimators import sklearn_protocol
from minigen.estimators.trained import fresh_seed
from minigen.tables import normal, rejection, saving, schema
from minigen.tables.rebalancing import by_log_frequency
from minigen.tables.rejection import Rejection
from minigen.tables.schema import Rows, Schema, Where
from minigen.training.history import History
from minigen.training.loop import Callback

BYTES_AT_ONCE = 256 << 20  # of encoded rows; larger tables are trained on in pieces
DRAWN_AT_ONCE = 32_768  # rows of a sample
TRIES = 1000  # rows that are drawn for each that ``where`` asks for, and
LEAST_TRIES = 1_000_000  # at least
CALIBRATED_BY = 20_000  # rows that the distribution of each number is corrected by,
RECALIBRATED_BY = 10_000  # and once more, of those that are not rejected
KNOTS = 513
LEAST_DRAWN = 5000  # rows that the classifier of a rejection sees of the model


class TableModel(sklearn_protocol.Parameters):
    """Base of :class:`minigen.TableVAE` and :class:`minigen.TableGAN`."""

    kind: ClassVar[str]
    steps: ClassVar[int]
    """Steps of training where ``epochs`` is None."""
    most_epochs: ClassVar[int] = 300
    seed: int
    device: str
    precision: str
    epochs: int | None
    batch_size: int
    continuous: str
    calibrate: bool
    rejection: bool
    training_by_sampling: bool
    max_categories: int

    schema_: Schema
    condition_: str | None
    model_: Any  # the GAN or VAE inside; None of a table in which nothing varies
    calibration_: dict[str, np.ndarray]
    rejection_: Rejection | None
    recalibration_: dict[str, np.ndarray]  # of the rows that are not rejected
    source_: str | None

    def _check_params(self) -> None:
        checks.choice("continuous", self.continuous, schema.CONTINUOUS)
        for name in ("calibrate", "rejection", "training_by_sampling"):
            checks.choice(name, getattr(self, name), (True, False))
        checks.integer("max_categories", self.max_categories, 2)
        if self.epochs is not None:
            checks.integer("epochs", self.epochs, 0)
        checks.integer("batch_size", self.batch_size, 1)
        self._inner((2, 1), 64, 1, 64)._check_params()
        if self.rejection:
            rejection.check_available()

    def _inner(self, widths: tuple[int, ...], batch_size: int, epochs: int, rows: int) -> Any:
        """The untrained model of as many encoded ``rows``, whose blocks have these widths."""
        raise NotImplementedError

    # --- training ---------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        types: Mapping[str, str] | None = None,
        condition: str | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> Self:
        """Train on a table: a DataFrame of pandas, polars, pyarrow or another library that narwhals knows, or the path
        of a .csv or .parquet file.

        ``types`` says what columns are where that is not what they look like (:func:`minigen.tables.find_columns` shows
        it): ``"numeric"``, ``"integer"``, ``"category"``, ``"boolean"`` or ``"date"``. ``condition``: a column of
        categories or few values that the model is conditional on, so that ``sample(where={condition: value})`` draws
        no row in vain. ``y`` is ignored. ``callbacks`` and ``progress`` as in :meth:`minigen.VAE.fit`; a table too
        large for 256 MB of encoded rows is trained on in pieces, each of which is an epoch to callbacks.

        Raises ``TypeError`` or ``ValueError``, before any work, for a table without rows or columns, names of columns
        that are not unique or no strings, a column without values, of mixed objects, of infinite numbers, of dates out
        of range, or of texts that are nearly all different; and for settings and arguments out of range.
        """
        self._check_params()
        library, found = schema.read(X, types)
        made = schema.measure(
            library, found, continuous=self.continuous, most_categories=self.max_categories, seed=self.seed
        )
        condition = schema.check_condition(made, condition)
        rows = Rows(made, found, condition, self.seed)
        if rows.labels is not None and self.training_by_sampling:
            rows.choose(by_log_frequency(rows.labels, self.seed))
        widths = tuple(width for column, _, _ in rows.parts for width in column.widths)
        inner = self._trained(rows, widths, callbacks, progress) if widths else None
        self.schema_, self.condition_, self.model_, self.source_ = made, condition, inner, None
        self.calibration_, self.rejection_, self.recalibration_ = {}, None, {}
        calibrate = self.calibrate and self.continuous == "quantiles"
        if inner is not None and inner.history_.steps:
            if calibrate:
                self.calibration_ = self._measured_calibration(CALIBRATED_BY)
            # Of few rows with a value asked for, trees of the whole table know too little.
            if self.rejection and condition is None and len(found[0].raw) >= rejection.LEAST_ROWS:
                self.rejection_ = self._learnt_rejection(found)
                if calibrate:
                    self.recalibration_ = self._measured_calibration(RECALIBRATED_BY)
        return self

    def _trained(
        self, rows: Rows, widths: tuple[int, ...], callbacks: Sequence[Callback], progress: bool | None
    ) -> Any:
        """The model inside, trained on ``rows``, on pieces of them where they are too many."""
        count = rows.count
        pieces = -(-count * sum(widths) * 4 // BYTES_AT_ONCE)
        size = -(-count // pieces)
        batch_size = min(self.batch_size, size)
        epochs = self.epochs
        if epochs is None:
            epochs = max(1, min(self.most_epochs, round(self.steps * batch_size / count)))
        inner = self._inner(widths, batch_size, epochs * pieces, count)
        if pieces == 1:
            return inner.fit(rows[np.arange(count)], rows.labels, callbacks=callbacks, progress=progress)
        order = np.random.default_rng([self.seed, 3]).permutation(count)
        if rows.labels is not None:  # the first piece has a row of each label: the model learns there which there are
            order = np.concatenate([np.unique(rows.labels, return_index=True)[1], order])[:count]
        starts = np.linspace(0, count - size, pieces).round().astype(int)
        if prior := getattr(inner, "latent_prior", None):
            inner.latent_prior = "normal"  # a mixture is fitted once, at the end
        for start in np.tile(starts, epochs):
            piece = order[start : start + size]
            encoded, labels = rows[piece], None if rows.labels is None else rows.labels[piece]
            inner.partial_fit(encoded, labels, epochs=1, callbacks=callbacks, progress=progress)
            if inner.history_.stop_reason not in ("", "finished"):
                break
        if prior == "mixture" and epochs:
            stopped = inner.history_.stop_reason
            inner.latent_prior = prior
            inner.partial_fit(encoded, labels, epochs=0, progress=False)
            inner.history_.stop_reason = stopped
        return inner

    def _measured_calibration(self, rows: int) -> dict[str, np.ndarray]:
        """For each number by quantiles, what the model makes of it, in as many steps of equal probability."""
        if not any(column.continuous is not None for column in self.schema_.columns):
            return {}
        found = self._drawn(rows, self.seed, None)
        shares = np.linspace(0, 1, KNOTS)
        measured = {}
        for column, (places, number) in zip(self.schema_.columns, found, strict=True):
            if column.continuous is not None:
                own = number[places == 0, 0]
                if len(own) > KNOTS:
                    measured[column.name] = np.quantile(own.astype(np.float64), shares)
        return measured

    def _learnt_rejection(self, found: Sequence[Any]) -> Rejection:
        """Trees of rows of the table and of as many, or a few thousand, that the model draws."""
        drawn = self._drawn(max(min(len(found[0].raw), rejection.MOST_ROWS), LEAST_DRAWN), self.seed + 1, None)
        real, made = rejection.matrix_of_data(self.schema_, found), rejection.matrix(self.schema_, drawn)
        return rejection.fit(real, made, int(rejection.as_labels(self.schema_).sum()), self.seed)

    # --- using it -----------------------------------------------------------------------------------------

    def _fitted(self) -> bool:
        return hasattr(self, "schema_")

    def _require_fit(self) -> None:
        if not self._fitted():
            raise sklearn_protocol.not_fitted(
                f"this {type(self).__name__} is not trained yet: call fit, or minigen.load a file"
            )

    @property
    def history_(self) -> History:
        """Losses of the training, as those of :class:`minigen.VAE`."""
        self._require_fit()
        return History(()) if self.model_ is None else self.model_.history_

    def sample(self, n: int = 1, seed: int | None = None, *, where: Mapping[str, Any] | None = None) -> Any:
        """``n`` new rows, a DataFrame with the columns and types of the training data; fresh ones with ``seed=None``.

        ``where`` asks for rows with a value in a column, ``{"income": ">50K"}``, or with a number or a date in a range,
        ``{"age": (30, 40)}``. Those of the column that the model is conditional on are drawn as such; for others rows
        are drawn until enough are as asked, up to 1,000 for each one.

        Raises :class:`~minigen.NotFittedError` before ``fit``, ``ValueError`` for columns and values that the training
        data did not have, and where such rows are too rare.
        """
        self._require_fit()
        checks.integer("n", n, 0)
        seed = fresh_seed(seed)
        asked = Where(self.schema_, where)
        place = asked.places.pop(self.condition_, None) if self.condition_ else None
        rng = np.random.default_rng([seed, 4])
        return schema.as_frame(self.schema_, self._drawn(n, seed, place, asked), rng)

    def _drawn(self, n: int, seed: int, place: int | None, asked: Where | None = None) -> list[Any]:
        """Places and numbers of ``n`` rows, calibrated, none of which is rejected; of the condition's ``place``, or as
        the data's are, and as ``asked``. Raises ``ValueError`` where these are too rare."""
        rng = np.random.default_rng([seed, 5])
        pieces: list[list[Any]] = []
        have = tried = 0
        while have < n or not pieces:
            if tried >= max(TRIES * n, LEAST_TRIES) and asked:
                raise ArgumentError(
                    "where",
                    f": only {have} of {tried} drawn rows are as asked, not {n}; fit with condition= a column of it",
                )
            left = n - have
            rows = DRAWN_AT_ONCE if asked else min(DRAWN_AT_ONCE, left if self.rejection_ is None else 3 * left + 64)
            found = self._drawn_once(rows, rng, place)
            if self.rejection_ is not None:
                found = self._accepted(found, rng)
            if asked:
                found = _taken(found, np.flatnonzero(asked.holds(self.schema_, found)))
            pieces.append(_taken(found, slice(left)))
            have, tried = have + len(found[0][0]), tried + rows
        return _joined(pieces)

    def _drawn_once(self, rows: int, rng: np.random.Generator, place: int | None) -> list[Any]:
        labels = None
        if self.condition_ is not None:
            shares = np.array(self.schema_[self.condition_].shares)
            labels = rng.choice(len(shares), rows, p=shares / shares.sum())
            labels = labels if place is None else np.full(rows, place)
        encoded = np.zeros((rows, 0), np.float32)
        if self.model_ is not None:
            encoded = self._sampled(rows, int(rng.integers(2**32)), labels)
        return self._calibrated(schema.decode(self.schema_, encoded, self.condition_, labels), self.calibration_)

    def _accepted(self, found: list[Any], rng: np.random.Generator) -> list[Any]:
        """The rows that are not rejected, the distribution of their numbers corrected once more."""
        assert self.rejection_ is not None
        accepted = self.rejection_.accepts(rejection.matrix(self.schema_, found), rng)
        return self._calibrated(_taken(found, np.flatnonzero(accepted)), self.recalibration_)

    def _sampled(self, n: int, seed: int, labels: np.ndarray | None) -> np.ndarray:
        """``float32[n, width]`` of the model inside."""
        given = {} if labels is None or self.model_.conditions_ is None else {"y": labels}
        return np.asarray(self.model_.sample(n, seed, **given))

    def _calibrated(self, found: list[Any], calibration: Mapping[str, np.ndarray]) -> list[Any]:
        """Numbers whose distribution is that of the training data: each goes to its place among the model's own."""
        made = []
        for column, (places, number) in zip(self.schema_.columns, found, strict=True):
            if (own := calibration.get(column.name)) is not None:
                share = np.interp(number[:, 0], own, np.linspace(0, 1, len(own)))
                number = normal.quantile(share)[:, None]
            made.append((places, number))
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings, columns and weights to one file, which :func:`minigen.load` reads; nothing is pickled.

        The file appears whole or not at all. Raises ``OSError``; an old file at ``path`` then survives.
        """
        self._require_fit()
        saving.save(self, path)


def _taken(found: list[Any], rows: Any) -> list[Any]:
    """These rows of places and numbers."""
    return [(places[rows], None if number is None else number[rows]) for places, number in found]


def _joined(pieces: list[list[Any]]) -> list[Any]:
    """Places and numbers of all pieces, column by column."""
    joined = []
    for parts in zip(*pieces, strict=True):
        numbers = [number for _, number in parts]
        number = None if numbers[0] is None else np.concatenate(numbers)
        joined.append((np.concatenate([places for places, _ in parts]), number))
    return joined
