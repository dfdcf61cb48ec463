"""Device memory for buffers: a few large pieces from the driver, given out in blocks that find their own way back.

Allocating from the driver stops the GPU, so it happens rarely and never inside a step; a block that is returned is used
again. All work on the blocks runs on one stream, so a block may be given out again while the GPU still works on it.
"""

from __future__ import annotations

from bisect import insort
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
        self.arena._give_back(self)


class Arena:
    """Blocks from pieces that ``allocate(nbytes)`` gets from the driver; it raises MemoryError.

    ``in_use`` and ``reserved`` count bytes in blocks and in pieces, ``peak`` is the largest ``reserved`` so far.
    """

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self.allocate = allocate
        self.pieces: list[Piece] = []
        self.in_use = self.reserved = self.peak = 0

    def take(self, nbytes: int) -> Block:
        """A block of at least ``nbytes``, aligned to 256 bytes. Raises MemoryError where the driver has no more."""
        size = max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
        for piece in self.pieces:
            offset = piece.take(size)
            if offset is not None:
                return self._block(piece, offset, size)
        piece = self._new_piece(size)
        return self._block(piece, piece.take(size) or 0, size)

    def reserve(self, nbytes: int) -> None:
        """Get one piece of ``nbytes`` now, for blocks to come."""
        self._new_piece(-(-nbytes // ALIGNMENT) * ALIGNMENT)

    def trim(self) -> None:
        """Give every piece that holds no block back to the driver."""
        self.pieces = [piece for piece in self.pieces if not piece.is_free]
        self.reserved = sum(piece.size for piece in self.pieces)

    def _new_piece(self, size: int) -> Piece:
        try:
            piece = Piece(self.allocate(max(size, PIECE)), max(size, PIECE))
        except MemoryError:
            # Room in pieces that nobody uses, or that a whole piece does not fit but the block does.
            self.trim()
            piece = Piece(self.allocate(size), size)
        self.pieces.append(piece)
        self.reserved += piece.size
        self.peak = max(self.peak, self.reserved)
        return piece

    def _block(self, piece: Piece, offset: int, size: int) -> Block:
        self.in_use += size
        return Block(self, piece, offset, size)

    def _give_back(self, block: Block) -> None:
        self.in_use -= block.size
        block.piece.give_back(block.offset, block.size)
