"""One training, from what the command line says to the files in its folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minigen.cli.exits import code_of_signal
from minigen.cli.options import TrainingOptions
from minigen.cli.reporting import Reporter
from minigen.cli.saved import model_file, parameter_count, require_kind, some_labelled, source_of, with_labels
from minigen.cli.validation import apart, leaves_out

if TYPE_CHECKING:
    from minigen.training.loop import EpochEnd

PICTURED = 64  # samples in a training's pictures
RECONSTRUCTED = 32
PICTURES_A_RUN = 10  # how many times a training shows its progress unless told otherwise
WHILE_RESUMING = ("epochs", "learning_rate", "device", "precision")  # what may change in the middle of a training


def train(family: Any, options: TrainingOptions, settings: dict[str, Any]) -> None:
    """Train a model of ``family`` as its command says; ``settings`` are the hyper-parameters that were given."""
    from minigen import checks
    from minigen.run_folder import reserve

    resume = None if options.resume is None else model_file(options.resume)
    if resume is None:
        model, epochs, source = _fresh(family, options, settings)
    else:
        model, epochs, source = _resumed(family, resume, options, settings)
    every = max(1, epochs // PICTURES_A_RUN)
    if options.sample_every is not None:
        every = checks.integer("sample_every", options.sample_every, 0)
    set_threads(options.threads, settings.get("device", "auto"))
    named = labels_named(model, options, settings)
    items, labels, how = apart(options, named, *with_labels(source, named))
    never_seen = leaves_out(options, how) and (resume is None or model.left_out_)
    # No step yet: settings, device and data pass every check.
    model.partial_fit(items, labels, epochs=0, progress=False, **how)
    model.set_params(epochs=model.history_.epochs + epochs)
    model.source_, model.labels_source_, model.left_out_ = source, named, never_seen
    with reserve(family.kind, options.out, data=source, resume=resume, force=options.force) as folder:
        _train_in(folder, model, epochs, every, items, labels, options, how)


def labels_named(model: Any, options: TrainingOptions, settings: dict[str, Any]) -> str | None:
    """What --labels says, or said when the model was trained that is resumed."""
    if settings.get("conditional") is False and options.labels is not None:
        raise ValueError("--labels cannot be given with --conditional no, which ignores labels")
    if settings.get("conditional") is True and options.labels is None:
        raise ValueError("--labels is needed with --conditional yes: it says which labels")
    if options.resume is None or options.labels is not None:
        return options.labels
    if model.conditions_ is not None and model.labels_source_ is None:
        raise ValueError("--labels is needed: the model was trained with labels in Python, so its file names none")
    return model.labels_source_


def _train_in(
    folder: Path,
    model: Any,
    epochs: int,
    every: int,
    items: Any,
    labels: Any,
    options: TrainingOptions,
    how: dict[str, Any],
) -> None:
    """Train ``model`` for ``epochs`` more and write the results into ``folder``."""
    from minigen import output
    from minigen.training.signals import stop_request

    say = print_nothing if options.quiet else print_line
    source = model.source_
    say(f"{source}: {' x '.join(map(str, items.shape))}, {model.data_dtype_}")
    where = f"{model.device_} ({model.precision_})"
    say(f"{_architecture(model)}, on {where}, {epochs} epoch{'s' * (epochs != 1)}")
    if _could_be_clearer(model, options):
        say("hint: --preset quality draws clearer pictures than this small model")
    reporter = None if options.no_report else Reporter(folder, items, labels, say)
    callbacks = [watcher(folder, every, say, reporter)] if every else []
    if how:
        callbacks.insert(0, _teller(say))
    progress = False if options.quiet else None
    try:
        model.partial_fit(items, labels, epochs=epochs, callbacks=callbacks, progress=progress, **how)
    except Exception:
        if reporter is not None:
            reporter.give_up(model)
        raise
    if options.restore_best and model.history_.evaluations.best_epoch is not None:
        say(f"the model is that of epoch {model.history_.evaluations.best_epoch}, the best one")
    with stop_request() as late:  # what a signal now interrupts is less than what it would lose
        write_run(model, folder, items, labels, say, reporter)
    stopped_by = model.history_.stop_signal or late.number
    if stopped_by:
        done = f"{model.history_.epochs} of {model.epochs} epochs are done and saved"
        print(f"minigen: interrupted: {done}; minigen train {model.kind} --resume {folder} goes on", file=sys.stderr)
        raise typer.Exit(code_of_signal(stopped_by))
    say(f"next: minigen sample {folder} -n {PICTURED} --out new{output.natural_suffix(model)}")


def _could_be_clearer(model: Any, options: TrainingOptions) -> bool:
    """Whether pictures are trained with the small model of an article by nobody's choice."""
    from minigen import output
    from minigen.training.progress import is_small

    chosen = options.preset is not None or options.resume is not None
    return not chosen and is_small(model) and output.natural_suffix(model) == ".png"


