"""The CUDA backend's runtime without a GPU: memory, copies, arguments, graphs and errors, on a stand-in for CuPy."""

from __future__ import annotations

import builtins
import gc
import importlib.metadata
import subprocess
import sys
import warnings

import numpy as np
import pytest
from fake_cupy import FakeCupy

from minigen import DeviceError
from minigen.cuda import arena, cache, compiler, device, driver, sources
from minigen.cuda.cache import Binary
from minigen.cuda.launch import Kernel, Launch

triton = pytest.importorskip("triton", reason="no Triton")


@pytest.fixture
def kernel():
    """A Triton kernel that can be compiled, whatever TRITON_INTERPRET says."""
    from cuda_kernel import scale_rows
    from triton.runtime.jit import JITFunction

    return Kernel("scale_rows", JITFunction(scale_rows))


def scale_rows_launch(executor, kernel, n=1000, **options):
    x, y = executor.empty((n,), np.float32), executor.empty((n,), np.float32)
    return Launch(kernel, (4, 1, 1), (x, y, n, 0.5), {"BLOCK": 256}, **options), x, y


# --- what is missing -------------------------------------------------------------------------------


def test_importing_minigen_touches_no_cuda():
    code = "import sys, minigen.cuda, minigen.floors; assert not {'cupy', 'triton', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_driver(monkeypatch):
    monkeypatch.setattr(driver, "LIBRARY", "libno-such-driver.so.1")
    assert "no NVIDIA driver" in driver.find_problem()


def test_no_cupy(monkeypatch):
    monkeypatch.setattr(driver, "_has_driver", lambda: True)
    original = builtins.__import__

    def without_cupy(name, *rest):
        if name.split(".")[0] == "cupy":
            raise ImportError("No module named 'cupy'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_cupy)
    assert "pip install 'minigen-engine[cuda13]'" in driver.find_problem()


def test_cupy_without_a_gpu(monkeypatch):
    """The real CuPy, on a machine where it finds no driver."""
    cupy = pytest.importorskip("cupy", reason="no CuPy")
    if cupy.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(driver, "_has_driver", lambda: True)
    assert "NVIDIA driver" in driver.find_problem()
    with pytest.raises(DeviceError, match="cuda:0.*NVIDIA driver"):
        device.DeviceExecutor()


def test_driver_of_an_older_cuda(install):
    fake = install(driver=12040)

    def refuse():
        raise fake.cuda.runtime.CUDARuntimeError(35)

    fake.cuda.runtime.getDeviceCount = refuse
    assert "runs CUDA up to 12.4, this CuPy needs CUDA 13: install cupy-cuda12x" in driver.find_problem()


@pytest.mark.parametrize(
    ("version", "problem"), [("3.5.1", "too old"), ("3.6.0", None), ("3.10.0+git1", None), (None, "missing")]
)
def test_triton_versions(install, monkeypatch, version, problem):
    install()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: version)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    found = driver.find_problem()
    assert found is None if problem is None else problem in found


def test_unsupported_architecture(install):
    install(capability="75")
    with pytest.raises(DeviceError, match="sm_75; minigen needs sm_80"):
        device.DeviceExecutor()


def test_numbered_gpus(install):
    install(gpus=2)
    assert device.DeviceExecutor(1).index == 1
    with pytest.raises(DeviceError, match="no cuda:2: this machine has 2 GPUs"):
        device.DeviceExecutor(2)


def test_probe_names_the_gpu(install):
    from minigen import cuda

    install()
    usable, detail = cuda.probe()
    assert usable and "Pretend GPU (sm_90, 1 GiB)" in detail and "Triton" in detail


