"""The checks of the interpreter's executor find what they are for: run by test_cuda_interpreter.py."""

from __future__ import annotations

import numpy as np
import pytest
import triton
import triton.language as tl

from interpreter import InterpreterExecutor
from minigen.cuda.plan.launch import Launch


@triton.jit
def move(x, y, n, offset):
    i = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(y + i, tl.load(x + i + offset, mask=i < n, other=0.0), mask=i < n)


@triton.jit
def write_then_read(x, n):
    i = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(x + i, 1.0 + tl.zeros([4], tl.float32), mask=i < n)
    tl.store(x + i, 2.0 * tl.load(x + i, mask=i < n), mask=i < n)


def run(function, *args, programs=3):
    executor = InterpreterExecutor(shuffle=np.random.default_rng(), check=True)
    executor.run(Launch("tried", function, (programs, 1, 1), args))


def test_clean_launches_pass():
    x, y = np.arange(12, dtype=np.float32), np.zeros(12, np.float32)
    run(move, x, y, 12, 0)
    np.testing.assert_array_equal(x, y)
    run(move, x, x, 12, 0)


def test_a_program_that_reads_what_another_writes():
    x = np.zeros(16, np.float32)
    with pytest.raises(RuntimeError, match="reads what another program"):
        run(move, x, x, 12, 4)


def test_two_programs_that_write_the_same():
    x, y = np.zeros(16, np.float32), np.zeros(16, np.float32)
    with pytest.raises(RuntimeError, match="writes what another program"):
        run(lap, x, y)


@triton.jit
def lap(x, y):
    i = tl.program_id(0) * 3 + tl.arange(0, 4)
    tl.store(y + i, tl.load(x + i))


def test_an_access_outside_of_the_buffers():
    memory = np.zeros(64, np.float32)
    with pytest.raises(RuntimeError, match="outside of its buffers"):
        run(move, memory[:12], memory[20:40], 12, 4)


def test_a_program_that_reads_what_it_has_written():
    with pytest.raises(RuntimeError, match="without a barrier"):
        run(write_then_read, np.zeros(12, np.float32), 12)
