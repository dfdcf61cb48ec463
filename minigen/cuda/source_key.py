"""A Triton function's key that depends on the sources alone.

Triton's ``cache_key`` takes in the constants that a function and those that it calls refer to, in Triton 3.6
a called function's only where that one's own key has been asked for before. So the same kernel has one key in a process
that compiles it first and another after other kernels, and would be compiled again. Here the called functions' keys come first, always.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

_seen: set[Any] = set()  # functions whose callees' keys have been asked for


def source_key(function: Any) -> str:
    """``function.cache_key`` of a ``triton.jit`` function, after those of all that it calls."""
    if function not in _seen:
        _seen.add(function)
        for called in callees(function):
            source_key(called)
    return function.cache_key


def callees(function: Any) -> list[Any]:
    """The ``triton.jit`` functions that ``function`` names, as its own globals or as attributes of modules there."""
    names, known = function.fn.__code__.co_names, function.fn.__globals__
    values = [known[name] for name in names if name in known]
    modules = [value for value in values if isinstance(value, ModuleType)]
    values += [vars(module)[name] for module in modules for name in names if name in vars(module)]
    return [value for value in values if type(value) is type(function)]
