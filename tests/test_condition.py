"""condition: labels and numbers beside a row, every backend against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import InOut, Out, assert_close, f32, knows_values, normals, shapes, use_threads
from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck_plain import ACTIVATIONS as PLAIN
from minigen.reference import activations


def test_labels_of_rows(arena, rng):
    for N, B in [*shapes(rng, 2), (50, 0), (3, 1000)]:
        labels, rows = rng.integers(0, 1000, N, np.int32), rng.integers(0, N, B, np.int32)
        (out,) = arena.call("batch_labels", labels, rows, Out(B, dtype=np.int32))
        np.testing.assert_array_equal(out, labels[rows])


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_the_sum_may_lie_in_either_of_its_terms(backend, rng, activation):
    for shape in ((1, 1), (33, 17), (5, 2049)):
        a, b = normals(rng, *shape), normals(rng, *shape)
        for own in (0, 1):
            terms = [backend.upload(term.astype(backend.dtype)) for term in (a, b)]
            backend.activation_of_sum(*terms, terms[own], activation)
            assert_close(backend, backend.download(terms[own]), PLAIN[activation][0](a + b), 1 + np.abs(a + b))


def test_sums_of_classes(arena, rng):
    """More classes than rows, one class, none of some, and no rows at all."""
    for B, D, N in [*shapes(rng, 3), (0, 5, 3), (200, 300, 2), (7, 1, 40)]:
        x, labels = normals(rng, B, D), rng.integers(0, N, B, np.int32)
        (sums,) = arena.call("class_sums", x, labels, Out(N, D))
        assert_close(arena.backend, sums, np.eye(N)[labels].T @ x, np.eye(N)[labels].T @ np.abs(x) + 1)
        assert not sums[np.bincount(labels, minlength=N) == 0].any(), "a class without rows"


def test_sums_of_classes_have_the_same_bits_for_any_number_of_threads(rng):
    cpu = pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    ops = cpu.CpuBackend()
    x, labels = rng.normal(size=(600, 1000)).astype(np.float32), rng.integers(0, 10, 600, np.int32)
    before, found = cpu.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            use_threads(threads)
            sums = ops.empty((10, 1000))
            ops.class_sums(x, labels, sums)
            found.append(sums.tobytes())
    finally:
        cpu.set_num_threads(before)
    assert len(set(found)) == 1


def test_a_label_of_no_class(backend, rng):
    x, labels = normals(rng, 4, 3).astype(backend.dtype), np.array([0, 2, -1, 1], np.int32)
    buffers = backend.upload(x), backend.upload(labels), backend.empty((2, 3))
    if knows_values(backend):
        with pytest.raises(ValueError, match="labels must"):
            backend.class_sums(*buffers)
        with pytest.raises(ValueError, match="indices must"):
            backend.batch_labels(labels, labels, backend.empty((4,), np.int32))
    else:
        backend.class_sums(*buffers)
        np.testing.assert_allclose(backend.download(buffers[2]), x[[0, 3]], rtol=1e-6)
        rows, out = backend.upload(np.array([4, 1], np.int32)), backend.empty((2,), np.int32)
        backend.batch_labels(buffers[1], rows, out)
        assert backend.download(out).tolist() == [-1, 2]


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_projection(arena, rng, activation):
    """The three operations beside what they are added to, against a matrix for each row."""
    for B, D in [*shapes(rng, 2), (0, 4), (3, 700)]:
        z, e, y, dz, dx = (normals(rng, *shape) for shape in ((B, D), (B, D), (B, 1), (B, 1), (B, D)))
        x = f32(PLAIN[activation][0](z))
        (logits,) = arena.call("projection_forward", x, e, InOut(y))
        assert_close(arena.backend, logits, y + np.einsum("ri,ri->r", x, e)[:, None], 1 + np.abs(x * e).sum(1)[:, None])
        (of_e,) = arena.call("projection_wgrad", x, dz, Out(B, D))
        assert_close(arena.backend, of_e, np.einsum("rk,ri->ri", dz, x))
        (of_x,) = arena.call("projection_dgrad", dz, e, InOut(dx), x, activation)
        slope = activations.derivative(x, activation)  # of what x has kept: see test_activations.py
        terms = 1 + np.abs(dx) + np.abs(dz * e)
        assert_close(arena.backend, of_x, dx + np.einsum("rk,ri->ri", dz, e) * slope, terms)


def test_projection_behind_a_linear_layer_needs_no_output_of_it(arena, rng):
    e, dz, dx = normals(rng, 6, 5), normals(rng, 6, 1), normals(rng, 6, 5)
    (out,) = arena.call("projection_dgrad", dz, e, InOut(dx), None, "linear")
    assert_close(arena.backend, out, dx + dz * e, 1 + np.abs(dx))
    with pytest.raises(ValueError, match="x: the output of the layer before is needed"):
        arena.call("projection_dgrad", dz, e, InOut(dx), None, "relu")
