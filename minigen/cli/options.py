"""How an option's text becomes a value, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

DATA, EVALUATION, RUN, MODEL, OPTIMIZER = "Data and results", "Evaluation", "Run", "Model", "Optimizer"
"""The panels of the help."""


def integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def number_or_word(text: str) -> float | str:
    """A number, or a word that the model knows the meaning of."""
    try:
        return float(text)
    except ValueError:
        return text


def number_or_pair(text: str) -> float | tuple[float, ...]:
    values = tuple(map(number, text.split(",")))
    return values[0] if len(values) == 1 else values


def sizes(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        message = f"{text!r} is not a list of layer sizes such as 128 or 256,512 (none: no hidden layer)"
        raise typer.BadParameter(message) from None


def names(text: str) -> list[str]:
    return [name.strip().replace("-", " ") for name in text.split(",")]


def words(values: dict[str, Any]) -> Callable[[str], Any]:
    """A parser that takes the words of ``values`` for what they stand for there."""

    def parse(text: str) -> Any:
        if text not in values:
            *others, last = values
            raise typer.BadParameter(f"{text!r} is none of {', '.join(others)} and {last}")
        return values[text]

    return parse


def path(text: str) -> Path:
    from minigen.paths import user_path

    if not text:
        raise typer.BadParameter("'' is no path: name a file or a folder, . for this one")
    return user_path(text)


PARSERS: dict[str, Callable[[str], Any]] = {
    "INT": integer,
    "FLOAT": number,
    "FLOAT|FLOAT,FLOAT": number_or_pair,
    "SIZES": sizes,
    "DIR": path,
    "FILE": path,
    "MODEL": path,
}
"""By metavar, what stands for the value in the help."""


def option(panel: str, metavar: str, help: str, *names: str, parser: Callable[[str], Any] | None = None) -> Any:
    """An option in a panel of the help; its values are read as ``metavar`` says unless ``parser`` is given."""
    parser = parser or PARSERS.get(metavar)
    return typer.Option(*names, help=help, metavar=metavar, parser=parser, show_default=False, rich_help_panel=panel)


ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", parser=path, help="A model file, or the folder of a run.")]
Device = Annotated[
    str, option(RUN, "NAME", "auto, numpy, cpu, cuda or cuda:1; see minigen devices. Default: auto.", "--device")
]
DataName = Annotated[
    str | None,
    option(
        DATA,
        "NAME|FILE",
        "mnist-sample (5,000 digits inside the package), mnist, fashion-mnist; a file: .csv (numbers, with a line of "
        "names or not), .parquet, .npy, .npz (FILE.npz:KEY names one of several arrays) or IDX; or a folder of .png "
        "pictures of one size. Default: mnist-sample, or the data that MODEL was trained on.",
        "--data",
    ),
]
LabelsName = Annotated[
    str | None,
    option(
        DATA,
        "own|NAME|FILE",
        "The labels of a conditional model: own, those of mnist-sample, mnist or fashion-mnist; a column of the table; "
        "or a file of one label a row, .npy, .txt or IDX. Default: none, or those that MODEL was trained with.",
        "--labels",
    ),
]
ItemFile = Annotated[
    Path | None,
    option(
        DATA,
        "FILE",
        "Where to: .png (a grid), .csv or .npy. Default: samples or reconstructions, .png for pictures.",
        "--out",
    ),
]
Columns = Annotated[int | None, option(DATA, "INT", "Pictures in a line of the grid. Default: about square.")]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training is told beside the hyper-parameters of its model."""

    data: DataName = None
    labels: LabelsName = None
    out: Annotated[
        Path | None,
        option(
            DATA, "DIR", "Folder for the results. Default: runs/gan or runs/vae, with -2, -3, ... if taken.", "--out"
        ),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that DIR holds; its files go first.", rich_help_panel=DATA)
    ] = False
    resume: Annotated[
        Path | None,
        option(
            DATA,
            "MODEL",
            "Go on training this model, in its folder unless --out names another: --epochs more, or what an "
            "interruption left. Its settings stay, but for --learning-rate and --precision.",
        ),
    ] = None
    sample_every: Annotated[
        int | None,
        option(
            DATA,
            "INT",
            "Epochs from one sample picture and saved model to the next; 0: only at the end. Default: a "
            "tenth of the epochs.",
        ),
    ] = None
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.", rich_help_panel=DATA)] = False
    evaluate_every: Annotated[
        int | None,
        option(
            EVALUATION,
            "INT",
            "Epochs from one evaluation to the next, on rows that are not trained on. Default: none, or a tenth of the "
            "epochs where another of these options is given.",
        ),
    ] = None
    validation: Annotated[
        str | None,
        option(
            EVALUATION,
            "NAME|FILE",
            "The rows to evaluate on; named as --data names them, and mnist-test, fashion-mnist-test. Default: every "
            "tenth row of the data, which is then not trained on.",
        ),
    ] = None
    metrics: Annotated[
        Any,
        option(
            EVALUATION,
            "NAME,NAME",
            "What to measure, of the metrics that minigen evaluate prints, hyphens for blanks: the first one decides "
            "which is best. Default: frechet-distance,coverage,copies-of-training-rows; of a VAE bound first.",
            parser=names,
        ),
    ] = None
    restore_best: Annotated[
        bool, typer.Option("--restore-best", help="Keep the weights of the best epoch.", rich_help_panel=EVALUATION)
    ] = False
    patience: Annotated[
        int | None, option(EVALUATION, "INT", "Stop after this many evaluations without a better one. Default: never.")
    ] = None
    preset: Annotated[
        str | None,
        option(
            RUN,
            "NAME",
            "article, or quality: wider, slower, clearer pictures. Other options override it. Default: article.",
        ),
    ] = None
    seeds: Annotated[
        str | None,
        option(
            RUN,
            "SEEDS",
            "Train a model with each of these seeds, such as 0-9 or 1,5,7, on the CPU a model a core: each in a folder "
            "of its own in DIR, with a table and a picture of all.",
        ),
    ] = None
    grid: Annotated[
        list[str] | None,
        option(
            RUN,
            "NAME=VALUES",
            "Train a model with each value of a setting, such as learning_rate=1e-4,2e-4; where a value has commas of "
            "its own, between semicolons, 'hidden=128;256,128'. Several --grid, and --seeds, multiply.",
            parser=str,
        ),
    ] = None
    threads: Annotated[int | None, option(RUN, "INT", "Threads of the device cpu. Default: one a core.")] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=RUN)] = False
