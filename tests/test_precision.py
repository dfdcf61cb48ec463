"""``precision``: what each device takes, what it says to anything else, and the way through a model file."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import FakeCupy
from test_checkpoint import forged

import minigen
from minigen import cuda
from minigen.backend import PRECISIONS
from minigen.device import get_backend, precisions
from minigen.training import checkpoint
from models import blobs

native = pytest.importorskip("minigen._native", reason="minigen._native is not built")
HOST = [name for name, device in minigen.devices().items() if device.usable and name != "cuda"]
SMALL = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 1, "progress": False}


@pytest.fixture(params=[minigen.train_gan, minigen.train_vae])
def train(request):
    return request.param


@pytest.fixture
def trained_on_cuda(train, tmp_path, monkeypatch):
    """A model file that says it was trained in tf32, as one from a GPU does."""
    model = train(blobs(64), device="numpy", **SMALL)
    monkeypatch.setitem(model._frozen, "precision", "tf32")
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("device", HOST)
def test_auto_is_as_good_as_float32(device):
    amx = device == "cpu" and "amx" in native.supported_bf16()
    assert get_backend(device).precision == ("bf16x6" if amx else "ieee")
    assert get_backend(device, "ieee").precision == "ieee"
    for precision in precisions(device):
        if precision == "ieee" or "amx" in native.supported_bf16():
            assert get_backend(device, precision).precision == precision


@pytest.mark.parametrize("device", HOST)
def test_what_a_device_has_not_is_refused_with_what_it_has(device):
    for precision in {*PRECISIONS, "fp8", ""} - {*precisions(device)}:
        with pytest.raises(ValueError, match=f"precision .* 'auto', 'ieee'.* on device '{device}', not '{precision}'"):
            get_backend(device, precision)


def test_cuda_has_all_and_takes_tf32x3(pretend_gpu: FakeCupy):
    assert get_backend("cuda").precision == get_backend("cuda:0").precision == "tf32x3"
    assert precisions("cuda") == ("ieee", "tf32x3", "bf16x6", "bf16x3", "tf32", "bf16")
    for precision in precisions("cuda"):
        ops = get_backend("cuda", precision)
        assert isinstance(ops, cuda.CudaBackend)
        assert ops.precision == ops.target.precision == precision
    with pytest.raises(
        ValueError, match="'ieee', 'tf32x3', 'bf16x6', 'bf16x3', 'tf32', 'bf16' on device 'cuda', not 'fp16'"
    ):
        get_backend("cuda", "fp16")


def test_a_setting_like_the_others(train):
    model = train(blobs(64), device="numpy", precision="ieee", **SMALL)
    assert model.get_params()["precision"] == model.precision_ == "ieee"
    assert train(blobs(64), device="numpy", **SMALL).precision == "auto"
    model.set_params(precision="bf16")
    with pytest.raises(ValueError, match="precision must be one of 'auto', 'ieee' on device 'numpy', not 'bf16'"):
        model.fit(blobs(64))
    assert model.history_.epochs == 1, "work began before the check"


def test_the_same_bits_under_either_name(train):
    a, b = (train(blobs(64), device="numpy", precision=name, **SMALL) for name in ("auto", "ieee"))
    np.testing.assert_array_equal(a.history_.values, b.history_.values)


def test_a_file_keeps_it(train, tmp_path):
    train(blobs(64), device="numpy", precision="ieee", **SMALL).save(tmp_path / "m")
    assert minigen.load(tmp_path / "m").precision == "ieee"


@pytest.mark.parametrize("device", HOST)
def test_a_model_from_another_device_computes_in_the_default_and_keeps_its_setting(trained_on_cuda, tmp_path, device):
    assert "tf32" not in precisions(device)
    model = minigen.load(trained_on_cuda, device=device)
    assert (model.precision, model.precision_) == ("tf32", get_backend(device).precision)
    assert np.isfinite(model.partial_fit(blobs(64), epochs=1, progress=False).history_.values).all()
    model.save(tmp_path / "again")
    assert checkpoint.read(tmp_path / "again")[0]["params"]["precision"] == "tf32"
    with pytest.raises(ValueError, match="not 'tf32'"):
        model.fit(blobs(64))


def test_it_can_be_chosen_while_loading(trained_on_cuda):
    model = minigen.load(trained_on_cuda, device="numpy", precision="ieee")
    assert model.precision == model.precision_ == "ieee"
    with pytest.raises(ValueError, match="on device 'numpy', not 'bf16'"):
        minigen.load(trained_on_cuda, device="numpy", precision="bf16")


def test_a_model_trained_on_a_gpu_goes_on_there_as_it_was(trained_on_cuda, pretend_gpu):
    model = minigen.load(trained_on_cuda, device="cuda")
    assert model.precision == model.precision_ == model._ops.target.precision == "tf32"


def altered(path, change):
    """Write ``path`` again with other settings, under a digest that fits them."""
    settings, tensors = checkpoint.read(path)
    forged(path, change(settings), tensors)


def test_files_from_before_there_was_a_choice(trained_on_cuda):
    def without(settings):
        del settings["params"]["precision"]
        return settings

    altered(trained_on_cuda, without)
    assert "precision" not in checkpoint.read(trained_on_cuda)[0]["params"]
    assert minigen.load(trained_on_cuda, device="numpy").precision == "auto"


def test_a_file_with_an_unknown_one_is_refused(trained_on_cuda):
    altered(trained_on_cuda, lambda s: s | {"params": s["params"] | {"precision": "fp8"}})
    with pytest.raises(minigen.ModelFileError, match="fp8"):
        minigen.load(trained_on_cuda, device="numpy")
