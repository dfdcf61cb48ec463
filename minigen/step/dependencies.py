"""Who touches what in a list of operations: the questions that a rewriting must ask before it moves anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from minigen.step.record import Array, Operation

Span = tuple[int, int]


class Memory:
    """Where buffers lie. ``address`` gives the first byte of one, ``empty(shape, dtype)`` a new one."""

    def __init__(self, address: Callable[[Array], int], empty: Callable[[tuple[int, ...], Any], Array]) -> None:
        self.address, self.empty = address, empty

    def span(self, buffer: Array) -> Span:
        """First byte, and the one behind the last."""
        first = self.address(buffer)
        return first, first + int(buffer.nbytes)

    def overlap(self, a: Array, b: Array) -> bool:
        (a0, a1), (b0, b1) = self.span(a), self.span(b)
        return a0 < b1 and b0 < a1

    def contains(self, outer: Array, inner: Array) -> bool:
        (o0, o1), (i0, i1) = self.span(outer), self.span(inner)
        return o0 <= i0 and i1 <= o1

    def same(self, a: Array | None, b: Array | None) -> bool:
        """Whether both are the same memory in the same shape and dtype."""
        if a is None or b is None:
            return False
        return self.span(a) == self.span(b) and a.shape == b.shape and a.dtype == b.dtype

    def touch(self, some: Iterable[Array], others: Iterable[Array]) -> bool:
        """Whether any buffer of ``some`` overlaps one of ``others``."""
        others = list(others)
        return any(self.overlap(a, b) for a in some for b in others)

    def conflict(self, a: Any, b: Any) -> bool:
        """Whether the order of two operations matters: one writes what the other reads or writes."""
        return self.touch(a.writes(), [*b.reads(), *b.writes()]) or self.touch(a.reads(), b.writes())

    def view(self, buffer: Array, inside: Array, elsewhere: Array) -> Array:
        """The part of ``elsewhere`` that lies in it as ``buffer`` lies in ``inside``; all of one dtype."""
        first = (self.address(buffer) - self.address(inside)) // buffer.itemsize
        return elsewhere.reshape(-1)[first : first + buffer.size].reshape(buffer.shape)


class OperationList:
    """Operations in order. Positions are indices into ``ops``."""

    def __init__(self, ops: Sequence[Operation], memory: Memory) -> None:
        self.ops, self.memory = list(ops), memory

    def readers(self, i: int, buffer: Array) -> list[int]:
        """Positions behind ``i`` that read any of ``buffer`` before it is overwritten."""
        found = []
        for j in range(i + 1, len(self.ops)):
            if self.memory.touch([buffer], self.ops[j].reads()):
                found.append(j)
            if any(self.memory.contains(written, buffer) for written in self.ops[j].writes()):
                break
        return found

    def writer(self, j: int, buffer: Array | None) -> int | None:
        """The position before ``j`` whose write ``j`` sees in ``buffer``, if it wrote exactly that."""
        if buffer is None:
            return None
        for i in reversed(range(j)):
            written = [w for w in self.ops[i].writes() if self.memory.overlap(w, buffer)]
            if written:
                return i if len(written) == 1 and self.memory.same(written[0], buffer) else None
        return None

    def unwritten(self, buffer: Array, i: int, j: int) -> bool:
        """Whether nobody strictly between ``i`` and ``j`` writes any of ``buffer``."""
        return not any(self.memory.touch([buffer], op.writes()) for op in self.ops[i + 1 : j])

    def can_gather(self, positions: Sequence[int], at: int) -> bool:
        """Whether the operations at ``positions`` can all move to ``at`` without passing one whose order matters."""
        together = {*positions, at}
        for i in positions:
            between = range(min(i, at) + 1, max(i, at))
            if any(self.memory.conflict(self.ops[i], self.ops[k]) for k in between if k not in together):
                return False
        return True

    def replaced(self, new: Mapping[int, Sequence[Operation]]) -> OperationList:
        """The operations with those at the positions of ``new`` replaced."""
        ops = [op for i, old in enumerate(self.ops) for op in new.get(i, [old])]
        return OperationList(ops, self.memory)
