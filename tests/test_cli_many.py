"""``--seeds`` and ``--grid``: several trainings in one command, each in its folder, a table and pictures of all."""

from __future__ import annotations

import csv
import signal
import sys

import numpy as np
import pytest

import minigen
from minigen import cli, plotting
from minigen.cli.many import aligned, seeds_of
from minigen.plotting import loss_curves_of_many
from minigen.training.checkpoint import MODEL
from minigen.training.history import History
from models import blobs
from png import decode

TRAIN = ["train", "gan", "--data", "x.npy", "--batch-size", "16", "--hidden", "5", "--latent-dim", "3"]
TRAIN += ["--device", "cpu", "--epochs", "2", "--no-report"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", blobs(64, 16).reshape(64, 4, 4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(History, "plot", lambda history, path: None)  # slow, and no subject here
    return tmp_path


@pytest.fixture
def run(here, monkeypatch, capsys):
    """A function that runs a command; its exit code, and what it prints."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minigen", *words])
        return (cli.run(list(words)), *capsys.readouterr())

    return run


def table(folder) -> list[dict[str, str]]:
    with open(folder / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_each_combination_is_trained_as_alone(here, run, monkeypatch):
    pytest.importorskip("matplotlib")
    code, out, err = run(*TRAIN, "--grid", "learning_rate=1e-4,2e-4", "--seeds", "3,5-6")
    assert (code, err) == (0, "")
    folder = here / "runs" / "gan-many"
    names = [f"learning_rate={rate}_seed={seed}" for rate in ("1e-4", "2e-4") for seed in (3, 5, 6)]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "runs.csv", "samples.png", "losses.png"])
    assert {path.name for path in (folder / names[0]).iterdir()} == {MODEL, "history.csv", "samples.png"}
    rows = table(folder)
    assert [row["run"] for row in rows] == names and {row["ended"] for row in rows} == {"finished"}
    assert (rows[4]["learning_rate"], rows[4]["seed"], rows[4]["epochs"]) == ("2e-4", "5", "2")
    settings = {"hidden": (5,), "latent_dim": 3, "batch_size": 16, "device": "cpu", "epochs": 2, "seed": 5}
    alone = minigen.GAN(**settings, learning_rate=2e-4).fit(np.load("x.npy"), progress=False)
    model = minigen.load(folder / names[4])
    assert (model.sample(4, 0) == alone.sample(4, 0)).all() and model.source_ == "x.npy"
    assert float(rows[4]["generator"]) == pytest.approx(alone.history_.last_epoch()["generator"], rel=1e-5)
    assert "6 trainings on cpu" in out and f"{names[4]}           2e-4     5  finished" in out
    tiles = decode((folder / "samples.png").read_bytes())
    assert tiles.shape == (6 * (4 * 16 + 2) + 2, 10 * (4 * 16 + 2) + 2)  # a row a model, ten samples, enlarged
    row = tiles[4 * 66 + 2 : 5 * 66 : 16, 2:66:16]
    assert (row == alone.sample(10, 0)[0]).all()
    run(*TRAIN, "--seeds", "0", "-q")
    assert (here / "runs" / "gan-many-2" / "seed=0" / MODEL).exists()


def test_values_with_commas_of_their_own(here, run):
    words = [word for word in TRAIN if word not in ("--hidden", "5")]
    assert run(*words, "--grid", "hidden=5;6,4", "--grid", "r1=0,1", "--out", "o", "-q") == (0, "", "")
    assert [(row["hidden"], row["r1"]) for row in table(here / "o")] == [
        ("5", "0"),
        ("5", "1"),
        ("6,4", "0"),
        ("6,4", "1"),
    ]
    model = minigen.load(here / "o" / "hidden=6,4_r1=1")
    assert (model.hidden, model.r1) == ((6, 4), 1.0)


def test_one_that_diverges_is_told_when_the_others_are_saved(here, run):
    code, _, err = run(*TRAIN, "--grid", "learning_rate=1e30,1e-4", "--optimizer", "sgd", "--out", "o")
    assert (
        code == 1 and "1 of 2 trainings diverged, the others are done and saved: learning_rate=1e30. The first: " in err
    )
    assert [row["ended"] for row in table(here / "o")] == ["diverged", "finished"]
    assert minigen.load(here / "o" / "learning_rate=1e-4").history_.epochs == 2
    assert not (here / "o" / "learning_rate=1e30" / MODEL).exists() or table(here / "o")[0]["epochs"] != "0"


def test_ctrl_c_saves_what_there_is(here, run, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    known = minigen.GAN.fit

    def fit(model, X, y=None, **options):
        if model.seed == 0:
            options["callbacks"] = [
                *options["callbacks"],
                lambda end: end.epoch == 1 and signal.raise_signal(signal.SIGINT),
            ]
        return known(model, X, y, **options)

    monkeypatch.setattr(minigen.GAN, "fit", fit)
    try:
        code, _, err = run(*TRAIN, "--epochs", "1000000", "--seeds", "0-3", "--out", "o", "-q")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130 and err == "minigen: interrupted: 0 of 4 trainings are done\n"
    rows = table(here / "o")
    assert [row["ended"] for row in rows] == ["interrupted"] * 4 and rows[3]["epochs"] == "0"
    assert minigen.load(here / "o" / "seed=0").history_.epochs >= 1 and not (here / "o" / "seed=3").exists()


@pytest.mark.slow
def test_on_the_way_models_are_saved_where_that_is_asked_for(here, run):
    _, out, _ = run(*TRAIN, "--seeds", "1-2", "--sample-every", "1", "--out", "o")
    assert (here / "o" / "seed=2" / "samples-epoch-0001.png").exists() and "epoch 1/2" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "3-1"], "--seeds must be such as 0-9 or 1,5,7, not '3-1'"),
        (["--seeds", "a"], "--seeds must be such as"),
        (["--seeds", "1,0-2"], "--seeds must be different ones"),
        (["--seeds", "0-1", "--seed", "3"], "--seed cannot be given with --seeds or --grid of the same setting"),
        (["--seeds", "0", "--grid", "seed=1,2"], "--seeds cannot be given with --grid seed=...: both say which seeds"),
        (["--grid", "learning_rate"], "--grid must be such as learning_rate=1e-4,2e-4, not 'learning_rate'"),
        (["--grid", "colour=1"], "--grid: 'colour' is no setting of GAN; they are latent_dim, "),
        (["--grid", "beta1=a,b"], "--grid beta1: 'a' is not a number"),
        (["--grid", "beta1=0,2"], "--beta1 must be a finite number in [0, 1), not 2.0"),
        (["--grid", "beta1=0,0"], "--grid beta1 has a value twice: 0,0"),
        (["--grid", "beta1=0", "--grid", "beta1=1"], "--grid: beta1 is given twice"),
        (["--seeds", "0-9999", "--grid", "beta1=0,0.5"], "--grid and --seeds make 20000 trainings, more than 10000"),
        (["--seeds", "0", "--resume", "runs/gan"], "--resume cannot be given with --seeds or --grid"),
    ],
)
def test_what_makes_no_sense_is_told_before_any_work(here, run, words, message):
    code, out, err = run(*TRAIN, *words)
    assert (code, out) == (2, "") and err.startswith(f"minigen: error: {message}"), err
    assert [path.name for path in here.iterdir()] == ["x.npy"]


@pytest.mark.slow
def test_each_run_has_a_report(here, run, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.setattr(plotting, "encode_figure", lambda figure, form, dpi: b"")  # slow, and no subject here
    words = [word for word in TRAIN if word != "--no-report"]
    code, out, err = run(*words, "--seeds", "171-172", "--out", "o")
    pages = [(here / "o" / f"seed={seed}" / "report.html").read_text() for seed in (171, 172)]
    assert (code, err) == (0, "") and "report.html is" not in out
    assert [f"<td>{seed}</td>" in page for page in pages for seed in (171, 172)] == [True, False, False, True]
    monkeypatch.setitem(sys.modules, "jinja2", None)
    _, out, _ = run(*words, "--seeds", "1-2", "--out", "without")
    assert out.count("report.html is not written: Jinja2 is needed") == 1


@pytest.mark.slow
def test_other_runs_are_not_replaced_unless_that_is_asked_for(here, run):
    assert run(*TRAIN, "--seeds", "0", "--out", "o", "-q")[0] == 0
    code, _, err = run(*TRAIN, "--seeds", "1", "--out", "o")
    assert code == 2 and "--out: o holds runs already; choose another folder, or --force to replace them" in err
    assert run(*TRAIN, "--seeds", "0", "--out", "o", "-q", "--force") == (0, "", "")


def test_seeds_and_a_table_on_the_terminal():
    assert seeds_of("0-2, 7,9 - 9") == [0, 1, 2, 7, 9]
    assert aligned([["run", "x"], ["a_long_one", "1"]]) == "run         x\na_long_one  1"


def test_curves_of_many():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="no epoch has ended"):
        loss_curves_of_many({"a": History(("loss",))})
    histories = {}
    for name, losses in (("a", ("d", "g")), ("b", ("d", "g", "penalty"))):
        histories[name] = History(losses)
        histories[name].add(np.full((3, len(losses)), len(losses), np.float32))
        histories[name].end_epoch(1.0)
    panels = loss_curves_of_many(histories).axes
    assert [(axes.get_ylabel(), len(axes.lines)) for axes in panels] == [("d", 2), ("g", 2), ("penalty", 1)]
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["a", "b"]
