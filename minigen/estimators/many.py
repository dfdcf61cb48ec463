"""Several models trained at once on the same data."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, Literal, TypeVar

from minigen import checks
from minigen.cuda.together import Together, current_member
from minigen.device import get_backend
from minigen.errors import ArgumentError, ArgumentTypeError, SomeDiverged, TrainingDiverged
from minigen.estimators.sharing import SharedRows, shared_rows
from minigen.training.loop import SECONDS_BETWEEN_READS, Callback, EpochEnd, check_callbacks
from minigen.training.progress import SharedBar, shared_bar
from minigen.training.signals import StopRequest, shared_request, stop_request

Model = TypeVar("Model")


def fit_many(
    models: Sequence[Model],
    X: Any,
    y: Any = None,
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    on_divergence: Literal["raise", "warn"] = "raise",
    exact: bool = True,
    **options: Any,
) -> list[Model]:
    """Train several models on ``X[N, ...]``, and ``y``, at once: each comes out as its own ``fit`` would leave it, bit
    for bit.

    Seeds, learning rates and all other settings may differ, and so may the kind of model and its layers. On the device
    ``cpu`` as many models are in training as there are threads (:func:`minigen.set_num_threads`, by default one a
    core), each on one of them; the last one left has them all. This is faster than one after another, since a small
    model's step keeps one core busier than two. On ``cuda`` all are in training at once, and the steps of those of one
    architecture, which differ in seeds, rates, betas and other numbers, are launched as one. What the models make of
    the data is kept once where it is the same. On ``numpy`` they are trained one after another, beside the others.

    Parameters
    ----------
    models : estimators, :class:`~minigen.GAN`, :class:`~minigen.VAE` and what is made of them, each once in the list
    X, y : the data of all, as :meth:`fit` takes them
    callbacks : called at the end of every epoch of every model, ``end.model`` says of which. They are called in the
        thread that trains the model, never two at a time
    progress : as in :meth:`fit`; one bar for all
    on_divergence : a model that diverges does not end the others. In the end its error is raised (``"raise"``), in one
        :class:`~minigen.SomeDiverged` for all, or warned of (``"warn"``); ``model.history_.stop_reason`` is
        ``"diverged"`` then, and its weights those from before that step
    exact : True: on ``cuda`` each model has the bits of its own ``fit``. False: sums may be taken in another order for
        the number of models that share a launch, which may be faster for wide layers; a model then differs from that of
        its own ``fit`` by rounding, and its bits depend on the number of models and on the GPU, not on the run. No
        effect on other devices
    options : what else ``fit`` takes, such as ``validation``

    Returns
    -------
    the same models, in order, fitted

    Ctrl-C, SIGTERM and SIGHUP end all trainings after the steps under way, as they do in ``fit``; a model whose turn
    had not come then has no epochs. Another error of one model (of its settings, the data, a callback, the device) ends
    the others in the same way and is raised. Raises ``TypeError`` or ``ValueError`` for bad settings of any of the
    models before any work.
    """
    models = list(models)
    checks.choice("on_divergence", on_divergence, ("raise", "warn"))
    checks.choice("progress", progress, (None, True, False))
    checks.choice("exact", exact, (True, False))
    check_callbacks(callbacks)
    devices = _devices(models)
    turn = threading.Lock()
    fit = {"callbacks": [_one_at_a_time(callback, turn) for callback in callbacks], "progress": progress, **options}
    together = _Together(models, lambda model: model.fit(X, y, **fit), progress, exact)
    together.train(*([i for i, device in enumerate(devices) if device == name] for name in ("cpu", "cuda", "numpy")))
    if together.error is not None:
        raise together.error
    _tell(together.diverged, models, on_divergence)
    return models


def _devices(models: list[Any]) -> list[str]:
    """Which device trains each of them. Raises for what is no model, comes twice, or has bad settings."""
    found = []
    for i, model in enumerate(models):
        if not callable(getattr(model, "fit", None)):
            raise ArgumentTypeError(f"models[{i}]", f"must be a model such as minigen.GAN(), not {model!r}")
        if any(model is other for other in models[:i]):
            raise ArgumentError(f"models[{i}]", "must be in the list once: it is one of those before it")
        try:
            if (check := getattr(model, "_check_params", None)) is not None:
                check()
            found.append(get_backend(getattr(model, "device", "auto")).name)
        except (ArgumentError, ArgumentTypeError) as error:
            raise type(error)(f"models[{i}]", f": {error}") from error
    return found


def _one_at_a_time(callback: Callback, turn: threading.Lock) -> Callback:
    def call(end: EpochEnd) -> bool | None:
        with turn, _set(current_member, None):  # what it trains is none of the models
            return callback(end)

    return call


@contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class _Together:
    """Models in training at once: who has diverged, and the first other error of any."""

    def __init__(self, models: list[Any], fit: Callable[[Any], Any], progress: bool | None, exact: bool = True) -> None:
        self.models, self.fit, self.exact = models, fit, exact
        self.bar = SharedBar(len(models), progress)
        self.diverged: dict[int, TrainingDiverged] = {}
        self.error: BaseException | None = None
        self.stop = StopRequest()

    def train(self, on_cpu: list[int], on_cuda: list[int], others: list[int]) -> None:
        """Train them all: those ``on_cpu`` on a thread each, those ``on_cuda`` with launches for several."""
        with ExitStack() as stack:
            stack.enter_context(self.bar.bar)
            self.stop = stack.enter_context(stop_request())
            for variable, value in ((shared_request, self.stop), (shared_bar, self.bar), (shared_rows, SharedRows())):
                stack.enter_context(_set(variable, value))
            waiting, threads = deque(on_cpu), _threads(len(on_cpu))
            if threads <= 1:
                others, threads = [*on_cpu, *others], 0
            if len(on_cuda) == 1:
                others, on_cuda = [*others, *on_cuda], []
            if not threads and not on_cuda:
                self._one_after_another(others)
                return
            cuda = stack.enter_context(closing(Together(len(on_cuda), self.exact)))
            with ThreadPoolExecutor(threads + len(on_cuda), "minigen-fit") as pool:  # waits for them, come what may
                try:
                    workers = [pool.submit(copy_context().run, self._on_a_core, waiting) for _ in range(threads)]
                    for number, i in enumerate(on_cuda):
                        workers.append(pool.submit(copy_context().run, self._on_a_gpu, cuda, number, i))
                    self._one_after_another(others)
                    while wait(workers, timeout=SECONDS_BETWEEN_READS).not_done:
                        pass  # a signal that has come to another thread is handled when this one runs
                    for worker in workers:
                        worker.result()
                except BaseException:  # a Ctrl-C that was not taken
                    self.stop.cancelled = True
                    raise

    def _on_a_gpu(self, cuda: Together, number: int, i: int) -> None:
        """The training of model ``i``, the one of this ``number`` on a GPU."""
        with cuda.member(number):
            self._train(i)

    def _on_a_core(self, waiting: deque[int]) -> None:
        """One thread's work: the next model that waits, until there is none."""
        from minigen.cpu import beside_others

        with beside_others():
            while waiting:
                try:
                    i = waiting.popleft()
                except IndexError:  # another thread was faster
                    break
                self._train(i)

    def _one_after_another(self, numbers: list[int]) -> None:
        for i in numbers:
            self._train(i)

    def _train(self, i: int) -> None:
        if self.stop.cancelled:
            return
        try:
            self.fit(self.models[i])
        except TrainingDiverged as error:
            self.diverged[i] = error
        except BaseException as error:
            error.add_note(f"models[{i}]: {self.models[i]!r}")
            self.error = self.error or error
            self.stop.cancelled = True
        self.bar.end(i in self.diverged)


def _threads(models: int) -> int:
    """How many threads train so many models on the CPU."""
    if models < 2:
        return models
    from minigen.cpu import get_num_threads

    return min(models, get_num_threads())


def _tell(diverged: dict[int, TrainingDiverged], models: list[Any], how: str) -> None:
    """Raise or warn where any has diverged."""
    if not diverged:
        return
    diverged = dict(sorted(diverged.items()))
    first = next(iter(diverged.values()))
    which = listed(f"models[{i}] in step {error.step}" for i, error in diverged.items())
    message = f"{len(diverged)} of {len(models)} models diverged, the others are trained: {which}. The first: {first}"
    if how == "raise":
        raise SomeDiverged(message, errors=diverged) from first
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def listed(items: Iterable[str], most: int = 6) -> str:
    """``items``, and how many more there are."""
    items = list(items)
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
