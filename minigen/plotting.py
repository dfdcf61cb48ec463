"""Pictures: a grid of samples as a PNG, with no more than NumPy, and curves of the losses with matplotlib.

A notebook shows :class:`Picture` and :class:`Plot` by themselves.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minigen import checks
from minigen.datasets.load import check_on_host
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.files import write_atomically
from minigen.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

GAP = 2  # pixels between two tiles and around the grid
GROUND = 96  # their grey: neither the paper nor the ink of MNIST
TILE = 64  # smaller pictures are enlarged to about this many pixels
FIGURE_FORMATS = ("png", "svg", "pdf")


# --- grids of pictures ------------------------------------------------------------------------


class Picture:
    """A grid of pictures: a notebook shows it, :meth:`save` writes it as PNG, ``pixels`` are its pixels.

    ``pixels`` is ``uint8[H, W]`` (grey) or ``uint8[H, W, 3]`` (RGB).
    """

    def __init__(self, pixels: np.ndarray, content: str) -> None:
        self.pixels = pixels
        self._content = content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG file. Raises ``ValueError`` for another ending of ``path``, and ``OSError``."""
        checks.choice("the ending of path", user_path(path).suffix.lower(), (".png",))
        save_png(self.pixels, path)

    def _repr_png_(self) -> bytes:
        return encode_png(self.pixels)

    def __repr__(self) -> str:
        return f"<Picture of {self._content}: a notebook shows it, .save('name.png') writes it>"


def show(
    items: Any,
    n: int | None = 64,
    *,
    columns: int | None = None,
    value_range: tuple[float, float] | None = None,
    scale: int | None = None,
) -> Picture:
    """The first ``n`` of ``items`` (``None``: all) as a grid, for a notebook to show: the value of a cell's last line,
    or ``display(...)``.

    ``items[N, ...]`` are pictures ``[N, h, w]``, ``[N, h, w, 3]``, ``[N, 3, h, w]`` or flat rows of a perfect square,
    of numbers or bool: samples of a model, a :class:`~minigen.datasets.Dataset`, any array. ``value_range`` is
    (black, white) of items that are not uint8; ``None`` takes (0, 1) or (-1, 1) if it holds them all, else the lowest
    and the highest value. uint8 is 0 to 255, or 0 and 1 where nothing else is there. ``columns=None`` makes the grid
    about square, and ``scale=None`` enlarges small pictures, each pixel ``scale`` times as wide and high.

    Raises ``ValueError`` or ``TypeError`` for what is no picture.
    """
    check_on_host("items", items)
    array = np.asarray(items)
    there = len(array) if array.ndim else 0
    if array.dtype.kind not in "biuf":
        raise ArgumentTypeError("items", f"must be numbers or bool, not {array.dtype}")
    pictures = as_pictures(array[: checks.integer("n", n, 1)] if n is not None and there else array)
    scale = enlargement(pictures.shape[1:3]) if scale is None else scale
    content = f"{len(pictures)} items" if len(pictures) == there else f"{len(pictures)} of {there} items"
    return Picture(grid(shades(pictures, value_range), columns, scale=scale), content)


