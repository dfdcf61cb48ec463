"""The folder of a training run: chosen, reserved for one training, and rid of the run that it replaces."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigen import checks, files
from minigen.training.checkpoint import MODEL

OF_SAMPLES = ("samples.*", "samples-epoch-*.*", "reconstructions.*")
RUN_FILES = (MODEL, "history.csv", "losses.png", "report.html", "scores.csv", *OF_SAMPLES)
"""What a training writes into its folder."""
LOCK = ".training.lock"
"""Is there, and locked, while a training writes into the folder. The system unlocks it however the training ends."""


@contextmanager
def reserve(kind: str, out: Path | None, *, data: str, resume: Path | None, force: bool) -> Iterator[Path]:
    """The folder that a training of ``kind`` writes into: no other training gets it until the context ends.

    ``out`` is what the user asked for; by default ``runs/kind``, or the first of ``runs/kind-2``, ... that is free. A
    training that goes on from a folder's own model may write there again; another run is replaced only with ``force``,
    and its files go now. Files that are no run's, and those that ``data`` (as ``--data`` names them) is in, are neither
    removed nor replaced. Raises ``ValueError``, and ``OSError`` where the folder cannot be written.
    """
    keep = continues(out, resume)
    wanted = resume.parent if keep and resume else out
    free = wanted is None and not force
    for folder in _numbered(Path("runs") / kind) if free else [wanted or Path("runs") / kind]:
        if free and run_files(folder):
            continue
        _check(folder, data, keep=keep, force=force)
        checks.writable_folder("--out", folder)
        with _locked(folder) as locked:
            if not locked and not free:
                raise ValueError(f"--out: another training is writing into {folder}; choose another folder")
            if not locked or (free and run_files(folder)):
                continue
            _check(folder, data, keep=keep, force=force)  # again: another training may just have ended here
            for old in [] if keep else run_files(folder):
                old.unlink()
            files.remove_temporaries(folder)
            yield folder
            return


def free_folder(base: Path) -> Path:
    """``base``, or the first of ``base-2``, ``base-3``, ... that is not there or has nothing in it."""
    return next(folder for folder in _numbered(base) if not folder.exists() or not any(folder.iterdir()))


def continues(out: Path | None, resume: Path | None) -> bool:
    """Whether a training goes on in the folder whose own model it begins with."""
    if resume is None or resume.name != MODEL:
        return False
    return out is None or out.resolve() == resume.parent.resolve()


def run_files(folder: Path) -> list[Path]:
    """The files in ``folder`` that are named as a training names its own; the model comes last."""
    found = {path for pattern in RUN_FILES for path in folder.glob(pattern) if path.is_file()}
    return sorted(found, key=lambda path: (path.name == MODEL, path))


def check_spares_data(path: Path, data: str) -> None:
    """Raise ``ValueError`` if writing to ``path`` would replace a file that ``--data`` names."""
    source = _path_of(data)
    if source is None or not path.exists():
        return
    if path.samefile(source) or (source.is_dir() and path.parent.samefile(source)):
        raise ValueError(f"--out: {path} would replace the data that --data names; choose another place")


def _check(folder: Path, data: str, *, keep: bool, force: bool) -> None:
    """Raise ``ValueError`` where a training may not write into ``folder``."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: {folder} is no folder")
    old = run_files(folder)
    for path in old:
        check_spares_data(path, data)
    if keep or not old:
        return
    if not _is_model(folder / MODEL):
        raise ValueError(
            f"--out: {old[0]} would be replaced, and is of no run: no model of minigen's is beside it; "
            "choose another folder"
        )
    if not force:
        raise ValueError(f"--out: {folder} holds a run already; choose another folder, or --force to replace that run")


def _is_model(path: Path) -> bool:
    """Whether the file says of itself that it is a model of minigen's, of whatever version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("format")).startswith("minigen-")
    except (SafetensorError, OSError):
        return False


def _path_of(data: str) -> Path | None:
    """The file or folder that ``data`` names; None for a data set known by name, or where there is nothing."""
    from minigen.datasets.load import NAMED

    stem, found, _ = data.rpartition(".npz:")
    path = Path(f"{stem}.npz" if found and not os.path.exists(data) else data)
    return path if data not in NAMED and path.exists() else None


def _numbered(base: Path) -> Iterator[Path]:
    yield base
    n = 2
    while True:
        yield base.with_name(f"{base.name}-{n}")
        n += 1


# --- one training at a time -----------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock ``folder`` for this process: whether that was possible. Does not wait."""
    path = folder / LOCK
    handle = _open_and_lock(path)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(handle)
            path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)
            os.close(handle)


def _open_and_lock(path: Path) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            files.lock(handle)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                return None
            reason = error.strerror or error
            warnings.warn(f"{path.parent} cannot be locked ({reason}): start no other training in it", stacklevel=2)
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # another training had it, ended and removed it while we opened it: try again
