"""Device memory: an :class:`Arena` gives it out, :class:`Staging` copies it from and to the host.

The arena takes a few large pieces from the driver and gives them out in blocks, which return when nobody refers to them
any more. Allocating from the driver stops the GPU, so it happens rarely and never inside a step; a returned block is
used again. All work on the blocks runs on one stream, so a block may be given out while the GPU still works on it.
"""

from __future__ import annotations

import gc
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

ALIGNMENT = 256
PIECE = 32 * 2**20
SLAB_PIECE = 8 * 2**20  # of one of several models
STAGING = 8 * 2**20  # bytes of pinned memory that a copy goes through at a time
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, which CuPy has no name for


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

    ``reserved`` counts the bytes in pieces, of ``piece`` bytes or more, ``peak`` is the largest it has been.
    """

    def __init__(self, allocate: Callable[[int], Any], piece: int = PIECE) -> None:
        self.allocate, self.piece = allocate, piece
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
            piece = Piece(self.allocate(max(size, self.piece)), max(size, self.piece))
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


class Part:
    """One model's part of memory that a driver gave for several: ``ptr`` is its address."""

    def __init__(self, whole: Any, offset: int) -> None:
        self.whole, self.ptr = whole, whole.ptr + offset


class Slabs:
    """Memory for ``models`` that allocate the same in the same order: an arena each.

    The n-th pieces of all of them are one allocation, side by side. So what a model has lies as far from what the first
    one has in all pieces of the usual size: a stride times the model's number.
    """

    def __init__(self, models: int, allocate: Callable[[int], Any]) -> None:
        self.models, self.allocate = models, allocate
        self.wholes: list[tuple[Any, int]] = []  # and the bytes for each model
        self.closed = False

    def arena(self, model: int) -> Arena:
        """Of one model."""
        taken = count()
        return Arena(lambda nbytes: self._part(model, next(taken), nbytes), SLAB_PIECE)

    def close(self) -> None:
        """From now on every arena goes its own way."""
        self.closed = True
        self.wholes.clear()

    def _part(self, model: int, n: int, nbytes: int) -> Any:
        if n == len(self.wholes) and not self.closed:
            self.wholes.append((self.allocate(self.models * nbytes), nbytes))
        if n >= len(self.wholes) or self.wholes[n][1] != nbytes:  # it allocates differently from the models before it
            return self.allocate(nbytes)
        return Part(self.wholes[n][0], model * nbytes)


def allocate(cupy: Any, device: Any, nbytes: int) -> Any:
    """Memory from the driver. Raises MemoryError."""
    try:
        with device:
            return cupy.cuda.Memory(nbytes)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != OUT_OF_MEMORY:
            raise
    raise MemoryError


# --- copies -------------------------------------------------------------------------------------------


class Staging:
    """Two pieces of pinned memory that copies go through: the GPU reads one while the host fills the other.

    Threads take turns.
    """

    def __init__(self, cupy: Any, stream: Any) -> None:
        self.lock = threading.Lock()
        self.cupy, self.stream = cupy, stream
        self.pinned = [cupy.cuda.alloc_pinned_memory(STAGING) for _ in range(2)]
        self.views = [np.frombuffer(memory, np.uint8, STAGING) for memory in self.pinned]
        self.events = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
        self.turn = 0

    def to_device(self, host: np.ndarray, address: int) -> None:
        """Copy contiguous ``host`` to device memory; ``host`` may change when this returns."""
        runtime = self.cupy.cuda.runtime
        source = host.reshape(-1).view(np.uint8)
        with self.lock:
            for begin in range(0, source.size, STAGING):
                piece = source[begin : begin + STAGING]
                view, event = self.views[self.turn], self.events[self.turn]
                event.synchronize()  # the copy that used this piece before
                view[: piece.size] = piece
                runtime.memcpyAsync(
                    address + begin, view.ctypes.data, piece.size, runtime.memcpyHostToDevice, self.stream.ptr
                )
                event.record(self.stream)
                self.turn = 1 - self.turn

    def to_host(self, address: int, host: np.ndarray) -> None:
        """Fill contiguous ``host`` from device memory, after the work on the stream."""
        runtime = self.cupy.cuda.runtime
        target = host.reshape(-1).view(np.uint8)
        with self.lock:
            self.stream.synchronize()  # both pieces are free then
            for begin in range(0, target.size, STAGING):
                piece = target[begin : begin + STAGING]
                runtime.memcpyAsync(
                    self.views[0].ctypes.data, address + begin, piece.size, runtime.memcpyDeviceToHost, self.stream.ptr
                )
                self.stream.synchronize()
                piece[...] = self.views[0][: piece.size]
