"""The CUDA backend on a GPU: operations, precisions, trajectories, repeats, memory, arrays of other libraries."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import threading

import numpy as np
import pytest

import minigen
from helpers import PRODUCTS, Arena, InOut, Out, normals, relative_error
from minigen import cuda
from minigen.backend import DENSE_ACTIVATIONS
from minigen.device import AUTO, devices
from minigen.gradcheck_operations import call, operations
from minigen.reference import activations, dense
from minigen.reference_backend import NumpyBackend
from models import blobs, gan_training, run, vae_training

usable, detail = cuda.probe()
needed = "MINIGEN_NEEDS_GPU" in os.environ  # bench/gpu.sh: a skipped test would be no test
pytestmark = pytest.mark.skipif(not usable and not needed, reason=f"no GPU for the CUDA backend: {detail}")

PRECISIONS = ("ieee", "tf32x3", "bf16x6", "bf16x3", "tf32", "bf16")
TOLERANCES = {"ieee": 5e-6, "tf32x3": 5e-6, "bf16x6": 5e-6, "bf16x3": 5e-5, "tf32": 1e-3, "bf16": 1e-2}
TRAININGS = {"gan": gan_training, "vae": vae_training}


def backend(precision="ieee", **settings):
    return cuda.CudaBackend(precision=precision, **settings)


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


# --- operations ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def round_seed():
    """The same operations for every precision, so that those without a matrix product are compiled once."""
    value = int(os.environ.get("MINIGEN_TEST_SEED", secrets.randbelow(2**32)))
    print(f"repeat with MINIGEN_TEST_SEED={value}")
    return value


def compile_ahead(ops, calls):
    """Compile what the (method, buffers) will launch, several kernels at a time."""
    steps = [lambda method=method, buffers=buffers: getattr(ops, method)(*buffers) for method, buffers in calls]
    ops.executor.compile([launch for step in steps for launch in ops.schedule(step, fuse=False).launches])


@pytest.mark.parametrize("round", range(2))
def test_every_operation_against_the_reference(precision, round_seed, round):
    """At random odd sizes, each buffer at an odd place inside a larger one, whose surroundings must survive."""
    rng = np.random.default_rng(round_seed + round)
    ops = backend(precision)
    arena = Arena(ops, rng)
    table = list(operations(rng))
    calls = [(method, [arena.place(method, a) for a in arguments]) for _, _, method, arguments, _ in table]
    compile_ahead(ops, calls)
    for (operation, what, _, arguments, expected), (method, buffers) in zip(table, calls, strict=True):
        getattr(ops, method)(*buffers)
        written = [b for a, b in zip(arguments, buffers, strict=True) if isinstance(a, (Out, InOut))]
        tolerance = PRODUCTS[precision] if operation == "dense" else TOLERANCES["ieee"]
        for buffer, reference in zip(written, expected, strict=True):
            assert relative_error(ops.download(buffer), reference) < tolerance, (operation, what)
    arena.verify()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (128, 784, 128), (259, 1031, 517), (1000, 2048, 1500)])
def test_products_of_many_tiles(precision, rng, sizes):
    B, n_in, n_out = sizes
    x, W, b, dz = normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, n_out), normals(rng, B, n_out)
    # One product alone may be off by twice what cutting its factors off costs: see PRODUCTS.
    ops, tolerance = backend(precision), (PRODUCTS if max(sizes) == 1 else TOLERANCES)[precision]
    arena = Arena(ops, rng)
    arguments = {
        "dense_forward": (x, W, b, Out(B, n_out)),
        "dense_dgrad": (dz, W, Out(B, n_in)),
        "dense_wgrad": (x, dz, Out(n_in, n_out), Out(n_out)),
    }
    buffers = {method: [arena.place(method, a) for a in given] for method, given in arguments.items()}
    compile_ahead(ops, buffers.items())
    for method, given in buffers.items():
        getattr(ops, method)(*given)
    y, dx, dW = (ops.download(buffers[method][i]) for method, i in zip(buffers, (3, 2, 2), strict=True))
    assert relative_error(y, dense.forward(x, W, b)) < tolerance
    assert relative_error(dx, dense.dgrad(dz, W)) < tolerance
    assert relative_error(dW, x.T @ dz) < tolerance
    db = ops.download(buffers["dense_wgrad"][3])
    assert np.abs(db - dz.sum(axis=0)).max() < 5e-6 * np.abs(dz).sum(axis=0).max()
    arena.verify()


def test_nan_passes_through(precision, rng):
    ops, x = backend(precision), normals(rng, 35, 19).astype(np.float32)
    x[17, 3] = np.nan
    x, W, b = (ops.upload(a.astype(np.float32)) for a in (x, normals(rng, 19, 21), normals(rng, 21)))
    outputs = {activation: ops.empty((35, 21)) for activation in DENSE_ACTIVATIONS}
    compile_ahead(ops, [("dense_forward", (x, W, b, y, activation)) for activation, y in outputs.items()])
    for activation, y in outputs.items():
        ops.dense_forward(x, W, b, y, activation)
        got = ops.download(y)
        assert np.isnan(got[17]).all() and np.isfinite(np.delete(got, 17, axis=0)).all(), activation


def test_an_index_outside_of_the_data_gives_nan():
    ops = backend()
    out = ops.empty((3, 5))
    ops.batch_gather(ops.upload(np.ones((4, 5), np.uint8)), ops.upload(np.array([0, 4, -1], np.int32)), out)
    assert np.isnan(ops.download(out)[1:]).all() and (ops.download(out)[0] == 1).all()


# --- CUDA C++ --------------------------------------------------------------------------------------


def test_cuda_cpp_kernels_against_the_triton_ones(rng):
    """Both languages, from the same formulas: the same integers, and floats within a few roundings."""
    from minigen.cuda import cpp

    ops = backend()
    executor, n = ops.executor, 10_007
    step, rate = ops.upload(np.array([77], np.uint64)), ops.upload(np.array([1e-3], np.float32))

    def pair(name, launch, *arguments):
        ours, theirs = ops.empty((n,)), ops.empty((n,))
        executor.run(launch(ours, *arguments))
        getattr(ops, name)(theirs, *arguments)
        return ops.download(ours), ops.download(theirs)

    np.testing.assert_array_equal(*pair("random_uniform", cpp.random_uniform, 9, 3, step))
    np.testing.assert_allclose(*pair("random_normal", cpp.random_normal, 9, 3, step), rtol=0, atol=2e-6)
    host = [rng.random(n, np.float32) for _ in range(4)]
    ours, theirs = ([ops.upload(x) for x in host] for _ in range(2))
    executor.run(cpp.adam(executor, [(*ours, rate)], step))
    ops.adam(*theirs, rate, step)
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(ops.download(a), ops.download(b)) < 1e-6
    data, order = ops.upload(rng.integers(0, 256, (500, 31), np.uint8)), (500, 9, 1, step, 37, 13)
    chosen, expected, out = ops.empty((37,), np.int32), ops.empty((37,), np.int32), ops.empty((37, 31))
    executor.run(cpp.batch_take(data, chosen, out, *order[1:], 0.5, -1.0))
    ops.batch_indices(expected, *order)
    np.testing.assert_array_equal(ops.download(chosen), ops.download(expected))
    rows = ops.download(data)[ops.download(chosen)]
    np.testing.assert_array_equal(ops.download(out), rows * np.float32(0.5) - 1)


# --- trajectories ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TRAININGS)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_hundred_steps_follow_the_numpy_backend(model, optimizer):
    """Fused, from graphs, in ieee: 1e-3 on losses and weights after 100 steps."""
    rate = 0.02 if optimizer == "sgd" else 1e-3
    ours, reference = (
        TRAININGS[model](ops, blobs(), hidden=(24, 16), learning_rate=rate, optimizer=optimizer)
        for ops in (backend(), NumpyBackend())
    )
    run(ours, 100)
    run(reference, 100)
    np.testing.assert_allclose(ours.recent_losses(100), reference.recent_losses(100), rtol=1e-3, atol=1e-3)
    for a, b in zip(ours.step.networks, reference.step.networks, strict=True):
        assert relative_error(ours.ops.download(a.params), b.params) < 1e-3


@pytest.mark.parametrize("model", TRAININGS)
def test_low_precisions_stay_close_for_a_few_steps(model, precision):
    ours, reference = (
        TRAININGS[model](ops, blobs(), learning_rate=1e-3) for ops in (backend(precision), NumpyBackend())
    )
    run(ours, 10)
    run(reference, 10)
    np.testing.assert_allclose(ours.recent_losses(10), reference.recent_losses(10), rtol=20 * TOLERANCES[precision])


@pytest.mark.parametrize("model", TRAININGS)
def test_repeats_are_the_same_bits(model, precision):
    states = []
    for _ in range(2):
        training = TRAININGS[model](backend(precision), blobs(), seed=5)
        run(training, 50)
        states.append(training.state() | {"losses": training.recent_losses(50)})
    for key in states[0]:
        np.testing.assert_array_equal(states[0][key], states[1][key], err_msg=key)


@pytest.mark.parametrize("model", TRAININGS)
def test_graphs_give_the_bits_of_direct_launches(model):
    """Also however the steps are divided among graphs of one and of many steps."""
    graphs, singles, direct = (TRAININGS[model](backend(), blobs(1000), seed=5) for _ in range(3))
    graphs.run(31)
    for _ in range(31):
        singles.run(1)
    schedule = direct.ops.schedule(lambda: direct.step.compute(direct.step.batch_size))
    for _ in range(31):
        for launch in schedule.launches:
            direct.ops.executor.run(launch)
    direct.done = 31
    for key, value in graphs.state().items():
        np.testing.assert_array_equal(singles.state()[key], value, err_msg=key)
        np.testing.assert_array_equal(direct.state()[key], value, err_msg=key)
    np.testing.assert_array_equal(direct.recent_losses(31), graphs.recent_losses(31))


@pytest.mark.parametrize("model", TRAININGS)
def test_fused_steps_compute_what_the_spelled_out_ones_do(model):
    fused, plain = (TRAININGS[model](backend(fuse=fuse), blobs(), hidden=(24, 16)) for fuse in (True, False))
    run(fused, 20)
    run(plain, 20)
    np.testing.assert_allclose(fused.recent_losses(20), plain.recent_losses(20), rtol=1e-4, atol=1e-4)
    for a, b in zip(fused.step.networks, plain.step.networks, strict=True):
        assert relative_error(fused.ops.download(a.params), plain.ops.download(b.params)) < 1e-4


def test_more_steps_than_a_graph_holds():
    from minigen.cuda.run.device import STEPS_PER_GRAPH

    many, few = (gan_training(backend(), blobs(40_000), seed=1) for _ in range(2))
    steps = 3 * STEPS_PER_GRAPH + 5
    many.run(steps)
    for _ in range(steps):
        few.run(1)
    for key, value in many.state().items():
        np.testing.assert_array_equal(few.state()[key], value, err_msg=key)


# --- the estimators --------------------------------------------------------------------------------

SMALL = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "progress": False}


@pytest.mark.parametrize("train", [minigen.train_gan, minigen.train_vae])
@pytest.mark.parametrize("ways", [("cuda", "numpy"), ("numpy", "cuda")])
def test_saved_on_one_device_loads_on_another(tmp_path, train, ways):
    path = tmp_path / "model.safetensors"
    model = train(blobs(), epochs=3, device=ways[0], **SMALL)
    model.save(path)
    other = minigen.load(path, device=ways[1])
    for a, b in zip(model.networks_, other.networks_, strict=True):
        for key, value in a.state().items():
            np.testing.assert_array_equal(b.state()[key], value)
    difference = model.sample(50, seed=3).astype(int) - other.sample(50, seed=3)
    assert np.abs(difference).max() <= 1, "at most a rounding to the next grey level"


def test_auto_takes_the_first_of_its_list():
    """The first that can be used: without the compiled module the CPU cannot."""
    usable = [name for name in AUTO if devices()[name].usable]
    assert minigen.train_gan(blobs(), epochs=1, **SMALL).device_ == usable[0]


def test_nan_is_found_and_named():
    with pytest.raises(minigen.TrainingDiverged, match="step") as caught:
        minigen.train_gan(blobs(), epochs=50, device="cuda", optimizer="sgd", learning_rate=1e30, **SMALL)
    assert caught.value.step >= 1 and caught.value.layer


def test_interruption_keeps_what_was_learnt():
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    model = minigen.train_gan(blobs(), epochs=10**7, device="cuda", **SMALL)
    timer.join()
    assert model.history_.stop_reason == "interrupted" and model.sample(3).shape == (3, 12)


def test_numbered_gpus():
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    with pytest.raises(minigen.DeviceError, match=f"no cuda:{count}"):
        minigen.train_gan(blobs(), epochs=1, device=f"cuda:{count}", **SMALL)
    if count == 1:
        return
    first, second = (minigen.train_gan(blobs(), epochs=2, device=f"cuda:{i}", **SMALL) for i in range(2))
    np.testing.assert_array_equal(first.history_.values, second.history_.values)


# --- memory: bench/gpu_tests.py runs those with "memory" in their names while nobody else is on the GPU -----------


SLACK = 64 * 2**20  # bytes that the driver and the loaded kernels may have taken meanwhile


def free_memory():
    import cupy

    gc.collect()
    return cupy.cuda.runtime.memGetInfo()[0]


def test_out_of_memory_says_the_figures_and_leaves_nothing():
    before = free_memory()
    ops = backend()
    with pytest.raises(MemoryError, match="needs .* GiB, .* [GM]iB of .* GiB are free"):
        for _ in range(5):
            ops.kept = [ops.empty((before // 16,)), *getattr(ops, "kept", [])]  # a quarter of the memory each
    del ops
    assert free_memory() > before - SLACK


def test_with_little_memory_training_can_start_again_smaller():
    ops = backend()
    others = ops.empty(((free_memory() - 256 * 2**20) // 4,))
    before = free_memory()
    with pytest.raises(MemoryError, match="cuda:0 is out of memory"):
        minigen.train_gan(blobs(), epochs=1, device="cuda", **(SMALL | {"hidden": (4096, 4096)}))
    assert free_memory() > before - SLACK
    minigen.train_gan(blobs(), epochs=1, device="cuda", **SMALL)
    assert len(others)


def test_data_larger_than_the_memory_are_refused_with_the_figure():
    rows = free_memory() // 784 * 2
    data = np.broadcast_to(np.zeros(1, np.uint8), (rows, 784))
    with pytest.raises(MemoryError, match="the data take .* GiB"):
        backend().resident(data)


def test_a_step_allocates_nothing():
    training = gan_training(backend(), blobs())
    training.run(1)
    arena = training.ops.executor.arena
    before = arena.reserved, arena.in_use
    run(training, 50)
    assert (arena.reserved, arena.in_use) == before


# --- arrays of other libraries ---------------------------------------------------------------------


def test_cupy_arrays_go_in_and_out_without_a_copy():
    import cupy

    from minigen.cuda import interop

    ops = backend()
    data = cupy.asarray(blobs().reshape(200, 3, 4))
    rows, item_shape = interop.rows(ops, data)
    assert item_shape == (3, 4) and ops.resident(rows).data.ptr == data.data.ptr
    training, host = gan_training(ops, rows), gan_training(backend(), blobs())
    run(training, 10)
    run(host, 10)
    np.testing.assert_array_equal(training.recent_losses(10), host.recent_losses(10))


@pytest.mark.parametrize("train", [minigen.train_gan, minigen.train_vae])
@pytest.mark.parametrize("stream", ["default", "another"])
def test_estimators_take_and_give_cupy_arrays(train, stream):
    """As from the host, bit for bit while training; also from a stream that CuPy's user chose."""
    import cupy

    host = train(blobs().reshape(200, 3, 4), epochs=2, device="cuda", **SMALL)
    with cupy.cuda.Stream.null if stream == "default" else cupy.cuda.Stream(non_blocking=True):
        data = cupy.asarray(blobs().reshape(200, 3, 4))
        model = train(data, epochs=2, device="cuda", **SMALL)
        np.testing.assert_array_equal(model.history_.values, host.history_.values)
        z = cupy.asarray(normals(np.random.default_rng(0), 5000, 4), cupy.float32)
        uses = {
            "discriminate": data,
            "generate": z,
            "encode": data,
            "decode": z,
            "reconstruct": data,
            "elbo": data,
            "score_samples": data,
        }
        for name, array in uses.items():
            if hasattr(model, name):
                found, expected = getattr(model, name)(array), getattr(host, name)(array.get())
                assert isinstance(found, cupy.ndarray) and found.dtype == expected.dtype, name
                off = np.abs(found.get().astype(float) - expected)
                assert off.max() <= (1 if found.dtype == np.uint8 else 1e-4 * np.abs(expected).max()), name
        assert model.partial_fit(data[::-1], epochs=1, progress=False).history_.epochs == 3