def test_the_stand_in_has_nothing_that_cupy_has_not():
    """Else a name that does not exist would be found on a GPU only. Attributes of the classes included."""
    cupy = pytest.importorskip("cupy", reason="no CuPy")
    fake = FakeCupy()
    pairs = [(fake.cuda, cupy.cuda), (fake.cuda.runtime, cupy.cuda.runtime), (fake.cuda.driver, cupy.cuda.driver)]
    for pretended, real in pairs:
        assert [name for name in vars(pretended) if not hasattr(real, name)] == []
    for name in ("Memory", "UnownedMemory", "MemoryPointer", "Device", "Stream", "Event", "Module"):
        own = [method for method in vars(getattr(fake.cuda, name)) if not method.startswith("__")]
        assert [method for method in own if not hasattr(getattr(cupy.cuda, name), method)] in ([], ["ptr"])
    for name in ("ndarray", "ascontiguousarray", "empty", "from_dlpack", "isfinite"):
        assert hasattr(cupy, name)


# --- memory ----------------------------------------------------------------------------------------


def test_arena_against_a_simple_model(rng):
    """Random takes and returns: blocks never overlap, and everything is joined again at the end."""

    class Memory:
        def __init__(self, size):
            self.ptr, Memory.last = Memory.last, Memory.last + size

    Memory.last = 2**20
    memory, held = arena.Arena(Memory), []
    for _ in range(2000):
        if held and rng.random() < 0.5:
            held.pop(rng.integers(len(held)))
        else:
            held.append(memory.take(int(rng.integers(0, 2**22))))
        places = sorted((block.address, block.size) for block in held)
        assert all(a + size <= b for (a, size), (b, _) in zip(places, places[1:], strict=False))
        assert all(address % 256 == 0 for address, _ in places)
        assert memory.in_use == sum(size for _, size in places)
    held.clear()
    memory.trim()
    assert memory.in_use == memory.reserved == 0 and memory.peak > 0


def test_buffers_come_from_few_allocations_and_go_back(install):
    fake = install()
    executor = device.DeviceExecutor()
    buffers = [executor.empty((n, 3), np.float32) for n in range(1, 200)]
    assert fake.allocations == 1
    assert all(executor.address(buffer) % 256 == 0 for buffer in buffers)
    view = buffers[7][2:5]
    del buffers, executor
    gc.collect()
    assert fake.used > 0, "a view keeps its memory"
    del view
    gc.collect()
    assert fake.used == 0


def test_out_of_memory_says_the_figures_and_leaves_nothing(install):
    fake = install(memory=2**30)
    executor = device.DeviceExecutor()
    kept = executor.empty((2**18,), np.float32)
    with pytest.raises(MemoryError, match=r"shape \(1024, 1048576\).*needs 4.00 GiB, 0.97 GiB of 1.00 GiB are free"):
        executor.empty((1024, 2**20), np.float32)
    large = executor.empty((2**27,), np.float32)  # half of the memory: nothing of the failure is left
    del large, kept
    executor.empty((2**27 + 2**26,), np.float32)  # more than what is beside the unused pieces: they are given back
    del executor
    gc.collect()
    assert fake.used == 0


def test_what_a_failed_training_leaves_makes_room_for_the_next(install):
    """Its frames and buffers hold each other in cycles, which only the garbage collector undoes."""
    install(memory=2**28)
    gc.disable()
    try:
        left = [device.DeviceExecutor()]
        left.append(left[0].empty((2**25,), np.float32))  # half of the memory
        left.append(left)
        del left
        assert device.DeviceExecutor().empty((2**25 + 2**24,), np.float32).size
    finally:
        gc.enable()


def test_a_small_block_fits_where_a_piece_does_not(install):
    install(memory=2**20)
    assert device.DeviceExecutor().empty((1000,), np.float32).shape == (1000,)


def test_data_that_do_not_fit_are_refused_with_the_figures(install):
    install(memory=2**30)
    data = np.broadcast_to(np.zeros(1, np.uint8), (2**21, 784))
    with pytest.raises(MemoryError, match=r"the data take 1.53 GiB .* 1.00 GiB of 1.00 GiB are free"):
        device.DeviceExecutor().resident(data)


@pytest.mark.parametrize("nbytes", [0, 1, 7, 2**12, device.STAGING, 2 * device.STAGING + 13])
def test_copies_through_pinned_memory(install, rng, nbytes):
    install()
    executor = device.DeviceExecutor()
    host = rng.integers(0, 256, nbytes, dtype=np.uint8)
    buffer = executor.upload(host)
    np.testing.assert_array_equal(executor.download(buffer), host)
    np.testing.assert_array_equal(executor.download(buffer[::2]), host[::2])
    executor.upload(host[::-1], out=buffer)
    np.testing.assert_array_equal(executor.download(buffer), host[::-1])