def shades(pictures: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """``pictures`` in uint8 from 0, black, to 255, white; ``value_range`` as in :func:`show`."""
    low, high = _natural_range(pictures) if value_range is None else value_range
    if pictures.dtype.kind in "biu" and (pictures.dtype != np.uint8 or high == 1):
        pictures = pictures.astype(np.float64)
    return _to_bytes(pictures, (low, high))


def _natural_range(pictures: np.ndarray) -> tuple[float, float]:
    low, high = float(pictures.min()), float(pictures.max())
    if pictures.dtype == np.uint8:
        return (0.0, 1.0) if high == 1 else (0.0, 255.0)
    for least, most in ((0.0, 1.0), (-1.0, 1.0)):
        if least <= low and high <= most:
            return least, most
    return (low, high) if low < high else (low, low + 1)


def enlargement(size: tuple[int, ...]) -> int:
    """How many times as large pictures of ``size`` (height, width) are drawn."""
    return max(1, TILE // max(size))


def grid(
    images: np.ndarray, columns: int | None = None, *, value_range: tuple[float, float] = (0.0, 1.0), scale: int = 1
) -> np.ndarray:
    """Lay pictures out in rows on a grey ground: ``uint8[H, W]``, or ``uint8[H, W, 3]`` in colour.

    ``images[n, ...]`` are pictures as :func:`as_pictures` takes them: uint8, or floating with ``value_range`` = (black,
    white), outside of which they are clipped. ``columns=None`` makes the grid about square. Each pixel is drawn
    ``scale`` times as wide and high. Raises ``ValueError`` or ``TypeError`` for anything else, NaN included.
    """
    pictures = _to_bytes(as_pictures(images), value_range)
    scale = checks.integer("scale", scale, 1)
    n = len(pictures)
    columns = math.ceil(math.sqrt(n)) if columns is None else min(n, checks.integer("columns", columns, 1))
    pictures = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    h, w, *channels = pictures.shape[1:]
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (h + GAP) + GAP, columns * (w + GAP) + GAP, *channels), GROUND, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = GAP + i // columns * (h + GAP), GAP + i % columns * (w + GAP)
        canvas[top : top + h, left : left + w] = picture
    return canvas


def as_pictures(images: np.ndarray) -> np.ndarray:
    """``images`` as ``[n, h, w]`` or ``[n, h, w, 3]``.

    Also taken are a single channel, channels first, and flat rows of a perfect square. ``ValueError`` for others.
    """
    images = np.asarray(images)
    shape = picture_shape(images.shape[1:])
    if shape is None or len(images) == 0:
        raise ArgumentError(
            "images",
            "must have shape [n, h, w], [n, h, w, 3], [n, 3, h, w] or [n, side * side] with n of at least 1, "
            f"not {images.shape}",
        )
    if images.ndim == 4 and images.shape[1:] != shape and images.shape[1] == 3:
        return np.moveaxis(images, 1, -1)
    return images.reshape(len(images), *shape)


def picture_shape(item_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """``(h, w)`` or ``(h, w, 3)`` for items of this shape, ``None`` when they are no pictures."""
    if 0 in item_shape:
        return None
    if len(item_shape) == 1:
        side = math.isqrt(item_shape[0])
        return (side, side) if side * side == item_shape[0] else None
    if len(item_shape) == 2:
        return item_shape
    if len(item_shape) == 3 and item_shape[2] in (1, 3):
        return item_shape if item_shape[2] == 3 else item_shape[:2]
    if len(item_shape) == 3 and item_shape[0] in (1, 3):
        return (*item_shape[1:], 3) if item_shape[0] == 3 else item_shape[1:]
    return None


def _to_bytes(pictures: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    if pictures.dtype == np.uint8:
        return pictures
    if pictures.dtype.kind != "f":
        raise ArgumentTypeError("images", f"must be uint8 or floating, not {pictures.dtype}")
    if not np.isfinite(pictures).all():
        raise ArgumentError("images", "must be finite, but some values are NaN or infinite")
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(
            "value_range", f"must be two finite numbers (black, white) in rising order, not {value_range}"
        )
    units = (pictures.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(units, 0, 1) * 255).astype(np.uint8)


def save_png(array: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write ``uint8[H, W]`` (grey) or ``uint8[H, W, 3]`` (RGB) as a PNG file. Raises ``OSError``."""
    write_atomically(user_path(path), encode_png(array))


def encode_png(array: np.ndarray) -> bytes:
    """The bytes of a PNG file (ISO/IEC 15948): 8 bits a channel, not interlaced, no row filters."""
    array = np.asarray(array)
    colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (colour or array.ndim == 2) or 0 in array.shape:
        raise ValueError(f"a picture must be uint8 of shape [H, W] or [H, W, 3], not {array.dtype} {array.shape}")
    height, width = array.shape[:2]
    lines = array.reshape(height, -1)
    filtered = np.zeros((height, 1 + lines.shape[1]), np.uint8)  # each line begins with its filter's number, 0: none
    filtered[:, 1:] = lines
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colour else 0, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(filtered.tobytes())) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- curves -----------------------------------------------------------------------------------


class Plot:
    """Curves that a notebook shows; :meth:`save` writes them to a file, ``figure`` is matplotlib's figure."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write png, svg or pdf, as the ending of ``path`` says. Raises ``ValueError`` for others, and ``OSError``."""
        save_figure(self.figure, path)

    def _repr_png_(self) -> bytes:
        return encode_figure(self.figure, "png", dpi=100)

    def __repr__(self) -> str:
        return "<Plot: a notebook shows it, .save('name.png') writes it, .figure is matplotlib's>"


class Losses(Protocol):
    """What :func:`loss_curves` needs of a :class:`minigen.training.history.History`."""

    names: tuple[str, ...]

    @property
    def epochs(self) -> int: ...

    def epoch_means(self) -> np.ndarray: ...


def loss_curves(history: Losses) -> Figure:
    """A figure of each loss over the epochs, the mean of each epoch.

    Raises ``ValueError`` before the first epoch has ended and ``ImportError``, saying what to install, without
    matplotlib.
    """
    if history.epochs == 0:
        raise ValueError("there are no losses to draw: no epoch has ended yet")
    figure = _figure((6.4, 4.0))
    axes = figure.add_subplot()
    epochs = np.arange(1, history.epochs + 1)
    marker = "o" if history.epochs < 20 else ""  # a single epoch is a point, which no line shows
    for name, means in zip(history.names, history.epoch_means().T, strict=True):
        axes.plot(epochs, means, label=name, marker=marker, markersize=4)
    _finish_epochs(axes)
    axes.set_ylabel("loss, nats per row" if "kl" in history.names else "loss")
    axes.legend()
    return figure


MOST_NAMED = 16  # lines that a legend can hold


def loss_curves_of_many(histories: Mapping[str, Losses]) -> Figure:
    """A figure with a panel for each loss and in it a line for each of the named ``histories``; raises as
    :func:`loss_curves` does."""
    drawn = {name: history for name, history in histories.items() if history.epochs}
    if not drawn:
        raise ValueError("there are no losses to draw: no epoch has ended yet")
    losses = list(dict.fromkeys(loss for history in drawn.values() for loss in history.names))
    figure = _figure((5.2 * len(losses), 4.0))
    panels = figure.subplots(1, len(losses), squeeze=False)[0]
    for axes, loss in zip(panels, losses, strict=True):
        for name, history in drawn.items():
            if loss in history.names:
                means = history.epoch_means()[:, history.names.index(loss)]
                marker = "o" if history.epochs < 20 else ""
                axes.plot(np.arange(1, history.epochs + 1), means, label=name, marker=marker, markersize=3)
        _finish_epochs(axes)
        axes.set_ylabel(f"{loss}, nats per row" if "kl" in losses else loss)
    if len(drawn) <= MOST_NAMED:
        panels[0].legend(fontsize="small")
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('matplotlib is needed to draw losses: pip install "minigen-engine[plot]"') from error
    return Figure(figsize=size, layout="constrained")  # not pyplot: no window, no global state


def _finish_epochs(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a matplotlib figure; the ending of ``path`` says as what: png, svg or pdf. Raises ``OSError``."""
    path = user_path(path)
    form = checks.choice("the ending of path", path.suffix.removeprefix(".").lower(), FIGURE_FORMATS)
    write_atomically(path, encode_figure(figure, form, dpi=150))


def encode_figure(figure: Any, form: str, dpi: int) -> bytes:
    """The bytes of a file of a matplotlib figure, in one of ``FIGURE_FORMATS``."""
    memory = io.BytesIO()
    figure.savefig(memory, format=form, dpi=dpi)
    return memory.getvalue()
