"""Labels as the command line names them, and what it makes of them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

import minigen
from minigen import cli, datasets
from minigen.datasets.labels import resolve_labelled
from png import decode

SMALL = ["--batch-size", "16", "--hidden", "8", "--latent-dim", "3", "--epochs", "1", "--device", "numpy"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(here, capsys):
    """A function that runs ``minigen arguments ...`` in this process: what it prints, or its error."""

    def run(*arguments, code=0):
        assert cli.run([*map(str, arguments)]) == code, capsys.readouterr()
        return capsys.readouterr()[code > 0]

    return run


def test_a_data_set_has_labels_of_its_own():
    items, labels = resolve_labelled("mnist-sample", "own")
    assert len(items) == len(labels) == 5000 and set(labels.tolist()) == set(range(10))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_column_of_a_table(here, separator, packed):
    text = "\n".join(separator.join(row) for row in (["w", "kind", "h"], ["1", "cat", "2.5"], ["3", '"a dog"', "4"]))
    path = here / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    table, labels = resolve_labelled(str(path), "kind")
    np.testing.assert_array_equal(table.values, [[1, 2.5], [3, 4]])
    assert table.columns == ("w", "h") and labels.tolist() == ["cat", "a dog"]
    text = b"a,b\n1,2\n3,-4\n"
    path.write_bytes(gzip.compress(text) if packed else text)
    assert resolve_labelled(str(path), "b")[1].tolist() == [2, -4]


def test_a_column_of_a_parquet_file(here):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"kind": ["cat", "dog"], "w": [1.0, 2.0]}).to_parquet("t.parquet")
    table, labels = resolve_labelled("t.parquet", "kind")
    assert table.columns == ("w",) and labels.tolist() == ["cat", "dog"]


def test_files_of_labels(here):
    np.save("x.npy", np.zeros((3, 4)))
    np.save("words.npy", np.array(["a", "b", "a"]))
    np.save("numbers.npy", np.array([5, 6, 5], np.uint8))
    datasets.write_idx("labels-idx1-ubyte", np.array([5, 6, 5], np.uint8))
    (here / "words.txt").write_text("a\nb\n\na\n")
    (here / "numbers.csv").write_text("5\n6\n5\n")
    for words in ("words.npy", "words.txt"):
        assert resolve_labelled("x.npy", words)[1].tolist() == ["a", "b", "a"]
    for numbers in ("numbers.npy", "numbers.csv", "labels-idx1-ubyte"):
        assert resolve_labelled("x.npy", numbers)[1].tolist() == [5, 6, 5]


def test_labels_that_there_are_not(here):
    np.save("x.npy", np.zeros((3, 4)))
    np.save("two.npy", np.zeros(2, int))
    np.save("square.npy", np.zeros((3, 3), int))
    np.save("objects.npy", np.array([{}, {}, {}], object), allow_pickle=True)
    (here / "t.csv").write_text("w,kind\n1,cat\n2\n")
    (here / "u.csv").write_text("w,kind\n1,cat\n2,\n")
    (here / "v.csv").write_text("w,kind\nx,cat\n2,dog\n")
    for data, labels, message in (
        ("x.npy", "own", "x.npy has no labels of its own"),
        ("x.npy", "kind", "there is no such file, and x.npy is no .csv"),
        ("x.npy", "two.npy", "must be one for each of the 3 rows of x.npy, not 2"),
        ("x.npy", "square.npy", r"must be one a row.*\(3, 3\)"),
        ("x.npy", "objects.npy", "objects.npy: .*allow_pickle"),
        ("t.csv", "colour", "there is no column 'colour' for the labels among w, kind"),
        ("t.csv", "kind", "t.csv: line 3 has 1 cells, not 2"),
        ("u.csv", "kind", "u.csv: row 2 has no label"),
        ("v.csv", "kind", r"v.csv: line 2, column 1 \('w'\): 'x' is not a number"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve_labelled(data, labels)


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_a_training_with_labels(here, command, kind):
    """Pictures with a row a class, also on the way; samples of one class; resuming with the same labels."""
    rng = np.random.default_rng(1)
    np.save("x.npy", rng.integers(0, 256, (48, 8, 8), np.uint8))
    (here / "y.txt").write_text("\n".join(["cat", "dog", "owl"] * 16))
    command("train", kind, "--data", "x.npy", "--labels", "y.txt", "--out", "run", *SMALL)
    model = minigen.load("run", "numpy")
    assert model.classes_.tolist() == ["cat", "dog", "owl"] and model.labels_source_ == "y.txt"
    for name in ("samples.png", "samples-epoch-0001.png"):
        assert decode((here / "run" / name).read_bytes()).shape == (3 * 66 + 2, 21 * 66 + 2)
    printed = command("sample", "run", "--label", "dog", "-n", "5", "--seed", "3", "--out", "dogs.npy")
    assert printed == "dogs.npy: 5 samples, seed 3\n"
    np.testing.assert_array_equal(np.load("dogs.npy"), model.sample(5, 3, y="dog"))
    command("sample", "run", "-n", "5", "--seed", "3", "--out", "any.npy")
    np.testing.assert_array_equal(np.load("any.npy"), model.sample(5, 3))
    assert command("sample", "run", "-n", "7", "--seed", "3", "--out", "grid.png") == "grid.png: 6 samples, seed 3\n"
    command("train", kind, "--resume", "run", "--epochs", "1", "--device", "numpy")
    assert minigen.load("run", "numpy").history_.epochs == 2
    if kind == "vae":
        command("reconstruct", "run", "-n", "6", "--out", "pairs.npy")
        assert np.load("pairs.npy").shape == (6, 2, 8, 8)
    assert "must be one of the model's labels, cat, dog, owl, not 'cow'" in command(
        "sample", "run", "--label", "cow", code=2
    )


def test_a_table_with_a_column_of_labels(here, command):
    rng = np.random.default_rng(1)
    rows = "\n".join(f"{a:.3f},{'p' if a > 0 else 'm'},{b:.3f}" for a, b in rng.normal(size=(40, 2)))
    (here / "t.csv").write_text("a,sign,b\n" + rows)
    command("train", "gan", "--data", "t.csv", "--labels", "sign", "--out", "run", *SMALL)
    model = minigen.load("run", "numpy")
    assert model.classes_.tolist() == ["m", "p"] and model.feature_names_in_.tolist() == ["a", "b"]


def test_what_does_not_go_together(here, command):
    np.save("x.npy", np.zeros((48, 4)))
    np.save("y.npy", np.arange(48) % 2)
    train = ("train", "gan", "--data", "x.npy", *SMALL)
    assert "--labels cannot be given with --conditional no" in command(
        *train, "--labels", "y.npy", "--conditional", "no", code=2
    )
    assert "--labels is needed with --conditional yes" in command(*train, "--conditional", "yes", code=2)
    assert "must be 'input' without labels" in command(*train, "--conditioning", "projection", code=2)
    command(*train, "--out", "plain")
    assert "the model was trained without labels" in command("sample", "plain", "--label", "3", code=2)
    minigen.GAN(hidden=(8,), batch_size=16, epochs=1, device="numpy").fit(np.load("x.npy"), np.load("y.npy")).save("m")
    message = command("train", "gan", "--resume", "m", "--data", "x.npy", "--epochs", "1", "--device", "numpy", code=2)
    assert "--labels is needed: the model was trained with labels in Python" in message