def test_upload_refuses_a_wrong_out(install):
    install()
    executor = device.DeviceExecutor()
    host, out = np.zeros((4, 3), np.float32), executor.empty((4, 3), np.float32)
    for bad in (np.empty((4, 3), np.float32), executor.empty((4, 3), np.int32)):
        with pytest.raises(TypeError, match="out must be"):
            executor.upload(host, bad)
    for bad in (executor.empty((3, 4), np.float32), executor.empty((8, 3), np.float32)[::2]):
        with pytest.raises(ValueError, match="out must"):
            executor.upload(host, bad)
    assert executor.upload(host, out) is out


def test_gpu_arrays_are_taken_without_a_copy(install):
    install(gpus=2)
    executor = device.DeviceExecutor()
    array = executor.empty((5, 2), np.uint8)
    assert device.on_gpu(array) and not device.on_gpu(np.zeros(3)) and not device.on_gpu([1])
    assert executor.resident(array) is array
    with pytest.raises(ValueError, match="on cuda:1 like the model, not on cuda:0"):
        device.DeviceExecutor(1).resident(array)


# --- launches --------------------------------------------------------------------------------------


def test_triton_arguments(install, kernel):
    """Scalars of 32 bits, in order, then two null pointers."""
    fake = install()
    executor = device.DeviceExecutor()
    launch, x, y = scale_rows_launch(executor, kernel, num_warps=2)
    executor.run(launch)
    ((name, grid, block, args, shared),) = fake.launches
    assert (name, grid, block, shared) == ("scale_rows", (4, 1, 1), (64, 1, 1), 0)
    assert args[0] is x and args[1] is y
    assert [type(a) for a in args[2:]] == [np.int32, np.float32, np.uint64, np.uint64]
    assert args[2:] == (1000, 0.5, 0, 0)


def test_an_unaligned_buffer_gets_a_kernel_of_its_own(install, kernel):
    install()
    executor = device.DeviceExecutor()
    launch, x, y = scale_rows_launch(executor, kernel)
    shifted = Launch(kernel, launch.grid, (x[1:], y, 999, 0.5), launch.constexprs)
    executor.run(launch)
    executor.run(shifted)
    assert len(device._functions) == 2


def test_cuda_arguments(install, monkeypatch):
    fake = install()
    monkeypatch.setattr(compiler, "compile_cuda", lambda file, function, architecture: Binary(function, b"code"))
    executor = device.DeviceExecutor()
    out, step = executor.empty((10,), np.float32), executor.empty((1,), np.uint64)
    kernel = Kernel("random_normal", ("random.cu", "random_normal"), "cuda")
    executor.run(Launch(kernel, (1, 1, 1), (out, 10, 2**32 - 1, 3, step), num_warps=8))
    ((name, _, block, args, _),) = fake.launches
    assert name == "random_normal" and block == (256, 1, 1)
    assert [type(a) for a in args[1:4]] == [np.int64, np.uint32, np.uint32]
    with pytest.raises(ValueError, match="takes 5 arguments, not 1"):
        executor.run(Launch(kernel, (1, 1, 1), (out,)))


def test_an_empty_grid_launches_nothing(install, kernel):
    fake = install()
    executor = device.DeviceExecutor()
    launch, _, _ = scale_rows_launch(executor, kernel)
    executor.run(Launch(kernel, (0, 1, 1), launch.args, launch.constexprs))
    assert fake.launches == []


def test_shared_memory_above_48_kb_is_asked_for_and_limited(install):
    fake = install()
    executor = device.DeviceExecutor()
    executor._load("small", Binary("k", b"code", 128, 48 * 1024))
    assert fake.attributes == []
    executor._load("large", Binary("k", b"code", 128, 200_000))
    assert fake.attributes == [(11, 8, 200_000)]
    with pytest.raises(DeviceError, match="does not take kernel k for sm_90"):
        executor._load("bad", Binary("k", b"bad"))


