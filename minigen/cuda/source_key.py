"""A Triton function's key that depends on the sources alone.

Triton 3.6's own ``cache_key`` depends on what else the process has asked it for: a function's key takes in the
constants of those that it calls, but only where their keys were asked for before. A kernel would then be compiled again
in every process that has compiled others first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any


def source_key(function: Any) -> str:
    """SHA-256 over the text of a ``triton.jit`` function and of all that it calls, and the constants in them."""
    import triton.language as tl

    # By id: a Triton function's hash is its ``cache_key``.
    todo, found = [function], {}
    while todo:
        current = todo.pop()
        if id(current) in found:
            continue
        named = list(_named(current))
        constants = sorted(f"{n} = {v!r}" for n, v in named if isinstance(v, tl.constexpr | int | float | str))
        found[id(current)] = "\n".join([current.fn.__module__, current.src, *constants])
        todo += [value for _, value in named if type(value) is type(function)]
    return hashlib.sha256("\n".join(sorted(found.values())).encode()).hexdigest()


def _named(function: Any) -> Iterator[tuple[str, Any]]:
    """The globals that ``function`` names, and the attributes of modules among them. A few too many do no harm."""
    names, known = function.fn.__code__.co_names, function.fn.__globals__
    for name in names:
        if name in known:
            yield name, known[name]
            if isinstance(known[name], ModuleType):
                yield from ((n, vars(known[name])[n]) for n in names if n in vars(known[name]))
