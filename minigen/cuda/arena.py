"""Device memory for buffers: a few large pieces from the driver, given out in blocks that find their own way back.

Allocating from the driver stops the GPU, so it happens rarely and never inside a step; a block that is returned is used
again. All work on the blocks runs on one stream, so a block may be given out again while the GPU still works on it.
"""

from __future__ import annotations

import gc
from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Any

ALIGNMENT = 256
PIECE = 32 * 2**20


class Piece:
    """One allocation from the driver: ``memory.ptr`` is its address. ``free`` lists (offset, size), in order."""

    def __init__(self, memory: Any, size: int) -> None:
        self.memory, self.size = memory, size
        self.free = [(0, size)]

    def take(self, size: int) -> int | None:
        """Offset of the first free place of ``size`` bytes."""
        for i, (offset, room) in enumerate(self.free):
            if room >= size:
                self.free[i : i + 1] = [(offset + size, room - size)] if room > size else []
                return offset
        return None

    def give_back(self, offset: int, size: int) -> None:
        """Free a place and join it with free neighbours."""
        insort(self.free, (offset, size))
        joined: list[tuple[int, int]] = []
        for start, room in self.free:
            if joined and sum(joined[-1]) == start:
                joined[-1] = (joined[-1][0], joined[-1][1] + room)
            else:
                joined.append((start, room))
        self.free = joined

    @property
    def is_free(self) -> bool:
        return self.free == [(0, self.size)]


class Block:
    """A place in a piece, which goes back to the arena when nobody holds it any more."""

    def __init__(self, arena: Arena, piece: Piece, offset: int, size: int) -> None:
        self.arena, self.piece, self.offset, self.size = arena, piece, offset, size
        self.address = piece.memory.ptr + offset

    def __del__(self) -> None:
        # The garbage collector may call this in the middle of a `take`: only leave word.
        self.arena.returned.append((self.piece, self.offset, self.size))


class Arena:
    """Blocks from pieces that ``allocate(nbytes)`` gets from the driver; it raises MemoryError.

    ``reserved`` counts the bytes in pieces, ``peak`` is the largest it has been.
    """

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self.allocate = allocate
        self.pieces: list[Piece] = []
        self.returned: deque[tuple[Piece, int, int]] = deque()
        self.reserved = self.peak = 0

    @property
    def in_use(self) -> int:
        """Bytes in blocks that somebody holds."""
        self._collect()
        return self.reserved - sum(size for piece in self.pieces for _, size in piece.free)

    def take(self, nbytes: int) -> Block:
        """A block of at least ``nbytes``, aligned to 256 bytes. Raises MemoryError where the driver has no more."""
        self._collect()
        size = max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
        block = self._find(size)
        if block is None:
            self._new_piece(size)
            block = self._find(size)
            assert block is not None
        return block

    def trim(self) -> None:
        """Give every piece that holds no block back to the driver."""
        self._collect()
        self.pieces = [piece for piece in self.pieces if not piece.is_free]
        self.reserved = sum(piece.size for piece in self.pieces)

    def _find(self, size: int) -> Block | None:
        for piece in self.pieces:
            offset = piece.take(size)
            if offset is not None:
                return Block(self, piece, offset, size)
        return None

    def _new_piece(self, size: int) -> None:
        try:
            piece = Piece(self.allocate(max(size, PIECE)), max(size, PIECE))
        except MemoryError:
            piece = self._last_piece(size)
        self.pieces.append(piece)
        self.reserved += piece.size
        self.peak = max(self.peak, self.reserved)

    def _last_piece(self, size: int) -> Piece:
        """There may be room for the block if not for a whole piece, and pieces that nobody uses make room."""
        self.trim()
        try:
            return Piece(self.allocate(size), size)
        except MemoryError:
            gc.collect()  # what a failed training's frames hold in cycles; slow, so only now
            self.trim()
            return Piece(self.allocate(size), size)

    def _collect(self) -> None:
        while self.returned:
            piece, offset, size = self.returned.popleft()
            piece.give_back(offset, size)