def test_a_kernel_that_takes_more_shared_memory_than_there_is_is_refused(install, kernel, monkeypatch):
    """One that was not written for jobs has no smaller tile. See test_cuda_fit.py for those that have."""
    install()
    monkeypatch.setattr(compiler, "compile_triton", lambda builds: [Binary("k", b"code", 128, 300_000)] * len(builds))
    executor = device.DeviceExecutor()
    with pytest.raises(DeviceError, match="wants 300000 bytes of shared memory.*sm_90 has 232448"):
        executor.run(scale_rows_launch(executor, kernel)[0])


def test_scratch_memory_is_allocated(install, kernel, monkeypatch):
    fake = install()
    monkeypatch.setattr(compiler, "compile_triton", lambda builds: [Binary("k", b"code", 128, 0, 96)] * len(builds))
    executor = device.DeviceExecutor()
    launch, _, _ = scale_rows_launch(executor, kernel)
    executor.run(launch)
    assert fake.launches[0][3][-2].shape == (4 * 96,)


# --- graphs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 31, 32, 33, 100])
def test_graph_replay_is_the_same_as_direct_launches(install, kernel, steps):
    fake = install()
    executor = device.DeviceExecutor()
    launch, x, y = scale_rows_launch(executor, kernel)
    back = Launch(kernel, launch.grid, (y, x, 1000, 3.0), launch.constexprs)

    def scale(x, y, n, factor, *scratch):
        np.multiply(x, factor, out=y)

    fake.effects["scale_rows"] = scale
    executor.upload(np.ones(1000, np.float32), out=x)
    for _ in range(steps):
        executor.run(launch)
        executor.run(back)
    direct, launches = executor.download(x), len(fake.launches)

    executor.upload(np.ones(1000, np.float32), out=x)
    program = executor.capture([launch, back])
    assert len(fake.launches) == launches, "capturing runs nothing"
    program.run(steps)
    np.testing.assert_array_equal(executor.download(x), direct)
    assert len(fake.launches) == 2 * launches
    assert fake.graphs == sum(divmod(steps, device.STEPS_PER_GRAPH))


def test_a_program_keeps_its_buffers_alive(install, kernel):
    fake = install()
    executor = device.DeviceExecutor()
    launch, x, y = scale_rows_launch(executor, kernel)
    program = executor.capture([launch])
    held = executor.arena.in_use
    del launch, x, y
    gc.collect()
    assert executor.arena.in_use == held
    del program, executor
    fake.effects.clear()
    gc.collect()
    assert fake.used == 0


def test_a_failure_during_capture_leaves_the_stream_usable(install, kernel):
    fake = install()
    executor = device.DeviceExecutor()
    launch, _, _ = scale_rows_launch(executor, kernel)
    ready = executor.prepare([launch])
    broken = device.Ready(None, (1, 1, 1), 32, (), 0)
    with pytest.raises(TypeError):
        executor.record([*ready, broken], 1)
    assert fake.capturing is None
    executor.capture([launch]).run(2)
    assert len(fake.launches) == 2


def test_nothing_is_allocated_during_capture(install):
    executor = (install(), device.DeviceExecutor())[1]
    executor._capturing = True
    with pytest.raises(RuntimeError, match="during graph capture"):
        executor.empty((1,), np.float32)


def test_a_failed_kernel_is_reported_where_it_is_noticed(install):
    fake = install()
    executor = device.DeviceExecutor()
    buffer = executor.empty((4,), np.float32)

    def fail(*copy):
        raise fake.cuda.runtime.CUDARuntimeError(700)

    fake.cuda.runtime.memcpyAsync = fail
    with pytest.raises(DeviceError, match="kernel or copy on cuda:0 failed"):
        executor.download(buffer)


# --- compilation and its cache ---------------------------------------------------------------------


def build(kernel, **changes):
    facts = {
        "signature": {"x": "*fp32", "y": "*fp32", "n": "i32", "factor": "fp32", "BLOCK": "constexpr"},
        "constexprs": {"BLOCK": 256},
        "aligned": (0, 1),
        "num_warps": 4,
        "num_stages": 3,
        "architecture": 90,
    }
    return compiler.TritonBuild(kernel.source, **(facts | changes))


