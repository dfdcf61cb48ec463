"""initializers: variances, limits, and that they come from our own Philox."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minigen.reference import initializers, random

VARIANCE = {
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
}


@pytest.mark.parametrize("name", VARIANCE)
def test_variance(name, seed):
    fan_in, fan_out = 300, 100
    W = getattr(initializers, name)(fan_in, fan_out, seed)
    assert W.shape == (fan_in, fan_out) and W.dtype == np.float32 and W.flags.c_contiguous
    variance, n = VARIANCE[name](fan_in, fan_out), W.size
    fourth = 9 / 5 if "uniform" in name else 3
    assert abs(W.mean()) < 6 * math.sqrt(variance / n)
    assert abs(W.var() / variance - 1) < 6 * math.sqrt((fourth - 1) / n)
    if "uniform" in name:
        assert np.abs(W).max() <= math.sqrt(3 * variance)


@pytest.mark.parametrize("name", VARIANCE)
def test_every_tensor_has_its_own_numbers(name):
    draw = getattr(initializers, name)
    np.testing.assert_array_equal(draw(5, 7, 1, 2), draw(5, 7, 1, 2))
    assert (draw(5, 7, 1, 2) != draw(5, 7, 1, 3)).all()
    assert (draw(5, 7, 1, 2) != draw(5, 7, 2, 2)).all()
    assert draw(1, 1, 1).shape == (1, 1)


@pytest.mark.parametrize("name", VARIANCE)
def test_dtype(name):
    single, double = (getattr(initializers, name)(9, 8, 3, dtype=dtype) for dtype in (np.float32, np.float64))
    assert single.dtype == np.float32 and double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)


def test_source_is_the_init_stream():
    W = initializers.he_normal(4, 5, 11, tensor=2, dtype=np.float64)
    np.testing.assert_array_equal(W, random.normal((4, 5), 11, random.INIT, 2, np.float64) * math.sqrt(0.5))


@pytest.mark.parametrize("name", VARIANCE)
def test_bad_arguments_are_refused(name):
    draw = getattr(initializers, name)
    for argument, fans in (("fan_in", (0, 3)), ("fan_out", (3, 0))):
        with pytest.raises(ValueError, match=argument):
            draw(*fans, 1)
    with pytest.raises(ValueError, match="seed"):
        draw(3, 3, -1)
