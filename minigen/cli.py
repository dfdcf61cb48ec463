"""The command ``minigen``. Each command imports what it computes with, so that ``--help`` answers quickly."""

from __future__ import annotations

import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from minigen import __version__

if TYPE_CHECKING:
    import numpy as np

    from minigen.training.loop import EpochEnd

FAILED, BAD_USE = 1, 2
"""Exit codes: the machine would not (device, file system, divergence), bad usage or input."""

PICTURED = 64  # samples in a training's pictures
RECONSTRUCTED = 32
PICTURES_A_RUN = 10  # how many times a training shows its progress unless told otherwise
WHILE_RESUMING = ("epochs", "learning_rate", "device", "precision")  # what may change in the middle of a training
UsageError = typer.BadParameter.__base__  # known under another name in each version of typer


def run(arguments: list[str]) -> int:
    """Run the command line, report errors in one line; the exit code."""
    if arguments in ([], ["train"]):
        arguments = [*arguments, "--help"]
    try:
        return app(args=arguments, prog_name="minigen", standalone_mode=False) or 0
    except typer.Abort:  # what typer makes of KeyboardInterrupt, if not an exit code
        return _code_of_signal(signal.SIGINT)
    except UsageError as error:  # type: ignore[misc]
        return _report(error.format_message(), BAD_USE)
    except (ValueError, TypeError) as error:
        return _report(_as_option(str(error)), BAD_USE)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return _report(reason, FAILED)
    except (RuntimeError, ArithmeticError, MemoryError, ImportError) as error:  # device, download, divergence
        return _report(str(error) or type(error).__name__, FAILED)


def _code_of_signal(number: int) -> int:
    """As shells have it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + number


def _report(message: str, code: int) -> int:
    """Tell an error on stderr; called while it is being handled."""
    if "--traceback" in sys.argv or os.environ.get("MINIGEN_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"minigen: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _as_option(message: str) -> str:
    """A message about an argument of the Python API, such as ``batch_size must be ...``, about the option instead."""
    if message.startswith("X: "):
        return "--data" + message.removeprefix("X")
    name, must, rest = message.partition(" must ")
    argument, bracket, index = name.partition("[")
    if must and (argument == "X" or any(argument in inspect.signature(f).parameters for f in (gan, vae, sample))):
        return ("--data" if argument == "X" else "--" + argument.replace("_", "-")) + bracket + index + must + rest
    return message


# --- options ------------------------------------------------------------------------------------


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def _sizes(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        message = f"{text!r} is not a list of layer sizes such as 128 or 256,512 (none: no hidden layer)"
        raise typer.BadParameter(message) from None


def _path(text: str) -> Path:
    from minigen.paths import user_path

    if not text:
        raise typer.BadParameter("'' is no path: name a file or a folder, . for this one")
    return user_path(text)


def _switch(text: str) -> str | bool:
    choices: dict[str, str | bool] = {"auto": "auto", "yes": True, "no": False}
    if text not in choices:
        raise typer.BadParameter(f"{text!r} is none of auto, yes and no")
    return choices[text]


PARSERS: dict[str, Callable[[str], Any]] = {
    "INT": _integer,
    "FLOAT": _number,
    "SIZES": _sizes,
    "auto|yes|no": _switch,
    "DIR": _path,
    "FILE": _path,
    "MODEL": _path,
}
DATA, RUN, MODEL, OPTIMIZER = "Data and results", "Run", "Model", "Optimizer"


def _option(panel: str, metavar: str, help: str, *names: str) -> Any:
    parser = PARSERS.get(metavar)
    return typer.Option(*names, help=help, metavar=metavar, parser=parser, show_default=False, rich_help_panel=panel)


def _setting(panel: str, metavar: str, help: str, default: str) -> Any:
    """A hyper-parameter, named as in the Python API, and its default in the article's preset."""
    return _option(panel, metavar, f"{help} Default: {default}.")


