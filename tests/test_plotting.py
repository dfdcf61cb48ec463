"""Grids, the PNG writer, and loss curves."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import minigen
from minigen import plotting
from minigen.plotting import GAP, GROUND
from minigen.training.history import History
from models import blobs
from png import decode


def history(epochs: int, names: tuple[str, ...] = ("discriminator", "generator")) -> History:
    made = History(names)
    for epoch in range(epochs):
        made.add(np.full((3, len(names)), epoch, np.float32) + np.arange(len(names), dtype=np.float32))
        made.end_epoch(0.1)
    return made


# --- the PNG writer -------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(), (3,)])
def test_png_holds_the_picture(rng, tmp_path, channels):
    for height, width in [(1, 1), (1, 17), (23, 1), (31, 47)]:
        picture = rng.integers(0, 256, (height, width, *channels), np.uint8)
        plotting.save_png(picture, tmp_path / "p.png")
        np.testing.assert_array_equal(decode((tmp_path / "p.png").read_bytes()), picture)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_other_programs_read_the_png(rng, tmp_path, channels):
    image = pytest.importorskip("PIL.Image")
    picture = rng.integers(0, 256, (19, 33, *channels), np.uint8)
    plotting.save_png(picture, tmp_path / "p.png")
    with image.open(tmp_path / "p.png") as opened:
        opened.verify()
    with image.open(tmp_path / "p.png") as opened:
        assert opened.mode == ("RGB" if channels else "L")
        np.testing.assert_array_equal(np.asarray(opened), picture)


def test_png_takes_views(rng):
    picture = rng.integers(0, 256, (40, 40, 3), np.uint8)[::2, ::-3]
    np.testing.assert_array_equal(decode(plotting.encode_png(picture)), picture)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_png_refuses_what_is_no_picture(array, tmp_path):
    with pytest.raises(ValueError, match=r"uint8 of shape \[H, W\]"):
        plotting.save_png(array, tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_png_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    plotting.save_png(np.zeros((2, 2), np.uint8), path)
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        plotting.save_png(np.ones((9, 9), np.uint8), path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


# --- grids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("n, columns, scale", [(1, None, 1), (7, None, 2), (7, 2, 1), (5, 9, 3), (64, 8, 1)])
def test_grid_puts_each_picture_in_its_place(rng, channels, n, columns, scale):
    h, w = 5, 7
    pictures = rng.integers(0, 256, (n, h, w, *channels), np.uint8)
    across = min(n, columns) if columns else int(np.ceil(np.sqrt(n)))
    down = -(-n // across)
    canvas = plotting.grid(pictures, columns, scale=scale)
    assert canvas.dtype == np.uint8
    assert canvas.shape == (down * (h * scale + GAP) + GAP, across * (w * scale + GAP) + GAP, *channels)
    for i, picture in enumerate(pictures):
        top, left = GAP + i // across * (h * scale + GAP), GAP + i % across * (w * scale + GAP)
        tile = canvas[top : top + h * scale, left : left + w * scale]
        np.testing.assert_array_equal(tile, np.kron(picture, np.ones((scale, scale, *(1,) * len(channels)), np.uint8)))
        canvas[top : top + h * scale, left : left + w * scale] = GROUND
    assert (canvas == GROUND).all()  # nothing else is drawn


def test_grid_scales_floats_from_their_range():
    values = np.array([[[-1.0, 0.0], [0.5, 1.0]]])
    inner = (slice(GAP, GAP + 2), slice(GAP, GAP + 2))
    assert plotting.grid(values, value_range=(-1, 1))[inner].tolist() == [[0, 128], [191, 255]]
    assert plotting.grid(values)[inner].tolist() == [[0, 0], [128, 255]]  # [0, 1], the rest is clipped
    assert plotting.grid(np.full((1, 2, 2), 200, np.uint8), value_range=(-1, 1))[inner].tolist() == [[200, 200]] * 2


@pytest.mark.parametrize(
    "item_shape, shape",
    [
        ((3, 4), (3, 4)),
        ((3, 4, 3), (3, 4, 3)),
        ((4, 5, 1), (4, 5)),
        ((1, 4, 5), (4, 5)),
        ((3, 4, 5), (4, 5, 3)),
        ((49,), (7, 7)),
        ((1,), (1, 1)),
        ((50,), None),
        ((4, 5, 2), None),
        ((2, 2, 2, 2), None),
        ((), None),
        ((0,), None),
    ],
)
def test_shapes_that_are_pictures(item_shape, shape, rng):
    assert plotting.picture_shape(item_shape) == shape
    items = rng.integers(0, 256, (2, *item_shape), np.uint8)
    if shape is None:
        with pytest.raises(ValueError, match="images must have shape"):
            plotting.as_pictures(items)
    else:
        assert plotting.as_pictures(items).shape == (2, *shape)


def test_channels_first_become_channels_last(rng):
    colours = rng.random((2, 3, 4, 5))
    np.testing.assert_array_equal(plotting.as_pictures(colours)[1, :, :, 2], colours[1, 2])


@pytest.mark.parametrize(
    "images, options, error, message",
    [
        (np.zeros((0, 3, 3)), {}, ValueError, "at least 1"),
        (np.full((2, 3, 3), np.nan), {}, ValueError, "NaN"),
        (np.zeros((2, 3, 3), int), {}, TypeError, "int64"),
        (np.zeros((2, 3, 3)), {"columns": 0}, ValueError, "columns"),
        (np.zeros((2, 3, 3)), {"scale": 0}, ValueError, "scale"),
        (np.zeros((2, 3, 3)), {"value_range": (1, 1)}, ValueError, "value_range"),
        (np.zeros((2, 3, 3)), {"value_range": (0, np.inf)}, ValueError, "value_range"),
    ],
)
def test_grid_refuses_bad_input(images, options, error, message):
    with pytest.raises(error, match=message):
        plotting.grid(images, **options)


# --- curves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 3, 30])
def test_curves_show_the_mean_of_each_epoch(epochs):
    pytest.importorskip("matplotlib")
    (axes,) = plotting.loss_curves(history(epochs)).axes
    assert [line.get_label() for line in axes.lines] == ["discriminator", "generator"]
    for offset, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, epochs + 1))
        np.testing.assert_array_equal(line.get_ydata(), np.arange(epochs) + offset)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["discriminator", "generator"]


def test_curves_of_a_vae_are_in_nats():
    pytest.importorskip("matplotlib")
    (axes,) = plotting.loss_curves(history(2, ("loss", "reconstruction", "kl"))).axes
    assert "nats" in axes.get_ylabel() and len(axes.lines) == 3


def test_curves_need_an_epoch():
    with pytest.raises(ValueError, match="no epoch"):
        plotting.loss_curves(History(("loss",)))


def test_curves_without_matplotlib_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "minigen-engine\[plot\]"'):
        plotting.loss_curves(history(1))


def test_figures_are_saved_as_their_ending_says(tmp_path):
    pytest.importorskip("matplotlib")
    figure = plotting.loss_curves(history(3))
    for ending, begins in [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")]:
        plotting.save_figure(figure, tmp_path / f"f.{ending}")
        assert (tmp_path / f"f.{ending}").read_bytes().startswith(begins)
    for name in ("f.jpg", "f"):
        with pytest.raises(ValueError, match="'png', 'svg', 'pdf'"):
            plotting.save_figure(figure, tmp_path / name)


def test_history_plot_draws_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    trained = minigen.train_vae(blobs(), epochs=2, hidden=(8,), latent_dim=2, batch_size=64, progress=False)
    trained.history_.plot(tmp_path / "losses.png")
    with image.open(tmp_path / "losses.png") as opened:
        pixels = np.asarray(opened.convert("RGB"))
    assert pixels.shape == (600, 960, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # curves in their colours, not an empty page


def test_drawing_opens_no_window_and_leaves_pyplot_alone(tmp_path):
    pytest.importorskip("matplotlib")
    code = """
import sys, numpy as np
from minigen.plotting import loss_curves
from minigen.training.history import History
history = History(("loss",))
history.add(np.ones((2, 1), np.float32))
history.end_epoch(0.1)
loss_curves(history).savefig(sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f.png")], check=True, timeout=120)