def test_compiled_without_a_gpu_and_without_torch(kernels_folder, kernel):
    (binary,) = compiler.compile_triton([build(kernel)])
    assert binary.code[:4] == b"\x7fELF" and binary.entry == "scale_rows" and binary.threads == 128


def test_what_changes_the_code_changes_the_key(kernel, monkeypatch):
    variants = [
        build(kernel),
        build(kernel, constexprs={"BLOCK": 512}),
        build(kernel, aligned=(0,)),
        build(kernel, num_warps=8),
        build(kernel, num_stages=2),
        build(kernel, architecture=80),
        build(kernel, signature=build(kernel).signature | {"n": "i64"}),
    ]
    keys = {variant.key for variant in variants}
    assert len(keys) == len(variants)
    monkeypatch.setattr(triton, "__version__", "99.0")
    assert build(kernel).key not in keys
    assert build(kernel, aligned=[0, 1]).key == build(kernel).key


def test_an_entry_is_read_back_and_not_compiled_again(kernels_folder, kernel, monkeypatch):
    first = compiler.compile_triton([build(kernel)])
    compiler._binaries.clear()
    monkeypatch.setattr(compiler, "translate", None)
    assert compiler.compile_triton([build(kernel)]) == first


@pytest.mark.parametrize("damage", ["truncated", "emptied", "a bit", "foreign"])
def test_a_damaged_entry_is_rebuilt(kernels_folder, kernel, rng, damage):
    (first,) = compiler.compile_triton([build(kernel)])
    compiler._binaries.clear()
    (path,) = kernels_folder.iterdir()
    content = path.read_bytes()
    if damage == "a bit":
        spoilt = bytearray(content)
        spoilt[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoilt)
    else:
        path.write_bytes({"truncated": content[:-100], "emptied": b"", "foreign": b"hello"}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        assert compiler.compile_triton([build(kernel)])[0].threads == first.threads
    assert cache.decode(path.read_bytes()) is not None


def test_a_cache_that_cannot_be_written_warns_and_goes_on(kernels_folder, kernel):
    kernels_folder.parent.joinpath("kernels").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="kernel cache"):
        assert compiler.compile_triton([build(kernel)])[0].code


def test_several_kernels_at_once_keep_their_order(kernels_folder, kernel):
    builds = [build(kernel, num_warps=w) for w in (1, 2, 4, 2)]
    assert [binary.threads for binary in compiler.compile_triton(builds)] == [32, 64, 128, 64]
    assert len(list(kernels_folder.iterdir())) == 3


def test_too_old_an_architecture_is_refused(kernel):
    with pytest.raises(DeviceError, match="need sm_80"):
        compiler.compile_triton([build(kernel, architecture=75)])


def test_the_default_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIGEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "minigen" / "kernels"


# --- CUDA C++ sources ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["optimizer.cu", "random.cu", "batch.cu"])
def test_sources_carry_their_headers(file):
    text = sources.expanded(file)
    assert '#include "' not in text and "#pragma once" not in text
    assert text.count("using int32_t = int;") == 1


def test_unknown_kernels_and_types():
    with pytest.raises(ValueError, match="has no kernel adamax"):
        sources.parameters("optimizer.cu", "adamax")
    with pytest.raises(ValueError, match="not 'short x'"):
        sources._type(" short x")


def test_no_nvrtc(kernels_folder, monkeypatch):
    nvrtc = pytest.importorskip("cupy", reason="no CuPy").cuda.nvrtc

    def missing():
        raise RuntimeError("libnvrtc.so.13 not found")

    monkeypatch.setattr(nvrtc, "getVersion", missing)
    with pytest.raises(DeviceError, match="NVRTC is missing"):
        compiler.compile_cuda("random.cu", "random_normal", 90)


def test_encoding_is_its_own_inverse(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        binary = Binary("entry", rng.bytes(1000) + b"\n", 128, 4096, 8)
        assert cache.decode(cache.encode(binary)) == binary
