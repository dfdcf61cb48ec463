"""``minigen train table``, and what ``sample``, ``evaluate`` and ``info`` do with a model of a table."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from minigen.cli.application import Command, command, train_group
from minigen.cli.exits import code_of_signal
from minigen.cli.options import DATA, MODEL, RUN, option
from minigen.errors import ArgumentError

FAMILIES = {"vae": "TableVAE", "gan": "TableGAN"}
PREVIEW = 64  # rows of samples.csv
TABLE_FILES = (".csv", ".parquet")

Types = Annotated[
    str | None,
    option(
        DATA,
        "NAME=TYPE,...",
        "What columns are that are not what they look like: numeric, integer, category, boolean or date.",
        "--types",
    ),
]
Exclude = Annotated[
    str | None, option(DATA, "NAME,...", "Columns to leave out, such as names and numbers of persons.", "--exclude")
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace the run that DIR holds; its files go first.", rich_help_panel=DATA)
]
Threads = Annotated[int | None, option(RUN, "INT", "Threads of the device cpu. Default: one a core.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=RUN)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the training of a table is told beside hyper-parameters."""

    data: Annotated[
        str | None,
        option(DATA, "FILE", "The table: .csv with a line of names, .csv.gz or .parquet.", "--data", parser=str),
    ] = None
    model: Annotated[str, option(MODEL, "|".join(FAMILIES), "Which model. Default: vae.", "--model")] = "vae"
    types: Types = None
    exclude: Exclude = None
    condition: Annotated[
        str | None, option(DATA, "NAME", "A column of few values that samples are asked for by.", "--condition")
    ] = None
    out: Annotated[
        Path | None, option(DATA, "DIR", "Folder for the results. Default: runs/table, with -2, ... if taken.", "--out")
    ] = None
    force: Force = False
    threads: Threads = None
    quiet: Quiet = False


class TableCommand(Command):
    """Its options are made when they are needed, as those of the other trainings are."""

    def get_params(self, ctx: Any) -> Any:
        if not self.params:
            made = _with_hyper_parameters()
            self.params, self.callback = made.params, made.callback
        return super().get_params(ctx)


def _with_hyper_parameters() -> Any:
    import minigen
    from minigen.cli.settings import parameters_of_all

    hints = get_type_hints(Options, include_extras=True)
    own = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Options)
    ]
    families = {name: getattr(minigen, family) for name, family in FAMILIES.items()}
    parameters = own + parameters_of_all(families)

    def run(**values: Any) -> None:
        options = Options(**{parameter.name: values.pop(parameter.name) for parameter in own})
        train(options, {name: value for name, value in values.items() if value is not None})

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    alone = typer.Typer(add_completion=False)
    alone.command()(run)
    return typer.main.get_command(alone)


@command(train_group, TableCommand)
def table() -> Any:
    """Train a model of a table: numbers, dates, categories, booleans and missing values.

    Prints what the columns are taken for. Writes into DIR: model.safetensors, history.csv, losses.png and samples.csv,
    a few synthetic rows. Ctrl-C ends the training and keeps what was learnt.

    Examples:

      minigen train table --data adult.csv

      minigen train table --data people.csv --exclude name,email --types zip=category --condition income

      minigen sample runs/table -n 10000 --out synthetic.csv
    """


def train(options: Options, settings: dict[str, Any]) -> None:
    """Train as the command says; ``settings`` are the hyper-parameters that were given."""
    import minigen
    from minigen import checks
    from minigen.cli.training import set_threads
    from minigen.run_folder import reserve
    from minigen.tables import find_columns
    from minigen.tables.reading import read_file

    if options.data is None:
        raise ArgumentError("data", "must be given: the table, a .csv or .parquet file")
    family = getattr(minigen, FAMILIES[checks.choice("model", options.model, FAMILIES)])
    foreign = [name for name in settings if name not in family._parameter_names()]
    if foreign:
        raise ArgumentError(foreign[0], f"is no setting of --model {options.model}")
    model = family(**settings)
    model._check_params()
    set_threads(options.threads, settings.get("device", "auto"))
    frame = without(read_file(options.data), options.exclude)
    types = types_of(options.types)
    say = (lambda text: None) if options.quiet else (lambda text: print(text, flush=True))
    found = find_columns(frame, types)
    say(f"{options.data}: {len(frame)} rows, {len(found.columns)} columns\n{found}")
    with reserve("table", options.out, data=options.data, resume=None, force=options.force) as folder:
        progress = False if options.quiet else None
        model.fit(frame, types=types, condition=options.condition, progress=progress)
        model.source_ = options.data
        _write_run(model, folder, say)
    history = model.history_
    if history.stop_signal:
        print(f"minigen: interrupted: {history.epochs} epochs are done and saved in {folder}", file=sys.stderr)
        raise typer.Exit(code_of_signal(history.stop_signal))
    say(f"next: minigen sample {folder} -n {len(frame)} --out synthetic.csv")


