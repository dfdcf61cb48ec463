"""Every Triton kernel compiles for each supported generation of GPUs, without a GPU and without spilling registers."""

from __future__ import annotations

import importlib.util
import os

import pytest

from minigen.cuda import report, tiles
from minigen.cuda.backend import PRECISIONS
from minigen.cuda.fusion import MOST_SCORES

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"),
]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """Nothing compiled before counts."""
    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path))


def assert_fit(found: list[report.Resources]) -> None:
    print(report.table(found))
    for kernel in found:
        assert kernel.stack == 0, kernel
        assert 0 < kernel.registers <= 65536 // (32 * kernel.warps), kernel
        assert kernel.shared <= tiles.SHARED.get(kernel.architecture, 99) * 1024, kernel


@pytest.mark.parametrize("architecture", report.ARCHITECTURES)
def test_the_models_steps(architecture):
    """Every launch of the article's GAN step and of the VAE step beside it that takes no product: see below."""
    ops = report.drawn(architecture, "tf32x3")
    launches = [launch for model in report.MODELS for launch in report.model_launches(model, ops)]
    assert len(launches) == 8 + 6
    assert_fit(report.resources([x for x in launches if "PRECISION" not in kernel_parameters(x)], ops))


def test_operations_by_themselves():
    """The launches of steps that are not fused, and of operations that the models do not use."""
    ops = report.drawn(90, "tf32x3")
    launches = [launch for model in report.MODELS for launch in report.model_launches(model, ops, fuse=False)]
    assert_fit(report.resources([*launches, *report.other_launches(ops)], ops))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", report.ARCHITECTURES)
def test_products(architecture, precision):
    """Those of both models, fused and not; what takes no product is the same in every precision."""
    ops = report.drawn(architecture, precision)
    launches = [launch for model in report.MODELS for fuse in (True, False)
                for launch in report.model_launches(model, ops, fuse)]  # fmt: skip
    found = report.resources([x for x in launches if "PRECISION" in kernel_parameters(x)], ops)
    assert {"dense_forward", "dense_dgrad", "dense_wgrad"} <= {kernel.kernel for kernel in found}
    assert_fit(found)


def kernel_parameters(launch):
    """The names of the parameters of the functions that a launch runs."""
    jobs = [value for name, value in launch.kernel.source.fn.__globals__.items() if name.startswith("job_")]
    return {name for job in jobs for name in job.arg_names}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", report.ARCHITECTURES)
def test_large_layers(architecture, precision):
    """The tiles of large products, in the gradients with an update in the epilogue."""
    ops = report.drawn(architecture, precision)
    assert tiles.shape_class(4096, 1024, architecture) == "many"
    assert_fit(report.resources(dense_launches(ops, 4096, 1024, 1024), ops))


def dense_launches(ops, B, n_in, n_out):
    """Forward, input gradient, weight gradient with Adam's update: three launches."""
    x, W, b, y = ops.empty((B, n_in)), ops.empty((n_in, n_out)), ops.empty((n_out,)), ops.empty((B, n_out))
    flat = n_in * n_out + n_out
    p, g, m, v = (ops.empty((flat,)) for _ in range(4))
    lr, step = ops.empty((1,)), ops.empty((1,), "uint64")

    def spell():
        ops.dense_forward(x, W, b, y, "tanh")
        ops.dense_dgrad(y, W, x, x, "relu")
        ops.dense_wgrad(x, y, g[: n_in * n_out].reshape(n_in, n_out), g[n_in * n_out :])
        ops.adam(p, g, m, v, lr, step)

    launches = ops.schedule(spell).launches
    assert sum("dense_wgrad" in launch.fuses for launch in launches) == 1
    return launches


def test_the_head_takes_layers_of_any_tile():
    """A logit is summed from at most so many shares: the widest hidden layer that the smallest tiles allow."""
    assert MOST_SCORES * min(tile.BN for tile in tiles.TABLE.values()) >= 2048
