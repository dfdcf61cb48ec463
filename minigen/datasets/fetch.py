"""Finding the files of a public data set: in a folder of yours, where other tools left them, or on a mirror.

Whatever the place and the compression, an array is taken only if the SHA-256 of its raw IDX file is the known one.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from minigen.checks import writable_folder
from minigen.datasets.idx import StrPath, idx_sha256, read_idx
from minigen.datasets.npy import read_npz
from minigen.paths import user_path
from minigen.streams import is_terminal

log = logging.getLogger(__name__)

SIZE_LIMIT = 1 << 26  # bytes; the largest raw file, 60,000 pictures of 784 bytes, is below it
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
TIMEOUT = 30.0  # seconds that a mirror may stay silent
DEBIAN = Path("/usr/share/datasets")
TORCHVISION_ROOTS = (".", "data", "../data", "~", "~/data", "~/datasets", "~/.cache", "~/.cache/torch")
KERAS_KEYS = {
    "train-images-idx3-ubyte": "x_train",
    "train-labels-idx1-ubyte": "y_train",
    "t10k-images-idx3-ubyte": "x_test",
    "t10k-labels-idx1-ubyte": "y_test",
}


class DownloadError(RuntimeError):
    """A data set is nowhere on this machine and could not be downloaded; the message lists the ways out."""


@dataclass(frozen=True)
class Source:
    """A data set of IDX files: its folder's name, torchvision's name, mirrors, and SHA-256 of each raw file."""

    name: str
    torchvision: str
    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]
    package: str | None = None  # a Debian package that holds it


def find(
    source: Source, filename: str, *, cache: StrPath | None = None, download: bool = True
) -> tuple[np.ndarray, str]:
    """The array in ``filename`` of ``source``, and the path or address that it came from.

    Order: ``$MINIGEN_DATA/<name>``, the cache, the folders of other tools, the mirrors. A file with wrong contents is
    an error (``ValueError``) in ``$MINIGEN_DATA``; elsewhere it is passed over and a warning logged. Raises
    :class:`DownloadError` when every place fails, or the cache cannot be written.
    """
    for path in _own_paths(source, filename):
        return _verified(source, filename, path), str(path)
    folder = cache_folder(cache) / source.name
    failures = []
    for path in _usual_paths(source, filename, folder):
        try:
            return _verified(source, filename, path), str(path)
        except (OSError, ValueError) as error:
            log.warning("passed over: %s", error)
            failures.append(str(error))
    if download:
        _check_writable(folder)
    for url in [f"{mirror}{filename}.gz" for mirror in source.mirrors if download]:
        try:
            return _download(source, filename, url, folder), url
        except (ImportError, OSError, ValueError) as error:
            if getattr(error, "errno", None) in DISK_FULL:
                raise DownloadError(
                    f"{source.name} was not downloaded: no room for it in {folder}: {error}. Make "
                    "room, or set MINIGEN_CACHE to a folder on another disk"
                ) from error
            failures.append(f"{url}: {error}")
    raise DownloadError(_ways_out(source, filename, folder, failures))


def cache_folder(cache: StrPath | None = None) -> Path:
    """Where downloads are kept: ``cache``, else ``$MINIGEN_CACHE``, else the system's usual place for caches."""
    chosen = cache or os.environ.get("MINIGEN_CACHE")
    if chosen:
        return user_path(chosen)
    try:
        import pooch
    except ImportError as error:
        raise DownloadError(
            "the cache's place is known to pooch, which is not installed: pip install pooch, or set "
            "MINIGEN_CACHE, or MINIGEN_DATA to a folder that holds the data"
        ) from error
    return Path(pooch.os_cache("minigen"))


# --- on this machine ----------------------------------------------------------------------------