def without(frame: Any, exclude: str | None) -> Any:
    names = [] if exclude is None else [name.strip() for name in exclude.split(",")]
    if missing := [name for name in names if name not in frame.columns]:
        raise ArgumentError("exclude", f"names a column {missing[0]!r}; the table has {', '.join(frame.columns)}")
    return frame.drop(columns=names)


def types_of(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [pair.rpartition("=")[::2] for pair in text.split(",")]
    if not all(name for name, _ in pairs):
        raise ArgumentError("types", f"must be like zip=category,age=numeric, not {text!r}")
    return {name.strip(): kind.strip() for name, kind in pairs}


def _write_run(model: Any, folder: Path, say: Any) -> None:
    from minigen.training.checkpoint import MODEL

    model.save(folder / MODEL)
    model.history_.to_csv(folder / "history.csv")
    write(folder / "samples.csv", model.sample(PREVIEW, model.seed))
    names = [MODEL, "history.csv", "samples.csv"]
    try:
        model.history_.plot(folder / "losses.png")
        names.append("losses.png")
    except (ImportError, ValueError) as error:
        say(f"losses.png is not drawn: {error}")
    say(f"results in {folder}: {', '.join(names)}")


# --- what other commands do with a model of a table ----------------------------------------------------


def is_table(model: Any) -> bool:
    return str(model.kind).startswith("table-")


def sample(model: Any, n: int, out: Path | None, seed: int, where: Sequence[str]) -> None:
    """What ``minigen sample`` does."""
    from minigen import checks

    path = out or Path("samples.csv")
    checks.choice("the ending of --out", path.suffix.lower(), TABLE_FILES)
    checks.writable_folder("--out", path.parent)
    asked = dict(_condition(model, text) for text in where)
    write(path, model.sample(n, seed, where=asked or None))
    print(f"{path}: {n} rows, seed {seed}")


def _condition(model: Any, text: str) -> tuple[str, Any]:
    """``income=>50K`` or ``age=30:40``, as ``sample(where=)`` takes it."""
    name, found, value = text.partition("=")
    if not found or name not in model.schema_.names:
        known = ", ".join(model.schema_.names)
        raise ArgumentError("where", f"must be like COLUMN=VALUE with a column of {known}, not {text!r}")
    column = model.schema_[name]
    if column.kind in ("category", "boolean"):
        by_text = {str(level): level for level in (*column.levels, *column.rare)}
        return name, by_text.get(value, value)
    ends = value.split(":") if column.kind != "date" else value.split("..")
    try:
        numbers = tuple(end if column.kind == "date" else float(end) for end in ends)
    except ValueError as error:
        raise ArgumentError("where", f"must have a number or LOW:HIGH for {name!r}, not {value!r}") from error
    return name, numbers[0] if len(numbers) == 1 else numbers


def write(path: Path, frame: Any) -> None:
    """A DataFrame as .csv or .parquet; the file appears whole or not at all."""
    import io

    from minigen.files import write_atomically
    from minigen.tables.reading import narwhals

    made = narwhals().from_native(frame)
    if path.suffix.lower() == ".csv":
        write_atomically(path, made.write_csv().encode())
        return
    memory = io.BytesIO()
    made.write_parquet(memory)
    write_atomically(path, memory.getvalue())


def evaluate(model: Any, data: str | None, held_out: str | None, n: int | None, seed: int, out: Path | None) -> None:
    """What ``minigen evaluate`` does."""
    from minigen.cli.saved import source_of
    from minigen.files import write_atomically
    from minigen.tables import quality
    from minigen.tables.reading import read_file

    if held_out is None:
        raise ArgumentError("held_out", "must be given: a table of rows that the model was not trained on")
    names = model.schema_.names
    tables = [read_file(source_of(model) if data is None else data), read_file(held_out)]
    for one in tables:
        if missing := [name for name in names if name not in one.columns]:
            raise ArgumentError("held_out", f": the tables must have the column {missing[0]!r} that the model has")
    found = quality.evaluate(model, *(one[names] for one in tables), n=n, seed=seed)
    print(found)
    if out is not None:
        write_atomically(out, (found.to_json() + "\n").encode())


def info(path: Path, model: Any) -> None:
    """What ``minigen info`` does."""
    from minigen.cli.saved import parameter_count, print_table, training_summary

    inner = model.model_
    count = 0 if inner is None else parameter_count(inner)
    print(f"{path}: {type(model).__name__}, {count:,} parameters")
    print("\n".join(f"  {line}" for line in str(model.schema_).splitlines()))
    of_data = [("source", model.source_ or "not named"), ("conditional on", model.condition_ or "nothing")]
    print_table("data", of_data)
    if inner is not None:
        print_table("training", training_summary(inner.history_, inner.epochs))
    settings = model.get_params()
    del settings["device"]
    print_table("settings", settings.items())
    if inner is not None:
        print_table("layers", [(at.name, str(at)) for net in inner.networks_ for at in net.layers])
