"""In a notebook: a progress bar, pictures of samples and losses, estimators in HTML."""

from __future__ import annotations

import base64
import html.parser
import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import minigen
from minigen import plotting
from minigen.plotting import GAP
from models import blobs
from png import decode

CELLS = [
    "import minigen, numpy as np\n"
    "pictures = np.random.default_rng(0).integers(0, 256, (64, 8, 8), np.uint8)\n"
    "model = minigen.GAN(hidden=8, latent_dim=2, batch_size=32, epochs=2, device='numpy')",
    "model",
    "_ = model.fit(pictures)",
    "model",
    "model.history_.plot()",
    "model.show(9, seed=1)",
    "minigen.show(pictures, 4)",
]


@pytest.fixture(scope="module")
def outputs() -> list[list[Any]]:
    """What each cell of the notebook gives, run by a kernel of its own."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def test_training_shows_a_bar_and_no_warning(outputs):
    assert outputs[0] == []
    widgets = [out for out in outputs[2] if "application/vnd.jupyter.widget-view+json" in out.get("data", {})]
    text = "".join(out.text for out in outputs[2] if out.output_type == "stream")
    assert widgets or "epoch 2/2" in text
    assert "Warning" not in text


def test_losses_and_samples_are_pictures(outputs):
    ((losses,), (samples,), (shown,)) = outputs[4:]
    width, height = np.frombuffer(base64.b64decode(losses.data["image/png"])[16:24], ">u4")
    assert (width, height) == (640, 400)
    canvas = decode(base64.b64decode(samples.data["image/png"]))
    assert canvas.shape == (3 * (64 + GAP) + GAP,) * 2
    canvas = decode(base64.b64decode(shown.data["image/png"]))
    pictures = np.random.default_rng(0).integers(0, 256, (64, 8, 8), np.uint8)
    np.testing.assert_array_equal(canvas[GAP : GAP + 64 : 8, GAP : GAP + 64 : 8], pictures[0])


def test_an_estimator_is_html(outputs):
    (untrained,), (trained,) = outputs[1], outputs[3]
    assert "not trained yet" in untrained.data["text/html"]
    assert "trained, 2 epochs on numpy (ieee)" in trained.data["text/html"]
    assert trained.data["text/plain"].startswith("GAN(")


# --- the same without a notebook ------------------------------------------------------------------


class Outline(html.parser.HTMLParser):
    """The text of a page; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"


def test_html_tells_what_repr_and_history_tell():
    model = minigen.VAE(hidden=(8,), latent_dim=2, batch_size=64, epochs=2, device="numpy").fit(blobs())
    model.source_ = "<script>x</script>"
    page = Outline(model._repr_html_())
    for name, value in model.get_params().items():
        assert name in page.text and repr(value) in page.text
    last = model.history_.last_epoch()["kl"]
    parts = "12, uint8", "12-8-4", "2-8-12", f"kl {last:.4g}", "8 in ", "settings, 5 other than", model.source_
    assert [part for part in parts if part not in page.text] == []
    assert "script" not in page.tags


def test_html_of_an_estimator_with_any_settings():
    page = Outline(minigen.GAN(device="<b>&'", hidden=None)._repr_html_())
    assert "<b>&" in page.text and page.text.count("not trained yet") == 1
    assert "all as by default" in minigen.GAN()._repr_html_()


def test_html_in_the_middle_of_a_training():
    seen = []
    model = minigen.GAN(hidden=(8,), epochs=1, batch_size=64)
    model.fit(blobs(), callbacks=[lambda end: seen.append(end.model._repr_html_())])
    assert "trained, 1 epoch on" in seen[0]


@pytest.mark.parametrize("kind", ["with isatty", "without isatty", "none"])
def test_no_bar_where_nobody_looks(monkeypatch, kind, capsys):
    class Silent:
        def write(self, text):
            raise AssertionError(text)

    stream = {"with isatty": io.StringIO(), "without isatty": Silent(), "none": None}[kind]
    monkeypatch.setattr(sys, "stderr", stream)
    minigen.GAN(hidden=(8,), epochs=1, batch_size=64).fit(blobs())
    if kind == "with isatty":
        assert stream.getvalue() == ""


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    minigen.GAN(hidden=(8,), epochs=2, batch_size=64).fit(blobs())
    assert "epoch 2/2: 100%" in sys.stderr.getvalue()


# --- grids ----------------------------------------------------------------------------------------


