"""MNIST, Fashion-MNIST, and the sample of MNIST inside this package."""

from __future__ import annotations

from pathlib import Path

from minigen.checks import choice
from minigen.datasets.dataset import Dataset
from minigen.datasets.fetch import Source, find
from minigen.datasets.idx import StrPath, read_idx

SPLITS = {"train": "train", "test": "t10k"}  # what MNIST's authors call them in file names
SAMPLE = Path(__file__).with_name("sample")

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

MNIST = Source(
    name="mnist",
    torchvision="MNIST",
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    torchvision="FashionMNIST",
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    package="dataset-fashion-mnist",
)


def mnist(split: str = "train", *, cache: StrPath | None = None, download: bool = True) -> Dataset:
    """MNIST: handwritten digits, ``images[N, 28, 28]`` and ``labels[N]`` in uint8; 0 is paper, 255 ink.

    ``split`` is ``"train"`` (60,000) or ``"test"`` (10,000). The files are looked for in ``$MINIGEN_DATA/mnist``, the
    cache (``cache``, else ``$MINIGEN_CACHE``, else the system's place for caches) and the usual folders of Debian,
    torchvision and Keras, then downloaded unless ``download`` is False; each is checked by its SHA-256.

    Raises ``ValueError`` on another split or on wrong files in ``$MINIGEN_DATA``, and
    :class:`~minigen.datasets.DownloadError`, which lists the ways out, when the files are nowhere to be had.

    Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition".
    """
    return _load(MNIST, DIGITS, split, cache, download)


def fashion_mnist(split: str = "train", *, cache: StrPath | None = None, download: bool = True) -> Dataset:
    """Fashion-MNIST: pieces of clothing in MNIST's format and sizes. See :func:`mnist` for everything else.

    Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms".
    """
    return _load(FASHION_MNIST, CLOTHES, split, cache, download)


def mnist_sample() -> Dataset:
    """5,000 digits of MNIST's training set, 500 of each class in mixed order, bundled with the package.

    ``images[5000, 28, 28]`` and ``labels[5000]`` in uint8. Origin and licence: ``sample/ORIGIN.md``.
    """
    images = SAMPLE / "images-idx3-ubyte.gz"
    labels = SAMPLE / "labels-idx1-ubyte.gz"
    return Dataset("mnist-sample", read_idx(images), read_idx(labels), DIGITS, str(images))


def _load(source: Source, classes: tuple[str, ...], split: str, cache: StrPath | None, download: bool) -> Dataset:
    prefix = SPLITS[choice("split", split, SPLITS)]
    images, origin = find(source, f"{prefix}-images-idx3-ubyte", cache=cache, download=download)
    labels, _ = find(source, f"{prefix}-labels-idx1-ubyte", cache=cache, download=download)
    return Dataset(f"{source.name} {split}", images, labels, classes, origin)
