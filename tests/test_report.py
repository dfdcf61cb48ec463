"""The page on a run: what is in it, that it is whole in itself, and that a browser shows it, on a phone too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

import minigen
from minigen import cli
from minigen.cli import reporting
from minigen.report import charts, page
from models import blobs

pytest.importorskip("jinja2")

QUICK = dict(hidden=6, latent_dim=3, batch_size=16, epochs=2, device="numpy")
PICTURES = blobs(80, 64).reshape(80, 8, 8)
NEW = blobs(120, 64)[80:].reshape(40, 8, 8)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Tags that are closed in order, headings, and what is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.headings, self.sources, self.tags, self.text = [], [], [], set(), ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        self.text += data


def written(path, *arguments, **how) -> Outline:
    minigen.report.write(path, *arguments, **how)
    outline = Outline(path.read_text("utf-8"))
    assert "script" not in outline.tags and all(source.startswith("data:image/") for source in outline.sources)
    return outline


@pytest.fixture(scope="module")
def vae():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minigen.VAE(**QUICK).fit(PICTURES, validation=NEW, evaluate_every=1, metrics=["bound", "coverage"])


def test_a_page_of_pictures(vae, tmp_path):
    pytest.importorskip("matplotlib")
    outline = written(tmp_path / "report.html", vae, PICTURES, np.arange(80) % 3, wall_seconds=125)
    expected = ["Samples", "Metrics", "Metrics over the epochs", "Losses", "Nearest training rows", "Reconstructions"]
    assert outline.headings == [*expected, "Latents", "Settings", "Versions"]
    assert len(outline.sources) == 6 and 'http-equiv="refresh"' not in (tmp_path / "report.html").read_text()
    for text in ("finished: 2 of 2 epochs", "2 min 5 s", "80 items of 8 x 8", "6", "20", minigen.__version__):
        assert text in outline.text
    bound = f"{vae.history_.metrics['bound'][-1]:.4g}"
    assert bound in outline.text and f"{vae.history_.evaluations.real['coverage']:.4g}" in outline.text


def test_figures_of_an_evaluation_stand_beside_those_of_held_out_rows(vae, tmp_path):
    found = minigen.metrics.evaluate(vae, PICTURES, NEW)
    text = written(tmp_path / "report.html", vae, PICTURES, evaluation=found).text
    for figure in found.figures:
        assert figure.name in text and f"{figure.model:.4g}" in text and f"{figure.held_out:.4g}" in text


def test_a_page_of_a_table(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rows, columns=["<b>age", "income", "&"])
    model = minigen.GAN(**QUICK).fit(frame)
    outline = written(tmp_path / "report.html", model, frame)
    assert {"Samples", "Columns", "Nearest training rows"} < set(outline.headings) and "Latents" not in outline.headings
    assert "<b>age" in outline.text and "<b>" not in (tmp_path / "report.html").read_text()
    first = np.asarray(model.sample(60, seed=0))[0]
    assert f"{first[0]:.4g}" in outline.text
    near = rows[np.linalg.norm(rows - first, axis=1).argmin()]
    assert f"{near[1]:.4g}" in outline.text


@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_conditional_models(family, tmp_path, monkeypatch):
    labels = np.arange(80) % 3
    model = family(**QUICK).fit(PICTURES, labels)
    assert "A line has samples of a class" in written(tmp_path / "a.html", model, PICTURES, labels).text
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # no curves: they take most of the time
    without = written(tmp_path / "b.html", model, PICTURES).headings
    assert "Reconstructions" not in without and "Samples" in without
    beside = np.linspace(0, 1, 80)[:, None]
    model = family(**QUICK).fit(PICTURES, beside)
    assert "Samples" in written(tmp_path / "c.html", model, PICTURES, beside).headings
    assert "Samples" not in written(tmp_path / "d.html", model, PICTURES).headings


def test_a_page_under_way_asks_the_browser_to_look_again(tmp_path):
    path, pages = tmp_path / "report.html", []

    def keep(end):
        minigen.report.write(path, end.model, PICTURES)
        pages.append(path.read_text())

    minigen.GAN(**QUICK).fit(PICTURES, callbacks=[keep])
    assert "under way: 1 of 2 epochs" in pages[0] and 'http-equiv="refresh" content="30"' in pages[0]


def test_nearest_rows_are_those(vae):
    known = PICTURES.astype(int).reshape(80, -1)
    samples = page._samples(vae, None, 80)
    drawn = []
    real = page._picture
    try:
        page._picture = lambda model, *columns, across=None: drawn.append(columns)
        page._neighbours(vae, samples, PICTURES, True)
    finally:
        page._picture = real
    for i in range(page.NEIGHBOURS):
        squares = ((known - samples[i].astype(int).ravel()) ** 2).sum(axis=1)
        best = np.sort(squares)[: page.BESIDE]
        shown = [((column[i].astype(int) - samples[i]) ** 2).sum() for column in drawn[0][1:]]
        assert shown == list(best)


def test_principal_axes_keep_distances_of_what_lies_in_a_plane(rng):
    plane = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 7))
    flat, names = charts.principal_axes(plane)
    gaps = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (plane, flat)]
    np.testing.assert_allclose(*gaps, atol=1e-9)
    assert names[0].startswith("principal axis 1 (")
    assert charts.principal_axes(plane[:, :1])[0][:, 1].any() == False  # noqa: E712


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 1 s"), (3600 * 2 + 61, "2 h 1 min")]
)
def test_durations(seconds, text):
    assert page.duration(seconds) == text


def test_missing_packages(vae, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outline = written(tmp_path / "report.html", vae, PICTURES)
    assert "they need matplotlib" in outline.text and "Losses" not in outline.headings
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'Jinja2 is needed .* pip install "minigen-engine\[report\]"'):
        minigen.report.write(tmp_path / "report.html", vae, PICTURES)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", PICTURES)
    np.save("new.npy", NEW)

    def run(*words):
        assert cli.run([*words]) == 0
        return capsys.readouterr().out

    return run


SMALL = ["--hidden", "6", "--latent-dim", "3", "--batch-size", "16", "--epochs", "2", "--device", "numpy"]


def test_a_training_writes_it_and_an_evaluation_writes_it_anew(command, tmp_path, monkeypatch):
    refreshed = []
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(reporting.Reporter, "refresh", lambda self, model: refreshed.append(self.write(model)))
    said = command("train", "vae", "--data", "x.npy", "--out", "run", *SMALL)
    assert "report.html" in said and refreshed == [None, None]
    report = tmp_path / "run" / "report.html"
    assert "VAE on x.npy" in report.read_text() and "held-out rows" not in report.read_text()
    assert "report: run" in command("evaluate", "run", "--held-out", "new.npy")
    assert "held-out rows" in report.read_text() and "log likelihood" in report.read_text()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    said = command("train", "vae", "--data", "x.npy", "--out", "other", *SMALL)
    assert "report.html is not written: Jinja2 is needed" in said and (tmp_path / "other" / "samples.png").exists()
    assert "report" not in command("train", "vae", "--data", "x.npy", "--out", "third", "--no-report", *SMALL)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ASK = """<script>onload = () => { document.title = JSON.stringify({
  broken: [...document.images].filter(i => !i.complete || i.naturalWidth < 2).length,
  pictures: document.images.length, wide: document.documentElement.scrollWidth, window: innerWidth,
  heights: [...document.querySelectorAll("h2, img, table")].filter(e => e.getBoundingClientRect().height < 5).length,
}) }</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_shows_it(vae, tmp_path, width):
    """All pictures are drawn, nothing is wider than the window. The script that asks is the test's, not the page's."""
    pytest.importorskip("matplotlib")
    written(tmp_path / "report.html", vae, PICTURES, evaluation=minigen.metrics.evaluate(vae, PICTURES, NEW))
    text = (tmp_path / "report.html").read_text()
    (tmp_path / "asked.html").write_text(
        text.replace("<details>", "<details open>").replace("</body>", f"{ASK}</body>")
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    where = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [CHROMIUM, *words, where, (tmp_path / "asked.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    found = re.search(r"<title>(\{.*?\})</title>", shown.stdout)
    assert found, shown
    told = json.loads(found[1])
    assert told["pictures"] == 6 and told["broken"] == told["heights"] == 0 and told["wide"] <= told["window"], told