def _fresh(family: Any, options: TrainingOptions, settings: dict[str, Any]) -> tuple[Any, int, str]:
    """A new model, its epochs, and the name of its data."""
    from minigen import checks

    model = family.preset(options.preset or "article", **settings)
    data = "mnist-sample" if options.data is None else options.data
    return model, checks.integer("epochs", model.epochs, 0), data


def _resumed(family: Any, path: Path, options: TrainingOptions, settings: dict[str, Any]) -> tuple[Any, int, str]:
    """The saved model to go on with, the epochs to add, and the name of its data."""
    from minigen import checks, load

    fixed = [name for name in settings if name not in WHILE_RESUMING] + ["preset"] * (options.preset is not None)
    if fixed:
        option = "--" + fixed[0].replace("_", "-")
        raise ValueError(f"{option} cannot be given with --resume: the model keeps the settings it was trained with")
    model = load(path, settings.get("device", "auto"), settings.get("precision"))
    require_kind(model, family.kind, path)
    model.learning_rate = settings.get("learning_rate", model.learning_rate)
    left = model.epochs - model.history_.epochs
    if "epochs" not in settings and left <= 0:
        raise ValueError(f"the model has had all its {model.epochs} epochs; say how many more with --epochs")
    epochs = checks.integer("epochs", settings.get("epochs", left), 0)
    return model, epochs, source_of(model) if options.data is None else options.data


def set_threads(threads: int | None, device: str) -> None:
    from minigen.device import get_backend

    if threads is None:
        return
    name = get_backend(device).name
    if name != "cpu":
        raise ValueError(f"--threads is for the device cpu, not for {name}")
    from minigen.cpu import set_num_threads

    set_num_threads(threads)


def watcher(
    folder: Path, every: int, say: Callable[[str], None], reporter: Reporter | None
) -> Callable[[EpochEnd], None]:
    """A callback that shows the model's progress, and saves it, once in ``every`` epochs."""
    from minigen import output

    def watch(end: EpochEnd) -> None:
        if end.epoch % every:
            return
        _keep(end.model, folder)
        path = folder / f"samples-epoch-{end.epoch:04d}{output.natural_suffix(end.model)}"
        output.write_samples(path, end.model, PICTURED, end.model.seed)
        if reporter is not None:
            reporter.refresh(end.model)
        losses = ", ".join(f"{name} {value:.4g}" for name, value in end.losses.items())
        say(f"epoch {end.epoch}/{end.epochs}: {losses}; {path}")

    return watch


def _teller(say: Callable[[str], None]) -> Callable[[EpochEnd], None]:
    """A callback that says what an evaluation has found."""

    def tell(end: EpochEnd) -> None:
        found, real = end.model.history_.evaluations.at(end.epoch), end.model.history_.evaluations.real
        if found:
            beside = {name: f" (real rows {real[name]:.4g})" if name in real else "" for name in found}
            text = ", ".join(f"{name} {value:.4g}{beside[name]}" for name, value in found.items())
            say(f"epoch {end.epoch}/{end.epochs}: {text}")

    return tell


def _keep(model: Any, folder: Path) -> None:
    from minigen.training.checkpoint import MODEL

    model.save(folder / MODEL)
    model.history_.to_csv(folder / "history.csv")


def write_run(
    model: Any, folder: Path, items: Any, labels: Any, say: Callable[[str], None], reporter: Reporter | None
) -> None:
    """All that a training leaves in its folder."""
    from minigen import output
    from minigen.training.checkpoint import MODEL

    _keep(model, folder)
    suffix = output.natural_suffix(model)
    output.write_samples(folder / f"samples{suffix}", model, PICTURED, model.seed)
    names = [MODEL, "history.csv", f"samples{suffix}"]
    if model.kind == "vae":
        originals, of_them = some_labelled(items, labels, RECONSTRUCTED)
        names.append(f"reconstructions{suffix}")
        output.write_items(folder / names[-1], model, originals, model.reconstruct(originals, of_them))
    try:
        model.history_.plot(folder / "losses.png")
        names.append("losses.png")
    except (ImportError, ValueError) as error:
        say(f"losses.png is not drawn: {error}")
    if reporter is not None:
        names += reporter.end(model)
    say(f"results in {folder}: {', '.join(names)}")


def _architecture(model: Any) -> str:
    nets = ", ".join(f"{net.name} {'-'.join(map(str, net.sizes))}" for net in model.networks_)
    return f"{model.kind.upper()}: {nets}, {parameter_count(model):,} parameters"


def print_line(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text)  # goes round the progress bar
    sys.stdout.flush()


def print_nothing(text: str) -> None:
    """--quiet."""
