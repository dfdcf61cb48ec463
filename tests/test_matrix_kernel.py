"""The CPU backend's matrix kernel: every path, on every instruction set, the same bits for any number of threads.

`test_dense` draws small shapes; these are chosen to reach what only large or lopsided ones do.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from helpers import use_threads

native = pytest.importorskip("minigen._native")

SHAPES = [
    (1, 37, 53),  # one row: B is read where it lies
    (257, 390, 700),  # forward packs all of B, K in two blocks
    (260, 701, 400),  # so does the input gradient
    (400, 300, 699),  # and the weight gradient, with column sums
    (1030, 300, 70),  # several blocks of rows
    (130, 512, 40),  # three vectors wide with AVX-512, and a stride of 2 KiB
    (131, 20, 400),  # an input gradient of few columns: dot products
    (301, 77, 1),  # a head
    (256, 784, 128),  # forward in two halves of k
    (67, 600, 400),
    (1300, 523, 33),  # both halves in each thread, several blocks of rows
    (64, 0, 33),
    (0, 19, 33),
    (0, 600, 33),
]


def products(backend, B, n_in, n_out, rng):
    """The three products, into outputs that hold NaN, and float64's with the scale of their rounding."""
    x, W, b, dz = (
        rng.standard_normal(size, dtype=np.float32) for size in ((B, n_in), (n_in, n_out), (n_out,), (B, n_out))
    )
    x[x < 0] = 0  # an output of ReLU
    y, dx, dW, db = (np.full(size, np.nan, np.float32) for size in ((B, n_out), (B, n_in), (n_in, n_out), (n_out,)))
    backend.dense_forward(x, W, b, y)
    backend.dense_dgrad(dz, W, dx, x, "relu")
    backend.dense_wgrad(x, dz, dW, db)
    x, W, b, dz = (a.astype(np.float64) for a in (x, W, b, dz))
    expected = [
        (x @ W + b, np.abs(x) @ np.abs(W) + np.abs(b)),
        ((dz @ W.T) * (x > 0), np.abs(dz) @ np.abs(W.T)),
        (x.T @ dz, np.abs(x.T) @ np.abs(dz)),
        (dz.sum(0), np.abs(dz).sum(0)),
    ]
    return [y, dx, dW, db], expected


def check_all(seed):
    from minigen.cpu import CpuBackend, set_num_threads

    backend = CpuBackend()
    for shape in SHAPES:
        set_num_threads(1)
        alone, expected = products(backend, *shape, np.random.default_rng(seed))
        for got, (want, scale) in zip(alone, expected, strict=True):
            assert np.all(np.abs(got - want) <= 1e-5 * scale), (backend.isa, shape, seed)  # NaN fails
        for threads in (2, 3, 7):
            use_threads(threads)
            together, _ = products(backend, *shape, np.random.default_rng(seed))
            for one, other in zip(alone, together, strict=True):
                assert one.tobytes() == other.tobytes(), (backend.isa, shape, seed, threads)


def test_a_row_has_the_same_bits_in_any_batch(rng):
    from minigen.cpu import CpuBackend

    precisions = ["ieee", *["bf16x6"] * ("amx" in native.supported_bf16())]
    for precision in precisions:
        backend = CpuBackend(precision)
        for n_in, n_out in ((784, 128), (600, 400), (129, 70), (520, 3)):
            x = rng.standard_normal((200, n_in), dtype=np.float32)
            W, b = rng.standard_normal((n_in, n_out), dtype=np.float32), rng.standard_normal(n_out, dtype=np.float32)
            for activation in ("linear", "tanh"):
                outputs = []
                for rows in (x, x[:131], x[:1]):
                    outputs.append(np.full((len(rows), n_out), np.nan, np.float32))
                    backend.dense_forward(rows, W, b, outputs[-1], activation)
                for part in outputs[1:]:
                    assert part.tobytes() == outputs[0][: len(part)].tobytes(), (precision, n_in, n_out, len(part))


@pytest.mark.slow
@pytest.mark.parametrize("isa", native.supported_isas())
def test_every_path(isa, seed):
    """In a process of its own: the instruction set is picked once."""
    result = subprocess.run(
        [sys.executable, __file__, str(seed)],
        env=os.environ | {"MINIGEN_ISA": isa},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    check_all(int(sys.argv[1]))
