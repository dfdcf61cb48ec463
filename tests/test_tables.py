"""Data in CSV, Parquet, .npy.gz and folders of pictures."""

from __future__ import annotations

import gzip
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen import cli, plotting
from minigen.datasets import Table, load_file, resolve
from models import blobs


def table_of(text: str, tmp_path: Path, name: str = "t.csv") -> Table:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load_file(path)
    assert isinstance(table, Table)
    return table


# --- CSV ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "   ", ", "])
@pytest.mark.parametrize("names", [None, ("a", "b c", "d")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_of_every_kind_gives_the_same_numbers(rng, tmp_path, delimiter, names, end, packed):
    values = rng.normal(size=(5, 3)) * 10.0 ** rng.integers(-30, 30, (5, 3))
    if names and delimiter.strip() == "":
        names = ("a", "b", "d")
    lines = [delimiter.join(map(repr, row.tolist())) for row in values]
    text = end.join([*([delimiter.join(names)] if names else []), *lines]) + end
    content = b"\xef\xbb\xbf" + text.encode()  # with the mark that spreadsheets put in front
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    table = load_file(path)
    np.testing.assert_array_equal(table.values, values)
    assert table.columns == names


@pytest.mark.parametrize(
    "text, values, columns",
    [
        ("1\n2\n3\n", [[1], [2], [3]], None),
        ("height\n2\n3.5\n", [[2], [3.5]], ("height",)),
        ("1,2\n\n3,4\n\n", [[1, 2], [3, 4]], None),
        ("\n\na,b\n1,2\n\n3,4", [[1, 2], [3, 4]], ("a", "b")),
        ('"a, or b",c\n"1",2\n', [[1, 2]], ("a, or b", "c")),
        ('"two\nlines",c\n1,2\n', [[1, 2]], ("two\nlines", "c")),
        ("id,2019,2020\n1,2,3\n", [[1, 2, 3]], ("id", "2019", "2020")),
        ("a;b,c\n1;2\n", [[1, 2]], ("a", "b,c")),
        ("a,b\n1e-3,-.5\n", [[1e-3, -0.5]], ("a", "b")),
        (" a , b \n 1 , 2 \n", [[1, 2]], ("a", "b")),
    ],
)
def test_csv(text, values, columns, tmp_path):
    table = table_of(text, tmp_path)
    assert table.values.tolist() == values and table.columns == columns


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("a,b\n", "there are no rows below the names"),
        ("age,city\n1,2\n3,Paris\n", "line 3, column 2 ('city'): 'Paris' is not a number; leave the column out or"),
        ("1,2\n3,4\n5,x\n", "line 3, column 2: 'x' is not a number"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "line 2, column 3 ('setosa'): 'setosa' is not a number"),
        ("a,b\n1,\n", "line 2, column 2 ('b'): the cell is empty"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, not 2"),
        ("1,2\n3,4,5\n", "line 2 has 3 cells, not 2"),
        ("a,b\n1,2,3\n4,5,6\n", "line 2 has 3 cells, not 2"),
        (",a\n0,1\n", "column 1 has no name in line 1; if it numbers the rows"),
        ("a;b\n3,14;2,71\n", "line 2, column 1 ('a'): '3,14' is not a number; write numbers with a point"),
        ("a,b\n1_000,2\n", "'1_000' is not a number"),
        ("a,b\n1,\x00\n", "t.csv: "),
    ],
)
def test_csv_errors_name_the_place(text, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        table_of(text, tmp_path)
    assert message in str(caught.value) and str(caught.value).startswith(f"{tmp_path / 't.csv'}: ")


def test_csv_that_is_no_text(tmp_path):
    for content, message in [
        ("a,b\n1,2\n".encode("utf-16"), "not text in UTF-8"),
        (gzip.compress(b"1,2\n" * 1000)[:30], "damaged gzip"),
    ]:
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_file(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "nothing.csv")


def test_pixels_in_csv_are_uint8_and_other_whole_numbers_are_not(rng, tmp_path):
    def read(array):
        np.savetxt(tmp_path / "t.csv", array, "%.9g", ",")
        return np.asarray(load_file(tmp_path / "t.csv"))

    pixels = rng.integers(0, 256, (4, 64))
    assert read(pixels).dtype == np.uint8
    np.testing.assert_array_equal(read(pixels), pixels)
    for other in (pixels[:, :63], pixels[:, :49], pixels + 1000, pixels - 300, pixels + 0.5):
        assert read(other).dtype == np.float64


# --- Parquet, .npy.gz -----------------------------------------------------------------------------


def test_parquet(rng, tmp_path):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.normal(size=(9, 2)), columns=["a", "b"])
    frame["n"] = rng.integers(0, 9, 9)
    frame.index = list("abcdefghi")
    frame.to_parquet(tmp_path / "t.parquet")
    table = load_file(tmp_path / "t.parquet")
    np.testing.assert_array_equal(table.values, frame.to_numpy())
    assert table.columns == ("a", "b", "n") and table.values.dtype == np.float64
    (frame[["n"]] % 250).astype(np.uint8).to_parquet(tmp_path / "u.parquet")
    assert load_file(tmp_path / "u.parquet").values.dtype == np.uint8
    for column, message in [
        (list("abcdefghi"), "column 'c' is .*string"),
        ([None] + [1.0] * 8, "'c' has 1 missing .*row 0"),
    ]:
        frame.assign(c=column).to_parquet(tmp_path / "bad.parquet")
        with pytest.raises(ValueError, match=message):
            load_file(tmp_path / "bad.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="bad.parquet: not a usable Parquet file"):
        load_file(tmp_path / "bad.parquet")


def test_without_pyarrow_or_pillow_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    (tmp_path / "p.png").write_bytes(b"")
    with pytest.raises(ImportError, match="pip install pyarrow"):
        load_file(tmp_path / "t.parquet")
    with pytest.raises(ImportError, match=r'pip install "minigen-engine\[plot\]"'):
        resolve(tmp_path)


def test_packed_arrays(rng, tmp_path):
    array = rng.normal(size=(5, 2, 3)).astype(np.float32)
    memory = io.BytesIO()
    np.save(memory, array)
    path = tmp_path / "a.NPY.gz"
    path.write_bytes(gzip.compress(memory.getvalue()))
    np.testing.assert_array_equal(load_file(path), array)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.npy").rename(tmp_path / "b.NPY")
    np.testing.assert_array_equal(load_file(tmp_path / "b.NPY"), array)
    for content in (
        gzip.compress(memory.getvalue()[:-1]),
        gzip.compress(memory.getvalue() + b"x"),
        gzip.compress(memory.getvalue())[:-9],
        memory.getvalue(),
        gzip.compress(b"no"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.NPY.gz: not a usable .npy.gz file"):
            load_file(path)


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_folder_of_pictures(rng, tmp_path, channels):
    image = pytest.importorskip("PIL.Image")
    pictures = rng.integers(0, 256, (3, 5, 7, *channels), np.uint8)
    plotting.save_png(pictures[0], tmp_path / "a.png")
    image.fromarray(pictures[1]).save(tmp_path / "b.PNG")
    image.fromarray(pictures[2]).save(tmp_path / "c.png", optimize=True)
    (tmp_path / "notes.txt").write_text("no picture")
    np.testing.assert_array_equal(resolve(tmp_path), pictures)


def test_black_and_white_is_grey(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(resolve(tmp_path), 255 * np.eye(4, dtype=np.uint8)[None])


@pytest.mark.parametrize(
    "name, mode, size, message",
    [
        ("b.png", "L", (4, 5), "a.png is 4 x 4, grey and b.png is 4 x 5, grey"),
        ("b.png", "RGB", (4, 4), "a.png is 4 x 4, grey and b.png is 4 x 4, RGB"),
        ("b.png", "RGBA", (4, 4), "b.png: the picture must be grey or RGB, not of Pillow's mode 'RGBA'"),
        ("b.png", "P", (4, 4), "mode 'P'"),
        ("b.png", "I;16", (4, 4), "mode 'I;16'"),
    ],
)
def test_pictures_that_do_not_fit_together(tmp_path, name, mode, size, message):
    image = pytest.importorskip("PIL.Image")
    image.new("L", (4, 4)).save(tmp_path / "a.png")
    image.new(mode, size).save(tmp_path / name)
    with pytest.raises(ValueError) as caught:
        resolve(tmp_path)
    assert message in str(caught.value)


def test_folders_without_pictures_and_with_damaged_ones(tmp_path):
    pytest.importorskip("PIL")
    with pytest.raises(ValueError, match="holds no .png files"):
        resolve(tmp_path)
    whole = plotting.encode_png(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    for content in (b"", b"no picture", whole[:40], whole[:900]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match="a.png: not a usable PNG file"):
            resolve(tmp_path)


# --- from the shell -------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command line in this process and an empty folder; what it prints. Errors are raised."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert not cli.app(args=list(arguments), prog_name="minigen", standalone_mode=False)
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


def test_what_sample_writes_is_data_again(tmp_path, rng, command):
    (tmp_path / "people.csv").write_text(
        "\n".join(['"height, m";weight;age', *(";".join(map(str, row)) for row in rng.random((90, 3)).round(4))])
    )
    train = ["train", "vae", "--likelihood", "gaussian", "--hidden", "8", "--latent-dim", "2", "--batch-size", "32"]
    out = command(*train, "--data", "people.csv", "--epochs", "2")
    assert out.startswith("people.csv: 90 x 3, float32\n")
    assert "height, m, weight, age" in command("info", "runs/vae")
    header = '"height, m",weight,age'
    assert (tmp_path / "runs/vae/samples.csv").read_text().startswith(f"{header}\n")
    pairs = (tmp_path / "runs/vae/reconstructions.csv").read_text()
    assert pairs.startswith(f'{header},"r_height, m",r_weight,r_age\n')
    command("sample", "runs/vae", "-n", "100", "--seed", "1", "--out", "new.csv")
    model = minigen.load(tmp_path / "runs/vae")
    new = load_file(tmp_path / "new.csv")
    np.testing.assert_array_equal(new.values.astype(np.float32), model.sample(100, seed=1))
    assert new.columns == ("height, m", "weight", "age")
    command(*train, "--data", "new.csv", "--epochs", "1")
    command("train", "vae", "--resume", "runs/vae", "--data", "new.csv", "--epochs", "1")
    (tmp_path / "other.csv").write_text("weight,age,size\n" + "1,2,3\n" * 40)
    with pytest.raises(ValueError, match="unseen at fit time:\n- size\n.*yet now missing:\n- height, m"):
        command("reconstruct", "runs/vae", "--data", "other.csv")


def test_pictures_go_through_csv_and_folders(tmp_path, command):
    X = blobs(64, 64).reshape(-1, 8, 8)
    pytest.importorskip("PIL")
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(X):
        plotting.save_png(picture, tmp_path / "pictures" / f"{i:03}.png")
    train = ["train", "gan", "--hidden", "8", "--batch-size", "32", "--epochs", "1"]
    assert command(*train, "--data", "pictures").startswith("pictures: 64 x 8 x 8, uint8\n")
    command("sample", "runs/gan", "--out", "s.csv")
    assert command(*train, "--data", "s.csv").startswith("s.csv: 64 x 64, uint8\n")
    assert (tmp_path / "runs" / "gan-2" / "samples.png").exists()


def test_a_folder_is_loaded_as_its_model(tmp_path):
    model = minigen.GAN(hidden=(4,), batch_size=32, epochs=1, device="numpy").fit(blobs(64))
    model.save(tmp_path / "model.safetensors")
    for path in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        np.testing.assert_array_equal(minigen.load(path, "numpy").sample(3, seed=1), model.sample(3, seed=1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no model file at .*empty.*model.safetensors"):
        minigen.load(tmp_path / "empty")
