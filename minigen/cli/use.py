"""Commands that use a saved model: ``sample``, ``reconstruct`` and ``info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from minigen.cli import tables
from minigen.cli.application import app, command
from minigen.cli.options import (
    DATA,
    MODEL,
    RUN,
    Columns,
    DataName,
    Device,
    ItemFile,
    LabelsName,
    ModelFile,
    option,
    words,
)
from minigen.cli.saved import (
    DETECTOR,
    model_file,
    parameter_count,
    print_table,
    require_kind,
    require_samples,
    some_labelled,
    source_of,
    training_summary,
    with_labels,
)
from minigen.errors import ArgumentError


@command(app)
def sample(
    model: ModelFile,
    n: Annotated[int, option(DATA, "INT", "How many. Default: 64.", "-n")] = 64,
    out: ItemFile = None,
    seed: Annotated[
        int | None,
        option(
            RUN,
            "INT",
            "Of the noise: the same seed draws the same samples, to the bit on the same device and "
            "instruction set. Default: a fresh one.",
        ),
    ] = None,
    noise: Annotated[
        str | None,
        option(
            MODEL,
            "yes|no",
            "Of a VAE: yes draws from its likelihood, no takes the likelihood's mean. Of a GAN with blocks: yes draws "
            "labels, no gives their probabilities. Default: as is usual for the kind of data.",
            parser=words({"yes": True, "no": False}),
        ),
    ] = None,
    prior: Annotated[
        str | None,
        option(
            MODEL,
            "mixture|normal",
            "Of a VAE that was trained with --latent-prior mixture: where latents come from. Default: mixture.",
            parser=words({"mixture": "mixture", "normal": "normal"}),
        ),
    ] = None,
    label: Annotated[
        str | None,
        option(
            DATA,
            "LABEL",
            "Of a model with labels: draw this one. Default: a picture has a row for each label, a "
            "table has labels as frequent as in the training data.",
            "--label",
        ),
    ] = None,
    columns: Columns = None,
    where: Annotated[
        list[str] | None,
        option(
            DATA,
            "COLUMN=VALUE",
            "Of a table: rows with this value, or with a number from LOW:HIGH (dates: LOW..HIGH). May be repeated.",
            "--where",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw new samples with a trained model.

    Examples:

      minigen sample runs/gan

      minigen sample runs/gan -n 100 --seed 1 --out grid.png

      minigen sample runs/digits --label 3

      minigen sample runs/vae/model.safetensors -n 10000 --out samples.npy

      minigen sample runs/table -n 10000 --where "income=>50K" --out synthetic.csv
    """
    import secrets

    from minigen import checks, load, output

    checks.integer("n", n, 1)
    seed = secrets.randbits(32) if seed is None else checks.seed("seed", seed)
    trained = load(model_file(model), device)
    require_samples(trained, model)
    if tables.is_table(trained):
        tables.sample(trained, n, out, seed, where or ())
        return
    if where:
        raise ArgumentError("where", "is for models of tables; --label asks for a label")
    path = out or Path(f"samples{output.natural_suffix(trained)}")
    output.check_item_file(path, trained)
    how = {name: value for name, value in {"noise": noise, "prior": prior}.items() if value is not None}
    draws_labels = trained.kind == "gan" and trained.blocks is not None
    if how and not (draws_labels and prior is None):
        require_kind(trained, "vae", model_file(model))
    written = output.write_samples(path, trained, n, seed, _label_of(trained, label), columns, **how)
    print(f"{path}: {written} samples, seed {seed}")


def _label_of(trained: Any, text: str | None) -> Any:
    """The label of ``trained`` that is written so."""
    from minigen.datasets.frames import listed

    if text is None:
        return None
    if trained.classes_ is None:
        raise ArgumentError("label", f"cannot be given: the model was trained without labels, so it has no {text!r}")
    written = {str(label): label for label in trained.classes_.tolist()}
    if text not in written:
        raise ArgumentError("label", f"must be one of the model's labels, {listed(tuple(written))}, not {text!r}")
    return written[text]


@command(app)
def reconstruct(
    model: ModelFile,
    data: DataName = None,
    labels: LabelsName = None,
    n: Annotated[int, option(DATA, "INT", "How many rows, evenly spread over the data. Default: 32.", "-n")] = 32,
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
    from minigen.run_folder import check_spares_data

    checks.integer("n", n, 1)
    path = model_file(model)
    trained = load(path, device)
    require_kind(trained, "vae", path)
    source = source_of(trained) if data is None else data
    items, of_items = with_labels(source, trained.labels_source_ if labels is None else labels)
    check_columns("X", items, trained._column_names())
    originals, of_originals = some_labelled(items, of_items, n)
    target = out or Path(f"reconstructions{output.natural_suffix(trained)}")
    output.check_item_file(target, trained)
    check_spares_data(target, source)
    pairs = (
        items.reshape(-1, *trained.item_shape_) for items in (originals, trained.reconstruct(originals, of_originals))
    )
    output.write_items(target, trained, *pairs, across=columns)
    print(f"{target}: {len(originals)} rows and their reconstructions")


@command(app)
def info(model: ModelFile) -> None:
    """Tell what a model file holds: settings, layers, parameters, data and training.

    Example:

      minigen info runs/gan
    """
    from minigen import load
    from minigen.datasets.frames import listed

    path = model_file(model)
    trained = load(path, "numpy")
    if trained.kind == DETECTOR:
        _detector_info(path, trained)
        return
    if tables.is_table(trained):
        tables.info(path, trained)
        return
    print(f"{path}: {trained.kind.upper()}, {parameter_count(trained):,} parameters")
    item = f"{' x '.join(map(str, trained.item_shape_))}, {trained.data_dtype_}"
    names = trained._column_names()
    columns = [] if names is None else [("columns", listed(names))]
    print_table("data", [("item", item), *columns, ("source", trained.source_ or "not named")])
    print_table("training", training_summary(trained.history_, trained.epochs))
    if (prior := getattr(trained, "latent_prior_", None)) is not None:
        print_table("latent prior", _prior_summary(prior, trained.classes_))
    settings = trained.get_params()
    del settings["device"]  # that of this command, not of the training
    print_table("settings", settings.items())
    layers = [layer for net in trained.networks_ for layer in net.layers]
    print_table("layers", [(at.name, str(at)) for at in layers])


def _detector_info(path: Path, detector: Any) -> None:
    from minigen.datasets.frames import listed

    count = sum(map(parameter_count, detector.models_))
    print(f"{path}: AnomalyDetector, {len(detector.models_)} models, {count:,} parameters")
    names = getattr(detector, "feature_names_in_", None)
    columns = f"{detector.n_features_in_}" if names is None else f"{detector.n_features_in_}: {listed(names)}"
    print_table("data", [("columns", columns), ("source", detector.source_ or "not named")])
    print_table("scores", [("unusual below", f"{detector.offset_:.4g} nats")])
    settings = detector.get_params()
    del settings["device"]
    print_table("settings", settings.items())


def _prior_summary(prior: Any, classes: Any) -> list[tuple[str, str]]:
    """How well each mixture of a VAE's latents fits."""
    rows = []
    for i, (components, (fitted, held_out)) in enumerate(zip(prior.components, prior.log_densities, strict=True)):
        name = "mixture" if len(prior.components) == 1 else f"mixture of {classes[i]}"
        text = f"{components} Gaussians, {held_out:.4g} nats a held-out row, {fitted:.4g} a row that it was fitted to"
        rows.append((name, text))
    return rows