def _own_paths(source: Source, filename: str) -> list[Path]:
    own = os.environ.get("MINIGEN_DATA")
    if not own:
        return []
    folder = user_path(own)
    if not folder.is_dir():
        raise ValueError(f"MINIGEN_DATA = {own!r} is not a folder")
    return _existing([folder / source.name], filename)


def _usual_paths(source: Source, filename: str, cached: Path) -> list[Path]:
    torchvision = [user_path(root) / source.torchvision / "raw" for root in TORCHVISION_ROOTS]
    keras = user_path(os.environ.get("KERAS_HOME") or "~/.keras") / "datasets"
    npz = keras / f"{source.name}.npz"
    folders = [cached, DEBIAN / source.name, *torchvision, keras / source.name]
    return _existing(folders, filename) + [npz] * npz.is_file()


def _existing(folders: Iterable[Path], filename: str) -> list[Path]:
    """Files of that name, plain or gzip; some archives have a dot before ``idx``."""
    dotted = filename.replace("-idx", ".idx")
    spellings = [filename, f"{filename}.gz", dotted, f"{dotted}.gz"]
    return [folder / name for folder in folders for name in spellings if os.path.isfile(folder / name)]


def _verified(source: Source, filename: str, path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        array = read_npz(path, KERAS_KEYS[filename], max_bytes=SIZE_LIMIT)
    else:
        array = read_idx(path, max_bytes=SIZE_LIMIT)
    known = source.sha256[filename]
    if array.dtype != np.uint8 or idx_sha256(array) != known:
        raise ValueError(f"{path}: this is not {source.name}'s {filename}: the raw file's SHA-256 is not {known}")
    return array


# --- on a mirror --------------------------------------------------------------------------------


class _Bounded:
    """A file that takes no more than ``SIZE_LIMIT`` bytes, so that no server can fill the disk."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.room = SIZE_LIMIT

    def write(self, chunk: bytes) -> None:
        self.room -= len(chunk)
        if self.room < 0:
            raise OSError(f"the server sent more than {SIZE_LIMIT} bytes")
        self.file.write(chunk)

    def flush(self) -> None:
        self.file.flush()


def _check_writable(folder: Path) -> None:
    """Raise DownloadError unless what is downloaded can be kept in ``folder``: no mirror could help then."""
    try:
        writable_folder("the cache", folder)
    except OSError as error:
        raise DownloadError(
            f"{error}. Nothing was downloaded, because downloads are kept there: make it writable, or "
            "set MINIGEN_CACHE to a folder that is"
        ) from error


def _download(source: Source, filename: str, url: str, folder: Path) -> np.ndarray:
    """Download to a temporary folder beside the cache's files, verify, and only then move into the cache."""
    import pooch

    visible = is_terminal(sys.stderr) and importlib.util.find_spec("tqdm") is not None
    downloader = pooch.HTTPDownloader(progressbar=visible, chunk_size=1 << 16, timeout=TIMEOUT)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        path = Path(scratch) / f"{filename}.gz"
        with open(path, "wb") as file:
            downloader(url, _Bounded(file), None)
        array = _verified(source, filename, path)
        os.replace(path, folder / path.name)
    return array


def _ways_out(source: Source, filename: str, folder: Path, failures: list[str]) -> str:
    files = ", ".join(source.sha256)
    lines = [
        f"{source.name}: {filename} is not on this machine and was not downloaded.",
        *(f"  tried {failure}" for failure in failures),
        "Any one of these helps:",
        f"  - put the files ({files}; plain or .gz) into {folder}",
        f"  - set MINIGEN_DATA to a folder that holds them in {source.name}/",
        f"  - download them elsewhere, from one of {', '.join(source.mirrors)}",
        "  - behind a proxy, set HTTPS_PROXY and try again",
        "  - take the 5,000 digits inside the package: minigen.datasets.mnist_sample(), --data mnist-sample",
    ]
    if source.package:
        lines.insert(-1, f"  - on Debian or Ubuntu: apt install {source.package}")
    return "\n".join(lines)
