"""Every operation of the registry on every device: against the float64 reference at random odd sizes, in guarded
buffers that hold NaN at first, with each buffer spoilt in each way there is, and with outputs over inputs.

The tests of one operation, ``test_dense.py`` and so on, know more about it; what is here an operation gets by its row
in :mod:`minigen.ops`, as in ``minigen gradcheck``, which makes its calls likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import assert_close, refuses_bad_buffers, shapes
from minigen.gradcheck_operations import SETTINGS, SIZES, call, calls, fitting, letters, ordered, place, shape_of
from minigen.ops import OPERATIONS
from minigen.reference_backend import NumpyBackend
from minigen.registry import Row


def whole(row: Row, rng: np.random.Generator, sizes: dict[str, int]) -> dict[str, Any]:
    """The last call that has all buffers and overwrites its outputs."""
    every = [arguments for arguments in calls(row, rng, sizes) if not arguments.get("accumulate")]
    return next(arguments for arguments in reversed(every) if not any(value is None for value in arguments.values()))


@pytest.mark.parametrize("name", OPERATIONS)
def test_against_the_float64_reference(arena: Any, rng: np.random.Generator, name: str) -> None:
    row = OPERATIONS[name]
    for drawn in shapes(rng, len(letters(row)), count=3):
        sizes = fitting(row, dict(zip(letters(row), drawn, strict=True)), rng)
        for arguments in calls(row, rng, sizes):
            given = ordered(row, arguments)
            got = arena.call(name, *given)
            expected = call(NumpyBackend(np.float64), name, *given)
            for out, reference in zip(got, expected, strict=True):
                assert not np.isnan(out).any()
                scale = np.abs(reference) + (1 if reference.dtype.kind == "f" else 0)  # sums may cancel
                assert_close(arena.backend, out, reference, scale, products=name.startswith("dense"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_bad_buffers_are_refused(backend: Any, rng: np.random.Generator, name: str) -> None:
    row = OPERATIONS[name]
    sizes = SIZES | dict(zip(letters(row), range(4, 10), strict=False))
    if "V" in sizes:
        sizes["V"] = sizes["D"]
    if "G" in sizes and "D" in sizes:
        sizes["G"] = 3
    if "draws" in row.settings:
        sizes["R"] = 2 * SETTINGS["draws"]
    every = [size for buffer in row.buffers for size in buffer.shape or ()]
    free: list[tuple[str, Any]] = [
        (buffer.name, axis)
        for buffer in row.buffers
        for axis, size in enumerate(buffer.shape or ())
        if size.rstrip("+").isalpha() and sum(size.rstrip("+") in other for other in every) == 1
    ]
    if sum(buffer.shape is None for buffer in row.buffers) == 1:
        free += [(buffer.name, axis) for buffer in row.buffers if buffer.shape is None for axis in (None, 0, 1)]
    arguments = whole(row, rng, sizes)
    refuses_bad_buffers(backend, name, free=tuple(free), **arguments)


@pytest.mark.parametrize("name", OPERATIONS)
def test_outputs_over_other_buffers_are_refused(backend: Any, rng: np.random.Generator, name: str) -> None:
    row = OPERATIONS[name]
    sizes = SIZES | {letter: 3 for letter in letters(row)}
    arguments = whole(row, rng, sizes)
    memory = backend.upload(np.zeros(200, backend.dtype))
    floats = [buffer for buffer in row.buffers if buffer.dtype == "float"]
    good = {key: place(backend, value) for key, value in arguments.items()}
    for written in (buffer for buffer in floats if buffer.written):
        for other in floats:
            if other is written:
                continue
            placed = {}
            for at, buffer in ((1, written), (0, other)):  # one element further on: not in place
                shape = shape_of(buffer, sizes)
                placed[buffer.name] = memory[at : at + int(np.prod(shape))].reshape(shape)
            if min(array.size for array in placed.values()) < 2:
                placed[written.name] = memory[: placed[written.name].size].reshape(placed[written.name].shape)
            if row.in_place and placed[written.name].size < 2:
                continue
            with pytest.raises(ValueError, match="must not share memory"):
                getattr(backend, name)(**{**good, **placed})


# --- one wording on every device ------------------------------------------------------------------------------

host32 = pytest.mark.parametrize("backend", ["numpy", "cpu"], indirect=True)


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def unaligned(n: int) -> np.ndarray:
    return np.zeros(4 * n + 1, np.uint8)[1:].view(np.float32)


def read_only(*shape: int) -> np.ndarray:
    array = f32(*shape)
    array.flags.writeable = False
    return array


@host32
@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "z must be a numpy.ndarray, not list", lambda o: o.activation_forward([1.0], f32(1), "relu")),
        (TypeError, "z must be a numpy.ndarray, not NoneType", lambda o: o.activation_forward(None, f32(1), "relu")),
        (TypeError, "z must be float32, not float64", lambda o: o.activation_forward(np.ones(1), f32(1), "relu")),
        (TypeError, "y must be float32, not >f4", lambda o: o.activation_forward(f32(1), np.ones(1, ">f4"), "relu")),
        (TypeError, "step must be uint64, not int64", lambda o: o.random_normal(f32(1), 0, 0, np.zeros(1, int))),
        (
            ValueError,
            r"z must be C-contiguous, its strides are \(4, 8\)",
            lambda o: o.activation_forward(f32(3, 2).T, f32(2, 3), "relu"),
        ),
        (
            ValueError,
            r"z must be C-contiguous, its strides are \(8,\)",
            lambda o: o.activation_forward(f32(6)[::2], f32(3), "relu"),
        ),
        (ValueError, "z must be aligned", lambda o: o.activation_forward(unaligned(4), f32(4), "relu")),
        (
            ValueError,
            "y is an output and must be writeable",
            lambda o: o.activation_forward(f32(3), read_only(3), "relu"),
        ),
        (ValueError, "p is an output and must be writeable", lambda o: o.sgd(read_only(3), f32(3), f32(3), f32(1))),
        (ValueError, r"y must have shape \(3,\), not \(4,\)", lambda o: o.activation_forward(f32(3), f32(4), "relu")),
        (
            ValueError,
            r"W must have shape \(3, 5\), not \(4, 5\)",
            lambda o: o.dense_forward(f32(2, 3), f32(4, 5), f32(5), f32(2, 5)),
        ),
        (
            ValueError,
            r"x must have shape \(1, 3\), not \(3,\)",
            lambda o: o.dense_forward(f32(3), f32(3, 5), f32(5), f32(1, 5)),
        ),
        (
            ValueError,
            r"loss must have shape \(1,\), not \(\)",
            lambda o: o.gan_loss_generator(f32(2, 1), f32(2, 1), f32()),
        ),
        (
            ValueError,
            "activation must be one of 'linear', 'relu', .*, not 'gelu'",
            lambda o: o.activation_forward(f32(3), f32(3), "gelu"),
        ),
        (
            ValueError,
            "kind must be one of 'non_saturating', 'minimax', .*, not 'wgan'",
            lambda o: o.gan_loss_generator(f32(2, 1), f32(2, 1), f32(1), "wgan"),
        ),
        (
            ValueError,
            "x: the output of the layer before is needed for activation 'relu'",
            lambda o: o.dense_dgrad(f32(2, 3), f32(4, 3), f32(2, 4), None, "relu"),
        ),
        (
            ValueError,
            "n_real must leave a real and a generated row, 1 to 1 of 2, not 2",
            lambda o: o.gan_loss_discriminator(f32(2, 1), 2, f32(2, 1), f32(1)),
        ),
        (ValueError, "logits has no rows", lambda o: o.gan_loss_generator(f32(0, 1), f32(0, 1), f32(1))),
        (
            ValueError,
            r"variance must be a finite number in \(0, inf\), not 0.0",
            lambda o: o.vae_loss(f32(2, 3), f32(2, 3), f32(2, 3), f32(2), f32(1), "gaussian", 0.0),
        ),
        (
            ValueError,
            r"seed must be an integer from 0 to 4294967295, not -1",
            lambda o: o.random_uniform(f32(3), -1, 0, np.zeros(1, np.uint64)),
        ),
        (
            ValueError,
            r"stream must be an integer from 0 to 4294967295, not 4294967296",
            lambda o: o.random_uniform(f32(3), 0, 2**32, np.zeros(1, np.uint64)),
        ),
        (
            ValueError,
            r"n must be an integer from 1 to 2147483647, not 0",
            lambda o: o.batch_indices(np.zeros(3, np.int32), 0, 0, 0, np.zeros(1, np.uint64), 3, 1),
        ),
        (
            ValueError,
            "epoch",
            lambda o: o.batch_indices(np.zeros(3, np.int32), 8, 0, 0, np.full(1, 2, np.uint64), 3, 3),
        ),
        (
            ValueError,
            "batch_size must be at least the 3 rows of indices, not 2",
            lambda o: o.batch_indices(np.zeros(3, np.int32), 8, 0, 0, np.zeros(1, np.uint64), 2, 3),
        ),
        (ValueError, "indices must", lambda o: o.batch_gather(f32(3, 2), np.array([-1], np.int32), f32(1, 2))),
        (
            TypeError,
            "data must be float32, not int32",
            lambda o: o.batch_gather(np.zeros((3, 2), np.int32), np.zeros(1, np.int32), f32(1, 2)),
        ),
        (
            ValueError,
            r"len\(history\) must be an integer of at least 1, not 0",
            lambda o: o.advance(np.zeros(1, np.uint64), f32(2), f32(0, 2)),
        ),
    ],
)
def test_bad_arguments_are_named(
    backend: Any, error: type[Exception], message: str, call: Callable[[Any], None]
) -> None:
    with pytest.raises(error, match=message):
        call(backend)


@host32
def test_outputs_may_not_overlap_other_buffers(backend: Any) -> None:
    memory = f32(40)
    with pytest.raises(ValueError, match="y and z must not share memory"):
        backend.activation_forward(memory[:20], memory[10:30], "relu")
    backend.activation_forward(memory[:20], memory[:20], "relu")  # in place
    square = memory[:16].reshape(4, 4)
    with pytest.raises(ValueError, match="y and x must not share memory"):
        backend.dense_forward(square, f32(4, 4), f32(4), square)
    with pytest.raises(ValueError, match="p and g must not share memory"):
        backend.sgd(memory[:20], memory[:20], memory[20:40], f32(1))