Standardize = Annotated[
    Any,
    _setting(
        MODEL,
        "auto|yes|no",
        "Train on columns of mean 0 and variance 1; samples are in the data's units. auto: of "
        "floating data with a linear output or the gaussian likelihood.",
        "auto",
    ),
]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", parser=_path, help="A model file, or the folder of a run.")]
Device = Annotated[
    str, _option(RUN, "NAME", "auto, numpy, cpu, cuda or cuda:1; see minigen devices. Default: auto.", "--device")
]
Precision = Annotated[
    str | None,
    _option(
        RUN,
        "NAME",
        "Of matrix products. numpy: ieee. cpu: ieee, bf16x6 (an error like float32's, on AMX) or bf16. "
        "cuda: tf32x3 (an error like float32's at the speed of tensor cores), ieee, tf32 or bf16. "
        "auto: the fastest with an error like float32's. Default: auto.",
        "--precision",
    ),
]
DataName = Annotated[
    str | None,
    _option(
        DATA,
        "NAME|FILE",
        "mnist-sample (5,000 digits inside the package), mnist, fashion-mnist; a file: .csv (numbers, with a line of "
        "names or not), .parquet, .npy, .npz (FILE.npz:KEY names one of several arrays) or IDX; or a folder of .png "
        "pictures of one size. Default: mnist-sample, or the data that MODEL was trained on.",
        "--data",
    ),
]
Out = Annotated[
    Path | None,
    _option(DATA, "DIR", "Folder for the results. Default: runs/gan or runs/vae, with -2, -3, ... if taken.", "--out"),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace the run that DIR holds; its files go first.", rich_help_panel=DATA)
]
Resume = Annotated[
    Path | None,
    _option(
        DATA,
        "MODEL",
        "Go on training this model, in its folder unless --out names another: --epochs more, or what an interruption "
        "left. Its settings stay, but for --learning-rate and --precision.",
    ),
]
SampleEvery = Annotated[
    int | None,
    _option(
        DATA,
        "INT",
        "Epochs from one sample picture and saved model to the next; 0: only at the end. Default: a "
        "tenth of the epochs.",
    ),
]
Threads = Annotated[int | None, _option(RUN, "INT", "Threads of the device cpu. Default: one a core.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=RUN)]
Preset = Annotated[
    str | None,
    _option(
        RUN,
        "NAME",
        "article, or quality: wider, slower, clearer pictures. Other options override it. Default: article.",
    ),
]
BatchSize = Annotated[int | None, _setting(RUN, "INT", "Rows a step.", "128")]
Seed = Annotated[
    int | None,
    _setting(
        RUN,
        "INT",
        "Of weights, order and noise; the same seed gives the same bits on the same device and instruction "
        "set, elsewhere the same up to rounding.",
        "0",
    ),
]
ACTIVATION = "Of the hidden layers: linear, relu, leaky_relu, tanh, sigmoid or softplus."
ItemFile = Annotated[
    Path | None,
    _option(
        DATA,
        "FILE",
        "Where to: .png (a grid), .csv or .npy. Default: samples or reconstructions, .png for pictures.",
        "--out",
    ),
]
Columns = Annotated[int | None, _option(DATA, "INT", "Pictures in a line of the grid. Default: about square.")]


def _auto_or_bool(text: str) -> str | bool:
    words: dict[str, str | bool] = {"auto": "auto", "yes": True, "no": False}
    if text not in words:
        raise typer.BadParameter(f"{text!r} is none of auto, yes and no")
    return words[text]


INIT = "Initial weights: glorot_uniform, glorot_normal, he_uniform, he_normal, or auto: He for rectifiers, else Glorot."
Optimizer = Annotated[str | None, _setting(OPTIMIZER, "NAME", "adam, adamw or sgd.", "adam")]
Beta2 = Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Decay of Adam's second moment.", "0.999")]
Eps = Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Adam's epsilon.", "1e-8")]
Momentum = Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Of sgd.", "0")]
WeightDecay = Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Of adamw (decoupled) and sgd.", "0")]


class _TrainFirst(TyperGroup):
    """Lists the command that comes first in use first."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: name != "train")


app = typer.Typer(cls=_TrainFirst, add_completion=False, pretty_exceptions_enable=False)
train = typer.Typer(help="Train a model, on digits or on your own data.")
app.add_typer(train, name="train")


def _command(group: typer.Typer) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of ``group``; its docstring is the help, each paragraph to be wrapped as a whole."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")
        return group.command(help=help)(function)

    return register


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"minigen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from; so does MINIGEN_TRACEBACK=1.")
    ] = False,
) -> None:
    """Train a GAN or a VAE with gradients derived by hand, and draw with it.

    Two commands to begin with, without any data or network:

      minigen train gan --preset quality

      minigen sample runs/gan --out grid.png
    """


# --- training -----------------------------------------------------------------------------------


@_command(train)
def gan(
    data: DataName = None,
    out: Out = None,
    force: Force = False,
    resume: Resume = None,
    sample_every: SampleEvery = None,
    device: Device = "auto",
    precision: Precision = None,
    threads: Threads = None,
    quiet: Quiet = False,
    preset: Preset = None,
    epochs: Annotated[int | None, _setting(RUN, "INT", "Passes over the data.", "300")] = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    latent_dim: Annotated[int | None, _setting(MODEL, "INT", "Width of the noise.", "100")] = None,
    hidden: Annotated[
        Any, _setting(MODEL, "SIZES", "Hidden layers of the generator: 128 or 256,512 or none.", "128")
    ] = None,
    hidden_discriminator: Annotated[
        Any, _option(MODEL, "SIZES", "And of the discriminator. Default: these in reverse.")
    ] = None,
    activation: Annotated[str | None, _setting(MODEL, "NAME", ACTIVATION, "leaky_relu")] = None,
    output: Annotated[
        str | None,
        _setting(
            MODEL,
            "NAME",
            "The generator's last activation, which must reach the data: tanh, sigmoid, linear or auto.",
            "auto",
        ),
    ] = None,
    standardize: Standardize = None,
    loss: Annotated[
        str | None, _setting(MODEL, "NAME", "The generator's: non_saturating or minimax.", "non_saturating")
    ] = None,
    init: Annotated[str | None, _setting(MODEL, "NAME", INIT, "auto")] = None,
    optimizer: Optimizer = None,
    learning_rate: Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Step size.", "0.0002")] = None,
    beta1: Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Decay of Adam's first moment.", "0.5")] = None,
    beta2: Beta2 = None,
    eps: Eps = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
) -> None:
    """Train a generative adversarial network.

    Writes into DIR: model.safetensors, history.csv, losses.png, samples.png, and on the way samples-epoch-0010.png and
    so on, from the same noise each time. Data that are no pictures give .csv or .npy files instead. Ctrl-C ends the
    training and keeps what was learnt.

    The losses tell which player is ahead, not how good the samples are: 1.39 for the discriminator and 0.69 for the
    generator is where it cannot tell real from generated.

    Examples:

      minigen train gan --preset quality

      minigen train gan --preset quality --data mnist --epochs 25 --out runs/digits

      minigen train gan --data table.csv

      minigen train gan --resume runs/gan --epochs 50

    The first draws digits that can be read, in about four minutes of one core's time (AVX2); the second takes about 12,
    and with all the preset's 120 epochs about an hour.
    """
    options = SimpleNamespace(**locals())
    from minigen import GAN

    _train(GAN, options)


@_command(train)
def vae(
    data: DataName = None,
    out: Out = None,
    force: Force = False,
    resume: Resume = None,
    sample_every: SampleEvery = None,
    device: Device = "auto",
    precision: Precision = None,
    threads: Threads = None,
    quiet: Quiet = False,
    preset: Preset = None,
    epochs: Annotated[int | None, _setting(RUN, "INT", "Passes over the data.", "10")] = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    latent_dim: Annotated[int | None, _setting(MODEL, "INT", "Width of the latent z.", "20")] = None,
    hidden: Annotated[
        Any,
        _setting(MODEL, "SIZES", "Hidden layers of the encoder, and in reverse the decoder's: 400 or 512,256.", "400"),
    ] = None,
    activation: Annotated[str | None, _setting(MODEL, "NAME", ACTIVATION, "relu")] = None,
    likelihood: Annotated[
        str | None, _setting(MODEL, "NAME", "bernoulli for data in 0 to 1, gaussian for any.", "bernoulli")
    ] = None,
    variance: Annotated[float | None, _setting(MODEL, "FLOAT", "Of the gaussian likelihood.", "1")] = None,
    standardize: Standardize = None,
    beta: Annotated[float | None, _setting(MODEL, "FLOAT", "Weight of the KL divergence.", "1")] = None,
    init: Annotated[str | None, _setting(MODEL, "NAME", INIT, "glorot_uniform")] = None,
    optimizer: Optimizer = None,
    learning_rate: Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Step size.", "0.001")] = None,
    beta1: Annotated[float | None, _setting(OPTIMIZER, "FLOAT", "Decay of Adam's first moment.", "0.9")] = None,
    beta2: Beta2 = None,
    eps: Eps = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
) -> None:
    """Train a variational autoencoder.

    Writes into DIR: model.safetensors, history.csv, losses.png, samples.png, reconstructions.png (originals beside
    their reconstructions), and on the way samples-epoch-0001.png and so on, from the same noise each time. Data that
    are no pictures give .csv or .npy files instead. Ctrl-C ends the training and keeps what was learnt.

    Examples:

      minigen train vae --preset quality

      minigen train vae --data table.csv --likelihood gaussian --latent-dim 3 --hidden 64,32

      minigen train vae --resume runs/vae --epochs 5
    """
    options = SimpleNamespace(**locals())
    from minigen import VAE

    _train(VAE, options)


def _train(family: Any, options: SimpleNamespace) -> None:
    """Train a model of ``family`` as the options of its command say."""
    from minigen import checks
    from minigen.datasets.load import resolve
    from minigen.run_folder import reserve

    model, epochs, source = _resumed(family, options) if options.resume else _fresh(family, options)
    every = max(1, epochs // PICTURES_A_RUN)
    if options.sample_every is not None:
        every = checks.integer("sample_every", options.sample_every, 0)
    _set_threads(options.threads, options.device)
    items = resolve(source)
    model.partial_fit(items, epochs=0, progress=False)  # no step yet: settings, device and data pass every check
    model.set_params(epochs=model.history_.epochs + epochs)
    model.source_ = source
    with reserve(family.kind, options.out, data=source, resume=options.resume, force=options.force) as folder:
        _train_in(folder, model, epochs, every, items, options)


def _train_in(folder: Path, model: Any, epochs: int, every: int, items: Any, options: SimpleNamespace) -> None:
    """Train ``model`` for ``epochs`` more and write the results into ``folder``."""
    from minigen import output
    from minigen.training.signals import stop_request

    say = _silent if options.quiet else _say
    source = model.source_
    say(f"{source}: {' x '.join(map(str, items.shape))}, {model.data_dtype_}")
    where = f"{model.device_} ({model.precision_})"
    say(f"{_architecture(model)}, on {where}, {epochs} epoch{'s' * (epochs != 1)}")
    if _could_be_clearer(model, options):
        say("hint: --preset quality draws clearer pictures than this small model")
    callbacks = [_watcher(folder, every, say)] if every else []
    model.partial_fit(items, epochs=epochs, callbacks=callbacks, progress=False if options.quiet else None)
    with stop_request() as late:  # what a signal now interrupts is less than what it would lose
        _write_run(model, folder, items, say)
    stopped_by = model.history_.stop_signal or late.number
    if stopped_by:
        done = f"{model.history_.epochs} of {model.epochs} epochs are done and saved"
        print(f"minigen: interrupted: {done}; minigen train {model.kind} --resume {folder} goes on", file=sys.stderr)
        raise typer.Exit(_code_of_signal(stopped_by))
    say(f"next: minigen sample {folder} -n {PICTURED} --out new{output.natural_suffix(model)}")


def _could_be_clearer(model: Any, options: SimpleNamespace) -> bool:
    """Whether pictures are trained with the small model of an article by nobody's choice."""
    from minigen import output
    from minigen.training.progress import is_small

    chosen = options.preset is not None or options.resume is not None
    return not chosen and is_small(model) and output.natural_suffix(model) == ".png"


def _settings(family: Any, options: SimpleNamespace) -> dict[str, Any]:
    """The hyper-parameters among the options that were given."""
    values = vars(options)
    return {name: values[name] for name in family().get_params() if values[name] is not None}


def _fresh(family: Any, options: SimpleNamespace) -> tuple[Any, int, str]:
    """A new model, its epochs, and the name of its data."""
    from minigen import checks

    model = family.preset(options.preset or "article", **_settings(family, options))
    data = "mnist-sample" if options.data is None else options.data
    return model, checks.integer("epochs", model.epochs, 0), data


def _resumed(family: Any, options: SimpleNamespace) -> tuple[Any, int, str]:
    """The saved model to go on with, the epochs to add, and the name of its data."""
    from minigen import checks, load

    settings = _settings(family, options)
    fixed = [name for name in settings if name not in WHILE_RESUMING] + ["preset"] * (options.preset is not None)
    if fixed:
        option = "--" + fixed[0].replace("_", "-")
        raise ValueError(f"{option} cannot be given with --resume: the model keeps the settings it was trained with")
    options.resume = _model_file(options.resume)
    model = load(options.resume, options.device, options.precision)
    _require(model, family.kind, options.resume)
    model.learning_rate = settings.get("learning_rate", model.learning_rate)
    left = model.epochs - model.history_.epochs
    if options.epochs is None and left <= 0:
        raise ValueError(f"the model has had all its {model.epochs} epochs; say how many more with --epochs")
    epochs = left if options.epochs is None else checks.integer("epochs", options.epochs, 0)
    return model, epochs, _source(model) if options.data is None else options.data


def _source(model: Any) -> str:
    """The data that ``model`` was trained on, as --data named them."""
    if model.source_ is None:
        raise ValueError("--data is needed: the model was trained in Python, so its file names no data")
    return model.source_


def _set_threads(threads: int | None, device: str) -> None:
    from minigen.device import get_backend

    if threads is None:
        return
    name = get_backend(device).name
    if name != "cpu":
        raise ValueError(f"--threads is for the device cpu, not for {name}")
    from minigen.cpu import set_num_threads

    set_num_threads(threads)


def _watcher(folder: Path, every: int, say: Callable[[str], None]) -> Callable[[EpochEnd], None]:
    """A callback that shows the model's progress, and saves it, once in ``every`` epochs."""
    from minigen import output

    def watch(end: EpochEnd) -> None:
        if end.epoch % every:
            return
        _keep(end.model, folder)
        path = folder / f"samples-epoch-{end.epoch:04d}{output.natural_suffix(end.model)}"
        output.write_items(path, end.model, end.model.sample(PICTURED, seed=end.model.seed))
        losses = ", ".join(f"{name} {value:.4g}" for name, value in end.losses.items())
        say(f"epoch {end.epoch}/{end.epochs}: {losses}; {path}")

    return watch


def _keep(model: Any, folder: Path) -> None:
    from minigen.training.checkpoint import MODEL

    model.save(folder / MODEL)
    model.history_.to_csv(folder / "history.csv")


def _write_run(model: Any, folder: Path, items: Any, say: Callable[[str], None]) -> None:
    """All that a training leaves in its folder."""
    from minigen import output
    from minigen.training.checkpoint import MODEL

    _keep(model, folder)
    suffix = output.natural_suffix(model)
    output.write_items(folder / f"samples{suffix}", model, model.sample(PICTURED, seed=model.seed))
    names = [MODEL, "history.csv", f"samples{suffix}"]
    if model.kind == "vae":
        originals = _some_items(items, RECONSTRUCTED)
        names.append(f"reconstructions{suffix}")
        output.write_items(folder / names[-1], model, originals, model.reconstruct(originals))
    try:
        model.history_.plot(folder / "losses.png")
        names.append("losses.png")
    except (ImportError, ValueError) as error:
        say(f"losses.png is not drawn: {error}")
    say(f"results in {folder}: {', '.join(names)}")


# --- using a model --------------------------------------------------------------------------------


@_command(app)
def sample(
    model: ModelFile,
    n: Annotated[int, _option(DATA, "INT", "How many. Default: 64.", "-n")] = 64,
    out: ItemFile = None,
    seed: Annotated[
        int | None,
        _option(
            RUN,
            "INT",
            "Of the noise: the same seed draws the same samples, to the bit on the same device and "
            "instruction set. Default: a fresh one.",
        ),
    ] = None,
    columns: Columns = None,
    device: Device = "auto",
) -> None:
    """Draw new samples with a trained model.

    Examples:

      minigen sample runs/gan

      minigen sample runs/gan -n 100 --seed 1 --out grid.png

      minigen sample runs/vae/model.safetensors -n 10000 --out samples.npy
    """
    import secrets

    from minigen import checks, load, output

    checks.integer("-n", n, 1)
    seed = secrets.randbits(32) if seed is None else checks.seed("--seed", seed)
    trained = load(_model_file(model), device)
    path = out or Path(f"samples{output.natural_suffix(trained)}")
    output.check_item_file(path, trained)
    output.write_items(path, trained, trained.sample(n, seed=seed), across=columns)
    print(f"{path}: {n} samples, seed {seed}")


@_command(app)
def reconstruct(
    model: ModelFile,
    data: DataName = None,
    n: Annotated[int, _option(DATA, "INT", "How many rows, evenly spread over the data. Default: 32.", "-n")] = 32,
    out: ItemFile = None,
    columns: Columns = None,
    device: Device = "auto",
) -> None:
    """Set data beside what a VAE makes of them.

    A .png has each original on the left of its reconstruction; a .csv has the columns of the original, then those of
    the reconstruction, which begin with r; a .npy has shape n, 2, item.

    Examples:

      minigen reconstruct runs/vae

      minigen reconstruct runs/vae --data mnist -n 50 --out pairs.png
    """
    from minigen import checks, load, output
    from minigen.datasets.frames import check_columns
    from minigen.datasets.load import resolve
    from minigen.run_folder import check_spares_data

    checks.integer("-n", n, 1)
    path = _model_file(model)
    trained = load(path, device)
    _require(trained, "vae", path)
    source = _source(trained) if data is None else data
    items = resolve(source)
    check_columns("X", items, trained._column_names())
    originals = _some_items(items, n)
    target = out or Path(f"reconstructions{output.natural_suffix(trained)}")
    output.check_item_file(target, trained)
    check_spares_data(target, source)
    pairs = (items.reshape(-1, *trained.item_shape_) for items in (originals, trained.reconstruct(originals)))
    output.write_items(target, trained, *pairs, across=columns)
    print(f"{target}: {len(originals)} rows and their reconstructions")


@_command(app)
def info(model: ModelFile) -> None:
    """Tell what a model file holds: settings, layers, parameters, data and training.

    Example:

      minigen info runs/gan
    """
    from minigen import load
    from minigen.datasets.frames import listed

    path = _model_file(model)
    trained = load(path, "numpy")
    print(f"{path}: {trained.kind.upper()}, {_parameters(trained):,} parameters")
    item = f"{' x '.join(map(str, trained.item_shape_))}, {trained.data_dtype_}"
    names = trained._column_names()
    columns = [] if names is None else [("columns", listed(names))]
    _print_table("data", [("item", item), *columns, ("source", trained.source_ or "not named")])
    _print_table("training", _training_summary(trained.history_, trained.epochs))
    settings = trained.get_params()
    del settings["device"]  # that of this command, not of the training
    _print_table("settings", settings.items())
    layers = [layer for net in trained.networks_ for layer in net.layers]
    _print_table("layers", [(at.name, str(at)) for at in layers])


def _training_summary(history: Any, planned: int) -> list[tuple[str, Any]]:
    seconds = f"{sum(history.seconds):.1f} s in steps"
    rows: list[tuple[str, Any]] = [("epochs", f"{history.epochs} of {planned}, {history.steps} steps, {seconds}")]
    if history.stop_reason == "interrupted":
        rows.append(("stopped", "interrupted"))
    for name, means in zip(history.names, history.epoch_means().T, strict=True):
        rows += [(name, f"{means[0]:.4g} in the first epoch, {means[-1]:.4g} in the last")] if len(means) else []
    return rows


# --- the machine and the gradients ----------------------------------------------------------------


@_command(app)
def devices() -> None:
    """List the devices, whether each can be used here, and if not, why and what to install."""
    from minigen.device import devices, get_backend

    for state in devices().values():
        print(f"{state.name:5}  {'usable' if state.usable else 'not usable'}: {state.detail}")
    print(f"auto is {get_backend('auto').name}")


@_command(app)
def gradcheck(
    device: Annotated[
        str | None, _option(RUN, "NAME", "Check this device. Default: every one that can be used here.", "--device")
    ] = None,
    seed: Annotated[int | None, _option(RUN, "INT", "Of the random points. Default: a fresh one.")] = None,
) -> None:
    """Compare the gradients derived by hand with finite differences, and each device with the reference.

    Each operation, and whole steps of the GAN and the VAE, at random points; the error is relative. The exit code is 1
    if any check fails.
    """
    import secrets

    from minigen import checks
    from minigen.device import devices, get_backend
    from minigen.gradcheck import run

    names = [state.name for state in devices().values() if state.usable] if device is None else [device]
    seed = secrets.randbits(32) if seed is None else checks.seed("--seed", seed)
    rows = run([get_backend(name) for name in names], seed)
    widths = [max(len(getattr(row, name)) for row in rows) for name in ("operation", "device", "check")]
    line = "{{:{}}}  {{:{}}}  {{:{}}}  {{:>8}}  {{:>8}}  {{}}".format(*widths).format
    print(line("operation", "device", "check", "error", "allowed", "result"))
    for row in rows:
        result = "pass" if row.passed else "FAIL"
        print(line(row.operation, row.device, row.check, f"{row.error:.1e}", f"{row.tolerance:.0e}", result))
    failed = sum(not row.passed for row in rows)
    for formula in dict.fromkeys(row.formula for row in rows if row.formula and not row.passed):
        print(f"wrong: {formula}")
    print(f"{len(rows)} checks, {failed} failed; repeat with --seed {seed}")
    if failed:
        raise typer.Exit(FAILED)


CudaPrecision = Annotated[
    str, typer.Option(metavar="NAME", help="Of matrix products: ieee, tf32x3, tf32 or bf16.", rich_help_panel=RUN)
]
CudaDevice = Annotated[str, typer.Option(metavar="NAME", help="cuda or cuda:1.", rich_help_panel=RUN)]


@_command(app)
def explain(
    model: Annotated[str, typer.Argument(metavar="gan|vae", help="Whose default training step.")],
    device: CudaDevice = "cuda",
    precision: CudaPrecision = "tf32x3",
) -> None:
    """List the launches of one training step on a GPU: what each fuses, its FLOPs, bytes and floor.

    Where there is no GPU, the plan for an H100 is shown, without times.
    """
    from minigen.cuda.explain import explain

    print(explain(model, device=device, precision=precision))


@_command(app)
def tune(device: CudaDevice = "cuda", precision: CudaPrecision = "tf32x3") -> None:
    """Measure the tiles of the GPU's matrix kernels on this card, and keep the best for later runs."""
    from minigen.cuda.tune import tune

    print(f"tiles kept in {tune(device, precision)}")


# --- tools ------------------------------------------------------------------------------------


def _model_file(path: Path) -> Path:
    """The model at ``path``, a file or the folder of a run."""
    from minigen.training.checkpoint import model_file

    file = model_file(path)
    if not file.is_file():
        raise ValueError(f"MODEL: there is no model at {file}")
    return file


def _require(model: Any, kind: str, path: Path) -> None:
    if model.kind != kind:
        raise ValueError(f"MODEL must be a {kind}, but {path} holds a {model.kind}")


def _some_items(data: Any, n: int) -> np.ndarray:
    from minigen.datasets.load import as_rows
    from minigen.output import spread

    rows, item_shape = as_rows(data, min_rows=1)
    return rows[spread(n, len(rows))].reshape(-1, *item_shape)


def _parameters(model: Any) -> int:
    return sum(net.parameter_count for net in model.networks_)


def _architecture(model: Any) -> str:
    nets = ", ".join(f"{net.name} {'-'.join(map(str, net.sizes))}" for net in model.networks_)
    return f"{model.kind.upper()}: {nets}, {_parameters(model):,} parameters"


def _print_table(title: str, rows: Iterable[tuple[str, Any]]) -> None:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:{width}}  {value}")


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text)  # goes round the progress bar
    sys.stdout.flush()


def _silent(text: str) -> None:
    """--quiet."""
