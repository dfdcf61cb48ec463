"""The IDX reader and writer: the right array or an IdxError, whatever the bytes are."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigen.datasets import IdxError, read_idx, write_idx
from minigen.datasets.idx import CODES, idx_sha256

DTYPES = [np.dtype(name) for name in ("u1", "i1", "i2", "i4", "f4", "f8")]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
LITTLE = 8 << 20  # bytes of memory that a reader may take for a file of a few kilobytes, buffers included
in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(code: int, *shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)


def put(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


def read_within(path: Path, limit: int, **options: int) -> np.ndarray | None:
    """The array, or None after an IdxError; fails if it took more than ``limit`` bytes at once or raised otherwise."""
    tracemalloc.start()
    try:
        return read_idx(path, **options)
    except IdxError as error:
        assert str(path) in str(error)
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


# --- what is right ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@in_one_folder
@given(array=ARRAYS)
def test_round_trip(tmp_path, suffix, order, array):
    path = tmp_path / f"array{suffix}"
    write_idx(path, array.astype(array.dtype.newbyteorder(order)))
    back = read_idx(path)
    assert back.dtype == array.dtype and back.dtype.isnative and back.shape == array.shape
    assert back.flags.writeable and back.flags.c_contiguous
    assert back.tobytes() == array.tobytes()
    assert os.listdir(tmp_path) == [path.name]
    path.unlink()


def test_bytes_are_those_of_the_format(tmp_path):
    write_idx(tmp_path / "a", np.array([[1, -2]], np.int16))
    assert (tmp_path / "a").read_bytes() == b"\0\0\x0b\x02\0\0\0\x01\0\0\0\x02\0\x01\xff\xfe"


def test_non_contiguous_and_read_only_arrays(tmp_path):
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5).transpose(2, 0, 1)[::2]
    array.flags.writeable = False
    write_idx(tmp_path / "a", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)


def test_gzip_is_told_by_content_and_always_the_same(tmp_path):
    array = np.arange(100, dtype=np.uint8)
    write_idx(tmp_path / "one.gz", array)
    write_idx(tmp_path / "two.gz", array)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    (tmp_path / "one.gz").rename(tmp_path / "plain-name")
    np.testing.assert_array_equal(read_idx(tmp_path / "plain-name"), array)


def test_several_gzip_members_are_one_file(tmp_path):
    raw = header(0x08, 4) + b"abcd"
    path = put(tmp_path, gzip.compress(raw[:5]) + gzip.compress(b"") + gzip.compress(raw[5:]))
    assert read_idx(path).tobytes() == b"abcd"


def test_sha256_is_that_of_the_raw_file(tmp_path, rng):
    array = rng.normal(size=(3, 2))
    write_idx(tmp_path / "a", array)
    assert idx_sha256(array) == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "not IDX"),
        (b"\0\0\x08", "not IDX"),
        (b"\x93NUMPY", "not IDX"),
        (header(0x07, 1) + b"a", "type 0x07"),
        (b"\0\0\x08\0a", "0 dimensions"),
        (header(0x08, *[1] * 65) + b"a", "65 dimensions"),
        (header(0x08, 1, 1)[:-1], "inside the header"),
        (header(0x08, 2, 3) + b"abcde", "truncated"),
        (header(0x08, 2, 3) + b"abcdefg", "trailing"),
        (header(0x0D, 2) + b"abcdefghi", "trailing"),
        (header(0x08, *[2**32 - 1] * 4), "beyond any array"),
        (header(0x08, 0, *[2**32 - 1] * 3), "beyond any array"),
        (header(0x0E, 2**31, 1), "max_bytes"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damage_is_named(tmp_path, content, says, pack):
    path = put(tmp_path, pack(content))
    with pytest.raises(IdxError, match=says) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b[:-1],
        lambda b: b[:-9],
        lambda b: b[:11],
        lambda b: b + b"x",
        lambda b: b[:-8] + bytes(4) + b[-4:],
        lambda b: b[:3] + b"\xff" + b[4:],
    ],
)
def test_damaged_gzip(tmp_path, spoil, rng):
    good = gzip.compress(header(0x08, 300) + rng.bytes(300))
    with pytest.raises(IdxError, match="gzip"):
        read_idx(put(tmp_path, spoil(good)))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")
    with pytest.raises(IdxError, match="not a regular file"):
        read_idx(tmp_path)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IdxError, match="not a regular file"):
        read_idx(tmp_path / "pipe")


def test_max_bytes(tmp_path):
    write_idx(tmp_path / "a.gz", np.zeros(1000, np.uint8))
    assert len(read_idx(tmp_path / "a.gz", max_bytes=1000)) == 1000
    with pytest.raises(IdxError, match="max_bytes = 999"):
        read_idx(tmp_path / "a.gz", max_bytes=999)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, np.int64),
        np.zeros(2, bool),
        np.zeros(2, complex),
        np.array(["a"]),
        np.zeros(2, np.float16),
        np.float32(1),
        [None],
    ],
)
def test_arrays_that_idx_cannot_hold(tmp_path, array):
    with pytest.raises(IdxError, match="allowed are"):
        write_idx(tmp_path / "a", array)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    write_idx(path, np.arange(3, dtype=np.uint8))
    before = path.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_idx(path, np.zeros(5, np.uint8))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


# --- hostile files ------------------------------------------------------------------------------


@in_one_folder
@given(content=st.binary(max_size=200), idx_like=st.booleans(), packed=st.booleans())
def test_random_bytes(tmp_path, content, idx_like, packed):
    content = b"\0\0" * idx_like + content
    array = read_within(put(tmp_path, gzip.compress(content) if packed else content), LITTLE)
    if array is not None:  # then it was well-formed, and the same bytes come back out
        write_idx(tmp_path / "again", array)
        assert (tmp_path / "again").read_bytes() == content


@in_one_folder
@given(array=ARRAYS, packed=st.booleans(), data=st.data())
def test_mutated_files(tmp_path, array, packed, data):
    write_idx(tmp_path / "good", array)
    good = (tmp_path / "good").read_bytes()
    content = bytearray(gzip.compress(good, mtime=0) if packed else good)
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, max(0, len(content) - 1)))
        kind = data.draw(st.sampled_from(["change", "insert", "cut", "end"]))
        byte = data.draw(st.binary(min_size=1, max_size=3))
        span = {
            "change": slice(where, where + len(byte)),
            "insert": slice(where, where),
            "cut": slice(where, where + len(byte)),
            "end": slice(where, None),
        }[kind]
        content[span] = byte if kind in ("change", "insert") else b""
    back = read_within(put(tmp_path, bytes(content)), LITTLE)
    if packed and back is not None:  # CRC-32 and length stand: only gzip's own header can have changed
        assert back.tobytes() == array.tobytes()


@in_one_folder
@given(
    code=st.sampled_from(sorted(CODES.values())),
    shape=st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)), min_size=1, max_size=6),
    values=st.binary(max_size=64),
    packed=st.booleans(),
)
def test_lying_headers(tmp_path, code, shape, values, packed):
    content = header(code, *shape) + values
    array = read_within(put(tmp_path, gzip.compress(content) if packed else content), LITTLE)
    if array is not None:
        assert array.shape == tuple(shape) and array.nbytes == len(values)


def test_header_that_promises_gigabytes_in_a_file_that_could_hold_them(tmp_path, rng):
    """The packed file is large enough for the promise to be possible; memory must still follow the real contents."""
    path = put(tmp_path, gzip.compress(header(0x08, 4 << 20, 900) + rng.bytes(4 << 20), 1))
    assert read_within(path, 32 << 20) is None


@pytest.mark.parametrize("promised", [1000, 100 << 20])
def test_gzip_bomb(tmp_path, promised):
    """256 MiB of zeros in 260 kB, behind a header that promises less, or more than is allowed."""
    path = tmp_path / "bomb"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header(0x08, promised))
        for _ in range(256):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 19
    assert read_within(path, LITTLE, max_bytes=64 << 20) is None
