"""Tables of mixed columns: what columns are found to be, what goes into networks and comes back, bad tables, files."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pytest

import minigen
from minigen import cli
from minigen.tables import continuous, find_columns, model, normal, quality
from minigen.tables.schema import Rows, as_frame, decode, measure, read

pd = pytest.importorskip("pandas")
pytest.importorskip("narwhals")
pytest.importorskip("sklearn")

TINY = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "epochs": 2, "device": "numpy"}


def people(n: int = 120, seed: int = 0) -> pd.DataFrame:
    """A column of each kind, with missing values."""
    rng = np.random.default_rng(seed)
    height = rng.normal(170, 10, n).round(1)
    frame = pd.DataFrame(
        {
            "height": np.where(rng.random(n) < 0.1, np.nan, height),
            "gain": np.where(rng.random(n) < 0.7, 0, rng.integers(1, 9999, n)),
            "children": rng.integers(0, 5, n),
            "city": rng.choice(["Paris", "Rome", "Oslo"], n, p=[0.7, 0.25, 0.05]),
            "smoker": rng.random(n) < 0.3,
            "born": pd.to_datetime("1980-01-01") + pd.to_timedelta(rng.integers(0, 9000, n), "D"),
            "seen": np.array([f"2024-0{month}-1{day}" for month, day in rng.integers(1, 9, (n, 2))], object),
            "planet": ["Earth"] * n,
        }
    )
    frame["visits"] = pd.array(np.where(rng.random(n) < 0.2, 0, rng.integers(0, 90, n)), "Int64")
    frame.loc[rng.random(n) < 0.2, "visits"] = pd.NA
    frame["size"] = pd.Categorical(rng.choice(["S", "M", "L"], n), categories=["S", "M", "L"], ordered=True)
    frame.loc[rng.random(n) < 0.1, "city"] = None
    return frame


@pytest.fixture(scope="module")
def fitted() -> minigen.TableVAE:
    return minigen.TableVAE(**TINY).fit(people(), progress=False)


def through(frame: pd.DataFrame, how: str = "quantiles") -> pd.DataFrame:
    """The table encoded and decoded again, with no model between."""
    library, found = read(frame, None)
    schema = measure(library, found, continuous=how, most_categories=1000, seed=0)
    encoded = Rows(schema, found, None, 0)[np.arange(len(frame))]
    assert encoded.dtype == np.float32 and encoded.shape == (len(frame), sum(c.width for c in schema.columns))
    return as_frame(schema, decode(schema, encoded, None, None), np.random.default_rng(0))


def test_the_kinds_of_columns_are_found_and_shown():
    found = find_columns(people())
    kinds = {column.name: column.kind for column in found.columns}
    assert kinds == {
        "height": "numeric",
        "gain": "integer",
        "children": "integer",
        "city": "category",
        "smoker": "boolean",
        "born": "date",
        "seen": "date",
        "planet": "category",
        "visits": "integer",
        "size": "category",
    }
    shown = str(found)
    assert "always Earth" in shown and "often 0" in shown and "% missing" in shown and "1980-" in shown
    assert "<td>" in found._repr_html_()
    assert find_columns(people(), {"children": "category"})["children"].kind == "category"


def test_what_is_encoded_comes_back():
    frame = people()
    back = through(frame)
    pd.testing.assert_frame_equal(back, frame)
    numbers = pd.DataFrame({"x": np.random.default_rng(0).lognormal(0, 2, 3000).round(3)})
    away = np.abs(through(numbers)["x"] - numbers["x"])
    assert away.max() < 0.1 * numbers["x"].max() and away.median() < 2e-3  # ends by half a row, else rounding
    pytest.importorskip("sklearn")
    assert np.abs(through(numbers, "modes")["x"] - numbers["x"]).median() < 1e-3


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_dataframes(library):
    module = pytest.importorskip(library)
    frame = people().drop(columns=["size"])
    other = module.from_pandas(frame) if library == "polars" else module.Table.from_pandas(frame)
    back = through(other)
    assert type(back) is type(other)
    if library == "polars":
        assert back.schema == other.schema
    pd.testing.assert_frame_equal(back.to_pandas(), other.to_pandas(), check_dtype=False)


def test_normal_and_its_inverse():
    z = np.linspace(-5, 5, 1001)
    p = normal.distribution(z)
    assert np.allclose(normal.quantile(p), z, atol=1e-5)
    stats = pytest.importorskip("scipy.stats")
    assert np.abs(p - stats.norm.cdf(z)).max() < 1e-6


def test_quantiles_make_normals_of_ties_too():
    rng = np.random.default_rng(minigen.tables.model.KNOTS)
    for values in (rng.integers(0, 30, 20_000).astype(float), rng.exponential(size=20_000)):
        measured = continuous.Quantiles.measure(values)
        z = measured.encode(values, rng)[:, 0]
        assert quality.kolmogorov_smirnov(z, rng.normal(size=20_000)) < 0.03
        drawn = measured.decode(rng.normal(size=(20_000, 1)))
        assert quality.kolmogorov_smirnov(drawn, values) < 0.03
        assert values.min() <= drawn.min() and drawn.max() <= values.max()


def test_modes_are_those_of_the_mixture():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-50, 1, 3000), rng.normal(80, 5, 1000)])
    measured = continuous.Modes.measure(values, rng)
    encoded = measured.encode(values, rng)
    assert (encoded[:, 1:].sum(axis=1) == 1).all() and np.abs(encoded[:, 0]).max() <= continuous.REACH
    assert np.abs(measured.decode(encoded) - values).max() < 5
    assert (np.sign(measured.means[encoded[:, 1:].argmax(axis=1)]) == np.sign(values)).all()


def test_samples_look_like_the_table(fitted):
    frame = people()
    drawn = fitted.sample(500, 0)
    assert (drawn.dtypes == frame.dtypes).all() and list(drawn.columns) == list(frame.columns)
    assert (drawn["height"].dropna().round(1) == drawn["height"].dropna()).all()
    assert drawn["height"].isna().mean() > 0 and drawn["visits"].isna().any()
    for name in ("height", "gain", "children", "born", "visits"):
        assert frame[name].min() <= drawn[name].min() and drawn[name].max() <= frame[name].max()
    assert set(drawn["city"].dropna()) <= set(frame["city"].dropna()) and set(drawn["planet"]) == {"Earth"}
    pd.testing.assert_frame_equal(fitted.sample(500, 0), drawn)
    assert not fitted.sample(500).equals(drawn) and len(fitted.sample(0)) == 0


def test_the_same_seed_trains_the_same_model(fitted):
    again = minigen.TableVAE(**TINY).fit(people(), progress=False)
    pd.testing.assert_frame_equal(again.sample(50, 1), fitted.sample(50, 1))
    assert fitted.history_.epochs == 2 and fitted.history_.steps == 8


@pytest.mark.parametrize("how", ["quantiles", "modes"])
def test_a_gan_of_tables(tmp_path, how):
    if how == "modes":
        pytest.importorskip("sklearn")
    frame = people()
    gan = minigen.TableGAN(**TINY, continuous=how, pack=2, ema=0.9).fit(frame, progress=False)
    drawn = gan.sample(60, 0)
    assert (drawn.dtypes == frame.dtypes).all() and set(drawn["city"].dropna()) <= set(frame["city"].dropna())
    gan.save(tmp_path / "gan.safetensors")
    pd.testing.assert_frame_equal(minigen.load(tmp_path / "gan.safetensors").sample(60, 0), drawn)
    conditional = minigen.TableGAN(**TINY, continuous=how).fit(frame, condition="city", progress=False)
    assert (conditional.sample(9, 0, where={"city": "Oslo"})["city"] == "Oslo").all()
    with pytest.raises(ValueError, match="temperature"):
        minigen.TableGAN(**TINY, temperature=-1.0).fit(frame)


def test_where(fitted):
    drawn = fitted.sample(30, 0, where={"city": "Rome", "height": (160, 180)})
    assert (drawn["city"] == "Rome").all() and drawn["height"].between(160, 180).all() and len(drawn) == 30
    assert (fitted.sample(5, 0, where={"children": 3})["children"] == 3).all()
    assert fitted.sample(5, 0, where={"smoker": True})["smoker"].all()
    low = datetime.datetime(1990, 1, 1)
    assert (fitted.sample(5, 0, where={"born": (low, "2010-01-01")})["born"] >= low).all()


def test_a_condition_is_drawn_as_such():
    frame = people()
    conditional = minigen.TableVAE(**TINY).fit(frame, condition="city", progress=False)
    assert conditional.model_.classes_ is not None
    assert (conditional.sample(40, 0, where={"city": "Oslo"})["city"] == "Oslo").all()
    drawn = conditional.sample(4000, 0)
    shares = frame["city"].value_counts(normalize=True, dropna=False)
    assert np.abs(drawn["city"].value_counts(normalize=True, dropna=False) - shares).max() < 0.03


@pytest.mark.parametrize(
    "where, message",
    [
        ({"city": "Berlin"}, "never was 'Berlin'.*'Oslo'"),
        ({"town": "Rome"}, "names a column 'town'"),
        ({"height": 170.0}, "has numbers: give"),
        ({"city": ("Oslo", "Rome")}, "takes one value"),
        ({"height": ("a", "b")}, "takes numbers"),
        ({"smoker": 1}, "never was 1"),
        (["city"], "must be a dict"),
    ],
)
def test_what_where_cannot_be(fitted, where, message):
    with pytest.raises(ValueError, match=f"^where.*{message}"):
        fitted.sample(3, where=where)


def test_rows_that_are_too_rare_to_draw(fitted, monkeypatch):
    monkeypatch.setattr(model, "TRIES", 1)
    monkeypatch.setattr(model, "LEAST_TRIES", 1)
    with pytest.raises(ValueError, match="where: only .* drawn rows"):
        fitted.sample(30_000, 0, where={"city": "Oslo", "smoker": True, "height": (199, 200)})


def bad(**columns):
    return pd.DataFrame({"fine": [1, 2, 3, 4], **columns})


twice = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
BAD = [
    (pd.DataFrame(), "rows and columns"),
    (bad().iloc[:0], "0 rows"),
    (twice, "'a' is there more than once"),
    (pd.DataFrame({0: [1, 2]}), "strings, not 0"),
    (bad(x=[np.nan] * 4), "'x' has no values"),
    (bad(x=[None] * 4), "'x' has no values"),
    (bad(x=[1, "two", 3.0, None]), "'x' must hold values of one kind.*'two' \\(str\\)"),
    (bad(x=[[1], [2], [3], [4]]), "'x' must hold values of one kind"),
    (bad(x=[1.0, np.inf, 2.0, 3.0]), "'x' has 1 infinite"),
    (bad(x=pd.to_timedelta([1, 2, 3, 4], "D")), "'x' is of type Duration"),
    (pd.DataFrame({"id": [f"person {i}" for i in range(200)]}), "'id' has 200 different texts.*Leave it out"),
    ([[1, 2], [3, 4]], "DataFrame"),
    (np.ones((3, 3)), "DataFrame"),
]


@pytest.mark.parametrize("table, message", BAD)
def test_bad_tables_are_refused_before_training(table, message):
    with pytest.raises((ValueError, TypeError), match=f"^X.*{message}"):
        minigen.TableVAE(**TINY).fit(table)


@pytest.mark.parametrize(
    "types, message",
    [
        ({"x": "date"}, "date out of range, '2024-02-31'"),
        ({"x": "numeric"}, "'x' is not of numbers"),
        ({"x": "text"}, "must be numeric, integer"),
        ({"z": "numeric"}, "'z' that is not in the table"),
        ({"x": "boolean"}, "4 different values"),
        ({"y": "integer"}, "it holds 0.5"),
        ({"y": "date"}, "holds numbers, not dates"),
        ("x", "must be a dict"),
    ],
)
def test_types_that_cannot_be(types, message):
    table = bad(x=["2024-02-31", "2024-02-02", "a", "b"], y=[0.5, 1, 2, 3])
    with pytest.raises(ValueError, match=message):
        minigen.TableVAE(**TINY).fit(table, types=types)


def test_a_date_out_of_range():
    with pytest.raises(ValueError, match="'x' has a date out of range, '99999-01-01'"):
        find_columns(bad(x=["2024-01-01", "99999-01-01", "2024-01-01", "2024-01-01"]), {"x": "date"})
    far = bad(x=np.array(["2024-01-01", "30000-01-01", "2024-01-01", "2024-01-01"], "datetime64[s]"))
    with pytest.raises(ValueError, match="'x' has a date out of range"):
        find_columns(far)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"continuous": "ranks"}, "continuous must be one of"),
        ({"epochs": -1}, "epochs must be"),
        ({"max_categories": 1}, "max_categories must be"),
        ({"hidden": (0,)}, "hidden"),
        ({"calibrate": "no"}, "calibrate must be"),
        ({"training_by_sampling": "rare"}, "training_by_sampling must be"),
        ({"variance": "none"}, "variance"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        minigen.TableVAE(**{**TINY, **settings}).fit(people())


def test_a_condition_that_cannot_be():
    with pytest.raises(ValueError, match="condition must be a column of few values, but 'height'"):
        minigen.TableVAE(**TINY).fit(people(), condition="height")
    with pytest.raises(ValueError, match="condition must be one of"):
        minigen.TableVAE(**TINY).fit(people(), condition="nothing")


def test_tables_in_which_little_varies():
    one = people().iloc[:1]
    model = minigen.TableVAE(**TINY).fit(one)
    pd.testing.assert_frame_equal(model.sample(3, 0), pd.concat([one] * 3, ignore_index=True))
    two = minigen.TableVAE(**TINY).fit(people().iloc[:2].reset_index(drop=True), progress=False)
    assert len(two.sample(5, 0)) == 5


def test_hidden_layers_by_the_number_of_rows():
    for rows, expected in ((999, (128,)), (1000, (256, 256))):
        model = minigen.TableVAE(**{**TINY, "hidden": None, "epochs": 0}).fit(people(rows), progress=False)
        assert model.hidden is None and model.model_.hidden == expected
        assert len(model.sample(3, 0)) == 3


def test_a_thousand_categories_and_more():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"code": [f"c{i}" for i in rng.zipf(1.3, 4000) % 1500], "x": rng.normal(size=4000)})
    small = minigen.TableVAE(**{**TINY, "epochs": 1, "max_categories": 100})
    small.fit(table, types={"code": "category"}, progress=False)
    column = small.schema_["code"]
    assert column.places == 100 and len(column.rare) == table["code"].nunique() - 99
    drawn = small.sample(4000, 0)["code"]
    assert set(drawn) <= set(table["code"]) and set(drawn) & set(column.rare)
    with pytest.raises(ValueError, match="too rare in 'code'"):
        small.sample(1, where={"code": column.rare[0]})


def test_a_large_table_is_trained_on_in_pieces(monkeypatch):
    frame = people(300)
    monkeypatch.setattr(model, "BYTES_AT_ONCE", 300 * 4 * 20)
    seen: list[int] = []
    taken = Rows.__getitem__
    monkeypatch.setattr(Rows, "__getitem__", lambda rows, which: (seen.append(len(which)), taken(rows, which))[1])
    pieces = minigen.TableVAE(**TINY).fit(frame, condition="city", progress=False)
    count = -(-sum(c.width for c in pieces.schema_.columns if c.name != "city") // 20)
    assert max(seen) == -(-300 // count) and len(seen) == 2 * count
    assert pieces.history_.epochs == 2 * count and pieces.history_.stop_reason == "finished"
    assert pieces.model_.latent_prior == "mixture" and pieces.model_.latent_prior_ is not None
    assert set(pieces.sample(200, 0)["city"].dropna()) == set(frame["city"].dropna())


def test_a_model_file(fitted, tmp_path):
    conditional = minigen.TableVAE(**TINY, continuous="modes").fit(people(), condition="smoker", progress=False)
    for number, one in enumerate((fitted, conditional, minigen.TableVAE(**TINY).fit(people().iloc[:1]))):
        path = tmp_path / f"{number}.safetensors"
        one.save(path)
        again = minigen.load(path)
        pd.testing.assert_frame_equal(again.sample(40, 3), one.sample(40, 3))
        assert str(again.schema_) == str(one.schema_) and again.get_params() == one.get_params()
    with pytest.raises(minigen.NotFittedError):
        minigen.TableVAE().save(tmp_path / "none")


def test_a_model_file_that_was_altered(fitted, tmp_path):
    from minigen.training import checkpoint

    path = tmp_path / "model.safetensors"
    fitted.save(path)
    settings, tensors = checkpoint.read(path)

    def changed(**new: object) -> None:
        import json

        checkpoint.write(path, json.dumps({**settings, **new}), tensors)
        with pytest.raises(minigen.ModelFileError):
            minigen.load(path)

    changed(columns=settings["columns"][1:])
    changed(columns=[{**settings["columns"][0], "kind": "colour"}, *settings["columns"][1:]])
    changed(condition="nothing")
    changed(params={"depth": 3})
    changed(model="table-tree")


def test_figures_of_similarity_in_closed_form():
    a, b = np.array([1.0, 2, 3, 4, np.nan]), np.array([3.0, 4, 5, 6])
    assert quality.kolmogorov_smirnov(a, b) == 0.5 and quality.kolmogorov_smirnov(a, a) == 0
    assert quality.total_variation(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])) == 0.5
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300), rng.exponential(size=200).round(1)
    assert quality.kolmogorov_smirnov(x, y) == pytest.approx(stats.ks_2samp(x, y).statistic)
    u = rng.normal(size=5000)
    one = quality.Plain({"a": u, "b": u}, {"c": (u > 0).astype(int)})
    other = quality.Plain({"a": u, "b": -u}, {"c": (u > 0).astype(int)})
    assert quality.pair_similarity(one, one) == 1
    pairs = quality.pair_similarity(one, other)  # (1 - |1 - -1| / 2), a with c alike, b with c all different
    assert 1 / 3 < pairs < 0.55


@pytest.mark.slow  # boosted trees: seconds alone, more beside others
def test_figures_of_classifiers():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)

    def table(shift: float) -> quality.Plain:
        codes = rng.integers(0, 2, 400)
        return quality.Plain({"x": rng.normal(size=400) + codes * 3 + shift}, {"c": codes})

    real, alike, far = table(0), table(0), table(50)
    assert quality.detection_auc(real, alike) < 0.6 and quality.detection_auc(real, far) > 0.99
    assert quality.efficacy(alike, real, "c", 1)["mean"] > 0.9 > quality.efficacy(far, real, "c", 1)["mean"]
    assert quality.prediction(alike, real, "c")["accuracy"] > 0.9 > quality.prediction(far, real, "c")["accuracy"]
    assert 0.6 < quality.prediction(alike, real, "x")["r2"] < 0.8  # 9/4 of the variance, 13/4, is the code's
    gaps = quality.Plain({"x": np.where(alike.codes["c"], np.nan, alike.numbers["x"])}, alike.codes)
    assert quality.prediction(gaps, real, "x")["r2"] < 0
    assert quality.nearest(real, real, alike) > 0.9 and 0.4 < quality.nearest(table(0), real, alike) < 0.6


@pytest.mark.parametrize("far_in", [0, 1])
def test_nearest_rows_are_sought_on_one_scale(far_in):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(far_in)
    numbers = rng.normal(size=(3, 300))
    numbers[far_in, 0] = 1000  # by the deviation of this table alone, all its rows would be near to any
    made, *both = (quality.Plain({"x": one}, {}) for one in numbers[[2, 0, 1]])
    assert 0.4 < quality.nearest(made, *both) < 0.6


@pytest.mark.slow
def test_evaluation(fitted, tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    people(60).to_csv("people.csv", index=False)
    fitted.save("model.safetensors")
    words = "evaluate model.safetensors --data people.csv --held-out people.csv --out figures.json".split()
    assert cli.run(words) == 0
    assert "detection AUC" in capsys.readouterr().out and (tmp_path / "figures.json").exists()
    found = minigen.tables.evaluate(fitted, people(), people(80, seed=1))
    assert found.rows == 80 and set(found.made) == set(quality.BETTER)
    assert 0 < found.made["quality"] < found.held_out["quality"] <= 1 and "held-out" in str(found)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    people().drop(columns="size").to_csv("people.csv", index=False)
    settings = "--hidden 16 --latent-dim 4 --batch-size 32 --epochs 2 --device numpy -q"

    def run(words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["minigen", *words.split()])
        assert cli.run(words.split()) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    run(f"train table --data people.csv --exclude planet --types children=category --condition smoker {settings}")
    run("sample runs/table -n 7 --seed 1 --where smoker=True --where height=150:190 --out new.csv")
    drawn = pd.read_csv("new.csv")
    assert len(drawn) == 7 and drawn["smoker"].all() and "planet" not in drawn
    shown = run("info runs/table")
    assert "TableVAE" in shown and "height" in shown and "people.csv" in shown and "encoder" in shown
    assert "never was 'Bern'" in run("sample runs/table --where city=Bern", 2)
    assert "--where must be like" in run("sample runs/table --where Bern", 2)
    assert "--exclude names a column 'x'" in run("train table --data people.csv --exclude x", 2)
    assert "--data must be given" in run("train table", 2)
    run(f"train table --model gan --data people.csv --out runs/gan {settings} --temperature 0.5")
    assert "TableGAN" in run("info runs/gan")
    assert "--beta is no setting of --model gan" in run("train table --model gan --data people.csv --beta 2", 2)
    assert "no table at nothing.csv" in run("train table --data nothing.csv", 1)
    assert "the ending of --out" in run("sample runs/table --out new.png", 2)
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n3,4\n")
    assert "'a' is there more than once" in run("train table --data twice.csv", 2)
    assert "--held-out must be given" in run("evaluate runs/table", 2)
