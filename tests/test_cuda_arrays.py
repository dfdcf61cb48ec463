"""Arrays in GPU memory go into the estimators and come out as such, on a stand-in for CuPy."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minigen
from helpers import normals
from minigen.cuda.run import device
from models import blobs

SMALL = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "epochs": 2, "progress": False}
TRAIN = {"gan": minigen.train_gan, "vae": minigen.train_vae}


@pytest.fixture
def gpu(computing_gpus):
    return computing_gpus()


@pytest.fixture(params=TRAIN)
def train(request):
    return TRAIN[request.param]


class Tensor:
    """An array of another library, known by DLPack only."""

    def __init__(self, memory, index=0):
        self.memory, self.index = memory, index

    def __dlpack_device__(self):
        return 2, self.index

    def __dlpack__(self, **options):
        raise AssertionError("the stand-in takes .memory")


def on_gpu(fake, array):
    out = fake.empty(array.shape, array.dtype)
    out[...] = array
    return out


@pytest.fixture
def no_copies(monkeypatch):
    """A context in which a large copy between host and device fails; losses and single numbers may pass."""

    def watch():
        limit = 200  # bytes

        def refuse(method):
            def copy(self, *arguments):
                size = next(a.nbytes for a in arguments if isinstance(a, np.ndarray))
                assert size < limit, f"{size} bytes went through the host"
                return method(self, *arguments)

            return copy

        for name in ("to_device", "to_host"):
            monkeypatch.setattr(device.Staging, name, refuse(getattr(device.Staging, name)))

    return watch


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("library", ["cupy", "dlpack"])
def test_training_is_the_same_bit_for_bit(gpu, train, dtype, library):
    host = blobs().reshape(200, 3, 4) if dtype == np.uint8 else (blobs().reshape(200, 3, 4) / 255).astype(dtype)
    data = on_gpu(gpu, host) if library == "cupy" else Tensor(host)
    expected = train(host, device="cuda", **SMALL)
    model = train(data, device="cuda", **SMALL)
    assert model.device_ == "cuda" and model.item_shape_ == (3, 4) and model.data_dtype_ == expected.data_dtype_
    np.testing.assert_array_equal(model.history_.values, expected.history_.values)
    for found, wanted in zip(model.networks_, expected.networks_, strict=True):
        np.testing.assert_array_equal(found.state()[f"{found.name}.0.W"], wanted.state()[f"{found.name}.0.W"])
    model.partial_fit(data, epochs=1, progress=False)
    expected.partial_fit(host, epochs=1, progress=False)
    np.testing.assert_array_equal(model.history_.values, expected.history_.values)


def test_training_reads_the_array_where_it_is(gpu, train):
    data = on_gpu(gpu, blobs())
    model = minigen.GAN(**{name: value for name, value in SMALL.items() if name != "progress"}, device="cuda")
    runs = []
    model.fit(data, callbacks=[lambda end: runs.append(end.model._run.step.data.data.ptr)], progress=False)
    assert set(runs) == {data.data.ptr}


USES = [
    ("gan", "discriminate", "data"),
    ("gan", "generate", "z"),
    ("vae", "encode", "data"),
    ("vae", "decode", "z"),
    ("vae", "reconstruct", "data"),
    ("vae", "elbo", "data"),
    ("vae", "score_samples", "data"),
]


@pytest.mark.parametrize(("kind", "method", "what"), USES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_results_stay_on_the_gpu(gpu, rng, no_copies, kind, method, what, dtype, monkeypatch):
    """Those of the host, from arrays that never pass through it; more rows than are worked on at a time."""
    items = blobs(90).reshape(90, 3, 4) if dtype == np.uint8 else (blobs(90).reshape(90, 3, 4) / 255).astype(dtype)
    from minigen.estimators import scoring, trained

    for module in (trained, scoring):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 40)
    model = TRAIN[kind](items, device="cuda", **SMALL)
    given = items if what == "data" else normals(rng, 90, 4).astype(np.float32)
    expected = getattr(model, method)(given)
    array = on_gpu(gpu, given)
    no_copies()
    gpu.waits.clear()
    found = getattr(model, method)(array)
    assert isinstance(found, gpu.ndarray) and not isinstance(expected, gpu.ndarray)
    assert found.dtype == expected.dtype and found.flags.c_contiguous
    np.testing.assert_array_equal(np.asarray(found), expected)
    stream, caller = model._ops.executor.stream, gpu.cuda.get_current_stream()
    assert gpu.waits[0] == (stream, caller) and gpu.waits[-1] == (caller, stream), "the streams do not wait for another"
    np.testing.assert_array_equal(np.asarray(getattr(model, method)(Tensor(given))), expected)


def test_encode_with_variances(gpu):
    model = minigen.train_vae(blobs(), device="cuda", **SMALL)
    found, expected = (model.encode(x, return_logvar=True) for x in (on_gpu(gpu, blobs()), blobs()))
    for a, b in zip(found, expected, strict=True):
        assert isinstance(a, gpu.ndarray)
        np.testing.assert_array_equal(np.asarray(a), b)


def test_latents_of_any_memory_order_and_type(gpu, rng):
    model = minigen.train_vae(blobs(), device="cuda", **SMALL)
    z = normals(rng, 4, 7)
    np.testing.assert_array_equal(np.asarray(model.decode(on_gpu(gpu, z).T)), model.decode(z.T))


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_other_devices_say_how_to_copy(gpu, train, device):
    if not minigen.devices()[device].usable:
        pytest.skip(f"no {device}")
    model = train(blobs(), device=device, **SMALL)
    array, z = on_gpu(gpu, blobs()), on_gpu(gpu, np.zeros((3, 4), np.float32))
    uses = [lambda: train(array, device=device, **SMALL), lambda: model.partial_fit(array)]
    uses += [lambda m=m: getattr(model, m)(array) for m in ("discriminate", "encode", "elbo") if hasattr(model, m)]
    for use in uses:
        with pytest.raises(TypeError, match=re.escape("X of type") + r".*copy it to the host first.*device='cuda'"):
            use()
    decode = model.generate if hasattr(model, "generate") else model.decode
    with pytest.raises(TypeError, match=r"z of type .*copy it to the host first"):
        decode(z)


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (np.ones((64, 3), complex), TypeError, "X must be real numbers"),
        (np.ones(64, np.uint8), ValueError, "X must have shape"),
        (np.full((64, 3), np.nan, np.float32), ValueError, "X must be finite"),
        (np.full((64, 3), 1.5, np.float32), ValueError, "X must lie in [0, 1]"),
        (np.ones((5, 3), np.uint8), ValueError, "batch_size must be at most the 5 rows of the data"),
    ],
)
def test_bad_arrays_are_refused(gpu, array, error, text):
    model = minigen.VAE(device="cuda", batch_size=32)
    with pytest.raises(error, match=re.escape(text)):
        model.fit(on_gpu(gpu, array))
    assert not hasattr(model, "networks_") and gpu.current == []


def test_a_fitted_model_refuses_other_rows(gpu):
    model = minigen.train_gan(blobs(), device="cuda", **SMALL)
    for bad, error in ((blobs(20, 5), ValueError), (blobs().astype(np.float32), TypeError)):
        with pytest.raises(error, match="X must"):
            model.discriminate(on_gpu(gpu, bad))
    with pytest.raises(ValueError, match=r"z must have shape \(n, 4\), not \(3, 5\)"):
        model.generate(on_gpu(gpu, np.zeros((3, 5), np.float32)))


def test_arrays_on_another_gpu_are_refused(computing_gpus):
    fake = computing_gpus(gpus=2)
    with pytest.raises(ValueError, match="X must be on cuda:1 like the model, not on cuda:0"):
        minigen.train_gan(on_gpu(fake, blobs()), device="cuda:1", **SMALL)
    model = minigen.train_gan(Tensor(blobs(), 1), device="cuda:1", **SMALL)
    with pytest.raises(ValueError, match="z must be on cuda:1"):
        model.generate(on_gpu(fake, np.zeros((3, 4), np.float32)))
