"""Types of Triton's interpreter, made once each: it describes the type of every value anew, which takes a third of a
launch's time."""

from __future__ import annotations

import functools
import math
from typing import Any


@functools.cache
def make_once() -> None:
    """Have the interpreter of this process keep what it has found of a type: NumPy's type, a block's shape."""
    from triton.language import core
    from triton.runtime import interpreter

    numpy_type_of, describe = interpreter._get_np_dtype, core.block_type.__init__
    numpy_types: dict[str, Any] = {}
    blocks: dict[Any, dict[str, Any]] = {}

    def numpy_type(of: Any) -> Any:
        scalar = of.scalar
        if scalar.name not in numpy_types:
            numpy_types[scalar.name] = numpy_type_of(scalar)
        return numpy_types[scalar.name]

    def block(self: Any, element: Any, shape: Any) -> None:
        key = element.name, *(size if type(size) is int else core._unwrap_if_constexpr(size) for size in shape)
        if key not in blocks:
            describe(self, element, shape)
            blocks[key] = self.__dict__
        self.__dict__.update(blocks[key])

    @functools.cache
    def sizes(*shape: int) -> tuple[Any, Any]:
        return core.tuple([core.constexpr(size) for size in shape]), core.constexpr(math.prod(shape))

    def tensor(self: Any, handle: Any, of: Any) -> None:
        self.handle, self.type, self.dtype = handle, of, of.scalar
        self.shape, self.numel = sizes(*(of.shape if of.is_block() else ()))

    interpreter._get_np_dtype = numpy_type
    core.block_type.__init__ = block  # type: ignore[method-assign]
    core.tensor.__init__ = tensor  # type: ignore[method-assign]