def test_dlpack_arrays_go_in_and_out_without_a_copy():
    torch = pytest.importorskip("torch", reason="no PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    from minigen.cuda import interop

    ops = backend()
    tensor = torch.from_numpy(blobs().astype(np.float32) / 255).cuda()
    rows, _ = interop.rows(ops, tensor)
    assert rows.data.ptr == tensor.data_ptr()
    back = torch.from_dlpack(ops.executor.release(rows))
    assert back.data_ptr() == tensor.data_ptr() and torch.equal(back, tensor)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda x: x.astype("int32"), TypeError),
        (lambda x: x[0], ValueError),
        (lambda x: x[:1], ValueError),
        (lambda x: x * np.nan, ValueError),
    ],
)
def test_bad_arrays_on_the_gpu_are_refused(change, error):
    import cupy

    from minigen.cuda import interop

    with pytest.raises(error, match="data must"):
        interop.rows(backend(), change(cupy.ones((10, 3), cupy.float32)))


def test_activations_are_those_of_the_reference(rng):
    """The whole range of float32, where polynomials and exponents are clamped."""
    z = np.concatenate([np.linspace(-110, 110, 20_001), [1e-38, -1e-38, 3e38, -3e38, 0.0, -0.0]])
    z = z.astype(np.float32).astype(np.float64)
    for name in DENSE_ACTIVATIONS:
        (y,) = call(backend(), "activation_forward", z, Out(len(z)), name)
        np.testing.assert_allclose(y, activations.forward(z, name), rtol=1e-6, atol=2e-38, err_msg=name)