def tiles(picture: plotting.Picture, side: int, scale: int) -> np.ndarray:
    """The tiles of a grid, ``[down, across, side, side]``, each pixel once."""
    step = side * scale + GAP
    rows = picture.pixels[GAP:, GAP:]
    down, across = len(rows) // step, rows.shape[1] // step
    cut = rows.reshape(down, step, across, step, *rows.shape[2:])[:, : side * scale : scale, :, : side * scale : scale]
    return np.moveaxis(cut, 2, 1)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([0, 51, 255], np.uint8), [0, 51, 255]),
        (np.array([0, 1, 1], np.uint8), [0, 255, 255]),
        (np.array([False, True, True]), [0, 255, 255]),
        (np.array([0, 0.2, 0.9]), [0, 51, 230]),
        (np.array([-0.2, 0.6, 0.9]), [102, 204, 242]),
        (np.array([-10, 0, 10.0]), [0, 128, 255]),
        (np.array([0, 5, 10]), [0, 128, 255]),
        (np.array([7.0, 7.0, 7.0]), [0, 0, 0]),
    ],
)
def test_show_finds_black_and_white(values, expected):
    items = np.repeat(values, 4).reshape(3, 2, 2)
    assert tiles(minigen.show(items, columns=3, scale=1), 2, 1)[0, :, 0, 0].tolist() == expected


def test_show_takes_pictures_of_every_kind(rng):
    colour = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(tiles(minigen.show(colour, columns=5, scale=1), 4, 1)[0], colour)
    np.testing.assert_array_equal(tiles(minigen.show(np.moveaxis(colour, -1, 1), columns=5, scale=1), 4, 1)[0], colour)
    flat = rng.integers(0, 256, (5, 64), np.uint8)
    np.testing.assert_array_equal(tiles(minigen.show(flat, columns=5), 8, 8)[0].reshape(5, 64), flat)
    digits = minigen.datasets.mnist_sample()
    assert minigen.show(digits).pixels.shape == (8 * (56 + GAP) + GAP,) * 2
    assert "64 of 5000" in repr(minigen.show(digits)) and "of" not in repr(minigen.show(flat, None)).split("5 items")[1]
    assert minigen.show(flat, 3, columns=1).pixels.shape == (3 * 66 + GAP, 66 + GAP)
    half = minigen.show(np.full((1, 2, 2), 0.5), value_range=(0, 2), scale=1)
    assert tiles(half, 2, 1).ravel().tolist() == [64] * 4


@pytest.mark.parametrize(
    "items, options, error, message",
    [
        (np.zeros((3, 5)), {}, ValueError, "images must have shape"),
        (np.float64(3), {}, ValueError, "images must have shape"),
        (np.zeros((0, 3, 3)), {}, ValueError, "at least 1"),
        (np.full((1, 2, 2), np.nan), {}, ValueError, "NaN"),
        (np.zeros((2, 3, 3)), {"n": 0}, ValueError, "n must be an integer of at least 1"),
        (np.zeros((2, 3, 3)), {"value_range": (1, 0)}, ValueError, "value_range"),
        (np.array([["a"]]).reshape(1, 1, 1), {}, TypeError, "items must be numbers or bool, not <U1"),
    ],
)
def test_show_refuses_what_is_no_picture(items, options, error, message):
    with pytest.raises(error, match=message):
        minigen.show(items, **options)


def test_a_model_shows_its_samples(tmp_path, monkeypatch):
    X = blobs(100, 64).reshape(-1, 8, 8)
    model = minigen.VAE(hidden=(8,), latent_dim=2, batch_size=50, epochs=1, device="numpy").fit(X)
    picture = model.show(6, seed=3, columns=2)
    expected = model.sample(6, seed=3)
    np.testing.assert_array_equal(tiles(picture, 8, 8).reshape(6, 8, 8), expected)
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(decode((tmp_path / "p.png").read_bytes()), picture.pixels)
    with pytest.raises(ValueError, match="'.png', not '.jpg'"):
        picture.save(tmp_path / "p.jpg")
    with pytest.raises(minigen.NotFittedError):
        minigen.VAE().show()
    with pytest.raises(ValueError, match="images must have shape"):
        model.fit(blobs(100, 13)).show()


def test_floating_samples_are_drawn_in_the_models_range():
    """As ``minigen sample`` does: the same shade stands for the same value in every picture of a model."""
    X = blobs(100, 64).reshape(-1, 8, 8) / np.float32(255)
    model = minigen.GAN(hidden=(8,), latent_dim=2, batch_size=50, epochs=1, output="tanh", device="numpy").fit(X)
    samples = model.sample(4, seed=1)
    expected = np.rint((samples.astype(np.float64) + 1) / 2 * 255).astype(np.uint8)
    np.testing.assert_array_equal(tiles(model.show(4, seed=1), 8, 8).reshape(4, 8, 8), expected)


def test_showing_needs_neither_matplotlib_nor_pillow():
    code = (
        "import sys\nfor name in ('matplotlib', 'PIL', 'IPython'): sys.modules[name] = None\n"
        "import minigen, numpy as np\n"
        "assert minigen.show(np.zeros((2, 3, 3)))._repr_png_().startswith(b'\\x89PNG')\n"
        "m = minigen.GAN(hidden=4, batch_size=8, epochs=1, device='numpy').fit(np.ones((8, 4), np.uint8))\n"
        "m.show(2); m._repr_html_()\n"
        "try: m.history_.plot()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and "matplotlib is needed to draw losses: pip install" in done.stdout
