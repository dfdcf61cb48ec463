"""What fit() takes: as_rows for arrays, load_file and resolve for files and names."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigen.datasets import Dataset, as_rows, load_file, resolve, write_idx

in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def uint8s(rng, *shape):
    return rng.integers(0, 256, shape, np.uint8)


# --- arrays that are taken ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ">f4", ">f8"])
@pytest.mark.parametrize("shape", [(2, 1), (7, 3), (5, 28, 28), (3, 2, 1, 4)])
def test_rows_and_item_shape(rng, dtype, shape):
    data = (rng.random(shape) * 255).astype(dtype)
    rows, item_shape = as_rows(data)
    assert item_shape == shape[1:]
    assert rows.dtype == (np.uint8 if dtype is np.uint8 else np.float32) and rows.dtype.isnative
    assert rows.flags.c_contiguous and rows.flags.aligned and type(rows) is np.ndarray
    np.testing.assert_array_equal(rows, data.reshape(shape[0], -1).astype(rows.dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_right_arrays_are_not_copied(rng, dtype):
    data = (rng.random((5, 4, 3)) * 255).astype(dtype)
    assert np.shares_memory(as_rows(data)[0], data)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[::2],
        lambda a: a[:, ::-1],
        lambda a: a.transpose(1, 0, 2),
        np.asfortranarray,
        lambda a: a[:, :, :1],
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_other_memory_orders(rng, change):
    data = change(rng.random((6, 5, 4)).astype(np.float32))
    rows, item_shape = as_rows(data)
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows.reshape(-1, *item_shape), data)


def test_unaligned_and_read_only(rng):
    values = rng.random((3, 4)).astype(np.float32)
    data = np.frombuffer(b"x" + values.tobytes(), np.float32, offset=1).reshape(3, 4)
    assert not data.flags.aligned and not data.flags.writeable
    rows, _ = as_rows(data)
    assert rows.flags.aligned
    np.testing.assert_array_equal(rows, values)


def test_float64_is_rounded():
    assert as_rows(np.full((2, 1), 0.1))[0][0, 0] == np.float32(0.1)


class OnlyInterface:
    def __init__(self, array):
        self.array, self.__array_interface__ = array, array.__array_interface__


class OnlyDlpack:
    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("wrap", [OnlyInterface, OnlyDlpack])
def test_foreign_arrays_share_memory(rng, wrap):
    data = rng.random((4, 3)).astype(np.float32)
    rows, _ = as_rows(wrap(data))
    assert np.shares_memory(rows, data)


def test_dataset(rng):
    data = Dataset("mine", uint8s(rng, 5, 4, 3), uint8s(rng, 5), ("a",), "here")
    rows, item_shape = as_rows(data)
    assert item_shape == (4, 3) and np.shares_memory(rows, data.images)


def test_torch(rng):
    torch = pytest.importorskip("torch")
    data = torch.from_numpy(rng.random((4, 3, 2)).astype(np.float32))
    rows, item_shape = as_rows(data)
    assert item_shape == (3, 2) and rows.ctypes.data == data.data_ptr()
    with pytest.raises(TypeError, match="detach"):
        as_rows(data.requires_grad_())
    with pytest.raises(TypeError, match="torch.Tensor"):
        as_rows(data.detach().bfloat16())
    with pytest.raises(TypeError, match="device"):
        as_rows(torch.empty((4, 3), device="meta"))


def test_jax(rng):
    jnp = pytest.importorskip("jax.numpy")
    data = rng.random((4, 3)).astype(np.float32)
    np.testing.assert_array_equal(as_rows(jnp.asarray(data))[0], data)
    with pytest.raises(TypeError, match="bfloat16"):
        as_rows(jnp.asarray(data, jnp.bfloat16))


def test_memory_mapped_file_is_not_read_into_memory(tmp_path):
    data = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (4096, 64, 64))
    data[-1] = 1
    data.flush()
    tracemalloc.start()
    rows, item_shape = as_rows(np.load(tmp_path / "a.npy", mmap_mode="r"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.shape == (4096, 4096) and item_shape == (64, 64) and rows[-1, -1] == 1
    assert peak < data.nbytes // 8


# --- arrays that are refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, error, says",
    [
        (np.zeros((0, 3), np.float32), ValueError, "at least 2 rows.* not 0"),
        (np.zeros((1, 3), np.float32), ValueError, "at least 2 rows.* not 1"),
        (np.zeros((5, 0), np.float32), ValueError, "at least one column"),
        (np.zeros((5, 3, 0), np.uint8), ValueError, r"at least one column.*\(5, 3, 0\)"),
        (np.zeros(5, np.float32), ValueError, r"two dimensions, not \(5,\)"),
        (np.float32(5), ValueError, r"two dimensions, not \(\)"),
        (np.zeros((5, 3), complex), ValueError, "not complex128: Complex data not supported"),
        (np.full((5, 3), None), ValueError, "must be finite"),
        (np.full((5, 3), "1.5", object), TypeError, "not all of them are numbers .'1.5' is text"),
        (np.full((5, 3), {}), TypeError, "must be .* not all of them are numbers .*'dict'.*fill in missing values"),
        (np.full((5, 3), "a"), TypeError, "not <U1"),
        (np.zeros((5, 3), "M8[s]"), TypeError, "not datetime64"),
        (np.zeros((5, 3), [("a", "f4")]), TypeError, "a"),
        (np.ma.masked_array(np.zeros((5, 3))), TypeError, "mask"),
        ([[1.0, 2.0], [3.0]], TypeError, "cannot be read as an array"),
        ("mnist", TypeError, "not builtins.str.*resolve"),
        (None, TypeError, "NoneType"),
        (7, TypeError, "builtins.int"),
        (np.ndarray, TypeError, "data"),
    ],
)
def test_refused(data, error, says):
    with pytest.raises(error, match=says) as caught:
        as_rows(data)
    assert str(caught.value).startswith("data ")


def test_one_row_where_one_is_enough():
    assert as_rows(np.zeros((1, 3), np.float32), min_rows=1)[0].shape == (1, 3)
    with pytest.raises(ValueError, match="at least 1 rows"):
        as_rows(np.zeros((0, 3), np.float32), min_rows=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("columns", [3, 1 << 19])
def test_values_that_are_not_finite_are_counted(dtype, bad, columns):
    data = np.zeros((9, columns), dtype)
    data[4, 2] = data[4, 0] = data[7, 1] = bad
    with pytest.raises(ValueError, match=rf"3 of {9 * columns} values .* first in row 4"):
        as_rows(data)


def test_float64_beyond_float32_is_refused_without_a_warning(recwarn):
    with pytest.raises(ValueError, match="1 of 4 values"):
        as_rows(np.array([[0, 0], [0, 1e39]]))
    assert not recwarn.list


def test_arrays_in_device_memory_are_refused_with_the_way_out(rng):
    with pytest.raises(TypeError, match=r"OnlyDlpack is in a device's memory .*\.cpu\(\)"):
        as_rows(OnlyDlpack(rng.random((4, 3)), device=(2, 0)))


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (5, 2, 3)])
def test_npy_is_read_and_a_large_one_mapped(tmp_path, rng, monkeypatch, order, shape):
    data = np.asarray(rng.normal(size=shape), order=order)
    np.save(tmp_path / "a.npy", data)
    for limit in (data.nbytes, data.nbytes - 1):
        monkeypatch.setattr("minigen.datasets.npy.largest_read", lambda limit=limit: limit)
        if not data.nbytes and limit:
            continue  # nothing cannot be mapped
        loaded = load_file(tmp_path / "a.npy")
        assert isinstance(loaded, np.memmap) == (limit < data.nbytes) and not loaded.flags.writeable
        assert loaded.flags.c_contiguous == data.flags.c_contiguous
        np.testing.assert_array_equal(loaded, data)


def test_a_npy_that_is_truncated_while_it_is_used(tmp_path):
    """In a process of its own, which a signal would end."""
    np.save(tmp_path / "a.npy", np.zeros((5000, 784), np.uint8))
    code = (
        "import os, sys, minigen\n"
        "def cut(end): os.truncate(sys.argv[1], 4096)\n"
        "X = minigen.datasets.resolve(sys.argv[1])\n"
        "minigen.train_vae(X, hidden=(4,), latent_dim=2, epochs=2, callbacks=[cut])\n"
        "minigen.datasets.resolve(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npy")], capture_output=True, text=True)
    assert done.returncode == 1 and "ValueError" in done.stderr and "3968 are there" in done.stderr, done


def test_a_npy_that_is_truncated_while_it_is_read(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros(1000))

    def largest_read():
        os.truncate(tmp_path / "a.npy", 600)
        return 10**6

    monkeypatch.setattr("minigen.datasets.npy.largest_read", largest_read)
    with pytest.raises(ValueError, match=r"a.npy: .* truncated while it was read: 8000 bytes were there"):
        load_file(tmp_path / "a.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path, rng, save, order):
    a, b = np.asarray(rng.random((4, 3)), order=order), uint8s(rng, 5, 2)
    save(tmp_path / "one.npz", a)
    save(tmp_path / "two.npz", a=a, b=b)
    np.testing.assert_array_equal(load_file(tmp_path / "one.npz"), a)
    np.testing.assert_array_equal(load_file(tmp_path / "two.npz", key="b"), b)
    np.testing.assert_array_equal(resolve(f"{tmp_path}/two.npz:a"), a)
    with pytest.raises(ValueError, match="two.npz: .* 2 arrays inside; name one of a, b"):
        load_file(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="no array 'c' inside, only a, b"):
        load_file(tmp_path / "two.npz", key="c")


@pytest.mark.parametrize("name", ["a", "a.gz", "images.idx3-ubyte"])
def test_idx(tmp_path, rng, name):
    data = uint8s(rng, 4, 3, 2)
    write_idx(tmp_path / name, data)
    np.testing.assert_array_equal(resolve(tmp_path / name), data)


def test_names():
    assert resolve("mnist-sample").shape == (5000, 28, 28)
    with pytest.raises(ValueError, match="data set .*mnist-sample, mnist, .*fashion-mnist.* or a file .*not 'mnits'"):
        resolve("mnits")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_not_loaded(tmp_path):
    objects = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", objects)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npy", "a.npz", "b.npy"):
        with pytest.raises(ValueError, match=name):
            load_file(tmp_path / name)


def npy(shape, values=b"", dtype="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + values


LIES = [(10**12,), (2**62, 2**62), (2**62, 4), (0, 2**62, 2**62), (-1, -3), (3.0,), (True, 3), (2,), (4,)]


@pytest.mark.parametrize("content", [npy(shape, b"abc") for shape in LIES] + [b""])
def test_lying_npz_members(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", content)
    tracemalloc.start()
    with pytest.raises(ValueError, match="a.npz"):
        load_file(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("content", [npy(shape, b"abc") for shape in LIES] + [b"", b"PK\3\4"])
def test_lying_npy(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="a.npy"):
        load_file(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@in_one_folder
@given(where=st.floats(0, 1, exclude_max=True), change=st.binary(min_size=0, max_size=4), cut=st.booleans())
def test_mutated_files(tmp_path, suffix, where, change, cut):
    file = io.BytesIO()
    (np.save if suffix == "npy" else np.savez_compressed)(file, np.arange(12, dtype=np.uint8).reshape(4, 3))
    content = bytearray(file.getvalue())
    start = int(where * len(content))
    content[start : None if cut else start + len(change)] = change
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    try:
        loaded = load_file(path)
    except ValueError as error:
        assert path.name in str(error)
    else:
        assert loaded.nbytes <= 1 << 12


def test_key_needs_an_npz(tmp_path):
    write_idx(tmp_path / "a", np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="only an .npz file"):
        load_file(tmp_path / "a", key="x")


def test_missing_file(tmp_path):
    for name in ("a.npy", "a.npz", "a"):
        with pytest.raises(FileNotFoundError):
            load_file(tmp_path / name)


def test_only_numpy_is_imported():
    """The heavy imports wait until they are needed."""
    code = "import sys, minigen.datasets; print({'pooch', 'requests', 'torch', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
