"""Data sets and data files.

>>> from minigen import datasets
>>> digits = datasets.mnist_sample()
>>> digits.images.shape
(5000, 28, 28)
"""

from minigen.datasets.catalogue import fashion_mnist, mnist, mnist_sample
from minigen.datasets.dataset import Dataset
from minigen.datasets.fetch import DownloadError
from minigen.datasets.frames import Table
from minigen.datasets.idx import IdxError, read_idx, write_idx
from minigen.datasets.load import as_rows, load_file, resolve

__all__ = [
    "Dataset",
    "DownloadError",
    "IdxError",
    "Table",
    "as_rows",
    "fashion_mnist",
    "load_file",
    "mnist",
    "mnist_sample",
    "read_idx",
    "resolve",
    "write_idx",
]
