"""The threads and the memory that PTX runs on, with what watches over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptx.code import TYPES, UNSIGNED, Code, Value

WARP = 32
TOGETHER = 4096  # threads that run at once: of several blocks


class Fault(RuntimeError):
    """What would be undefined, or an error, on a GPU."""


class Global:
    """The launch's buffers, and for each byte at which an access began the block that read, and that wrote, there.

    0 is nobody, -1 several blocks, which only readers may be; block p has the number p + 1.
    """

    def __init__(self, buffers: Sequence[np.ndarray]) -> None:
        distinct = {(array.ctypes.data, array.nbytes): array for array in buffers if array.nbytes}
        self.buffers = [
            (start, array.reshape(-1).view(np.uint8), np.zeros(size, np.int32), np.zeros(size, np.int32))
            for (start, size), array in distinct.items()
        ]

    def load(self, m: Blocks, where: Value, kind: str, count: int) -> list[Value]:
        """``count`` neighbours of a type at each active thread's address; 0 for the other threads."""
        found = [np.zeros(m.lanes, TYPES[kind]) for _ in range(count)]
        for lanes, place, view, readers, writers in self._pieces(m, where, kind, count):
            block = m.block[lanes] + 1
            for i, values in enumerate(found):
                offset = (place + i) * view.itemsize
                self._only_mine(m, writers[offset], block)
                before = readers[offset]
                readers[offset] = np.where((before == 0) | (before == block), block, -1)
                readers[offset[readers[offset] != block]] = -1  # several blocks at once
                values[lanes] = view[place + i]
        return found

    def store(self, m: Blocks, where: Value, kind: str, values: Sequence[Value]) -> None:
        """What :meth:`load` loads."""
        for lanes, place, view, readers, writers in self._pieces(m, where, kind, len(values)):
            block = m.block[lanes] + 1
            for i, value in enumerate(values):
                offset = (place + i) * view.itemsize
                self._only_mine(m, readers[offset], block)
                writers[offset] = np.where(writers[offset] == 0, block, writers[offset])
                self._only_mine(m, writers[offset], block)
                view[place + i] = np.broadcast_to(value, m.lanes)[lanes].astype(view.dtype)

    def _pieces(self, m: Blocks, where: Value, kind: str, count: int) -> Any:
        """For each buffer that is touched: lanes, first element of each, the buffer as a type, readers, writers."""
        dtype, lanes = np.dtype(TYPES[kind]), m.active()
        size = dtype.itemsize * count
        at = np.broadcast_to(where, m.lanes)[lanes].astype(np.int64)
        if not m.waited[lanes].all():
            raise Fault(f"touches memory before the launch before has ended: {m.where()}")
        if (at % size).any():
            raise Fault(f"an address is no multiple of {size}: {m.where()}")
        for start, data, readers, writers in self.buffers:
            mine = (at >= start) & (at + size <= start + len(data))
            if mine.any():
                view = data[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)
                yield lanes[mine], (at[mine] - start) // dtype.itemsize, view, readers, writers
                lanes, at = lanes[~mine], at[~mine]
        if len(at):
            raise Fault(f"{len(at)} addresses lie outside of the launch's buffers: {m.where()}")

    @staticmethod
    def _only_mine(m: Blocks, owners: Any, block: Any) -> None:
        if ((owners != 0) & (owners != block)).any():
            raise Fault(f"two blocks touch a word that one of them writes: {m.where()}")


class Shared:
    """Shared memory of several blocks, in words; who touched each since its block's last barrier, one bit a warp."""

    def __init__(self, blocks: int, size: int) -> None:
        self.size, self.stride = size, -(-size // 1024) * 1024
        self.words = np.full(blocks * self.stride // 4, 0xFFFFFFFF, np.uint32)
        self.writers, self.readers = np.zeros_like(self.words), np.zeros_like(self.words)
        self.pending = np.zeros(len(self.words), bool)  # a copy is on its way

    def barrier(self, blocks: Any) -> None:
        """Forget what these blocks' warps have touched."""
        for marks in (self.writers, self.readers):
            marks.reshape(len(blocks), -1)[blocks] = 0

    def place(self, m: Blocks, where: Value, lanes: Any, size: int) -> Any:
        """Addresses of ``lanes`` as offsets in the memory of all blocks, in bytes; ``size`` bytes are touched there."""
        at = np.broadcast_to(where, m.lanes)[lanes].astype(np.int64)
        if (at % size).any():
            raise Fault(f"a shared address is no multiple of {size}: {m.where()}")
        if (at + size > self.size).any():
            raise Fault(f"a shared address is beyond the block's {self.size} bytes: {m.where()}")
        return m.local_block[lanes] * self.stride + at

    def load(self, m: Blocks, word: Any, lanes: Any) -> Any:
        """The bits of a word for each of ``lanes``."""
        warp = m.warp[lanes]
        self.arrived(m, word)
        writers = self.writers[word]
        if ((writers != 0) & (writers & warp == 0)).any():
            raise Fault(f"reads shared memory that another warp wrote, with no barrier between: {m.where()}")
        np.bitwise_or.at(self.readers, word, warp)
        return self.words[word]

    def store(self, m: Blocks, word: Any, lanes: Any, bits: Any, arriving: bool = False) -> None:
        """Write a word for each of ``lanes``; ``arriving``: a copy's, now that it is waited for."""
        warp = m.warp[lanes]
        if not arriving:
            self.arrived(m, word)
        if (self.readers[word] & ~warp).any():
            raise Fault(f"writes shared memory that another warp read, with no barrier between: {m.where()}")
        self.words[word] = bits
        np.bitwise_or.at(self.writers, word, warp)
        several = (self.writers[word] & ~warp) != 0
        if (several & (self.words[word] != bits)).any():
            raise Fault(f"two warps write different values to shared memory: {m.where()}")

    def arrived(self, m: Blocks, word: Any) -> None:
        """Raise Fault if a copy to one of these words has not been waited for."""
        if self.pending[word].any():
            raise Fault(f"touches shared memory while a copy to it is on its way: {m.where()}")


class Registers(dict[str, Value]):
    """Bits by name; ones before they are written, which compilers do read where it does not matter."""

    def __init__(self, code: Code, given: dict[str, Value]) -> None:
        super().__init__(given)
        self.code = code

    def __missing__(self, name: str) -> Value:
        dtype = self.code.register(name)
        return np.True_ if dtype is np.bool_ else dtype(np.iinfo(dtype).max)


class Blocks:
    """Some blocks of a launch, run together: ``lanes`` threads, of which those act that ``mask`` has (None: all)."""

    def __init__(
        self,
        code: Code,
        blocks: np.ndarray,
        grid: tuple[int, ...],
        parameters: dict[str, Value],
        memory: Global,
        threads: int,
        shared: int,
    ) -> None:
        self.code, self.parameters, self.memory, self.threads = code, parameters, memory, threads
        self.lanes = len(blocks) * threads
        thread = np.tile(np.arange(threads, dtype=np.uint32), len(blocks))
        self.lane = thread.astype(np.int64) % WARP
        self.local_block = np.repeat(np.arange(len(blocks)), threads)
        self.block = np.repeat(blocks.astype(np.int32), threads)
        self.warp = np.uint32(1) << (thread // WARP)  # a bit for each warp of a block
        special = {
            "%tid.x": thread,
            "%ctaid.x": (self.block % grid[0]).view(np.uint32),
            "%ctaid.y": (self.block // grid[0]).view(np.uint32),
            "%laneid": thread % WARP,
            "%ntid.x": np.uint32(threads),
            "%nctaid.x": np.uint32(grid[0]),
            "%nctaid.y": np.uint32(grid[1]),
        }
        self.registers = Registers(code, special)
        self.shared = Shared(len(blocks), code.static + shared)
        self.copies: list[tuple[Any, Any, Any, Any]] = []  # lanes, words, bits, group: on their way
        self.committed = np.zeros(self.lanes, np.int64)  # groups of copies, by lane
        waits = any(i.name == "griddepcontrol" for i in code.instructions)
        self.waited = np.full(self.lanes, not waits)  # whether each lane knows that the launch before has ended
        self.mask: Any = None
        self.at = 0  # the next instruction; -1: all threads have returned
        self.waiting: dict[int, Any] = {}  # lanes that are further on, by their next instruction
        self.executed = np.zeros((len(code.instructions), len(blocks)), np.int64)  # by how many warps in all

    def where(self) -> str:
        """The instruction that runs, for messages."""
        return self.code.instructions[self.at].text

    def active(self) -> Any:
        """Numbers of the lanes that act."""
        return np.arange(self.lanes) if self.mask is None else np.flatnonzero(self.mask)

    def acting(self) -> Any:
        """Whether each lane acts."""
        return np.ones(self.lanes, bool) if self.mask is None else self.mask

    def whole(self, threads: int, what: str) -> Any:
        """Which groups of so many threads act. Raises Fault if some of a group do and some do not."""
        here = self.acting().reshape(-1, threads)
        if (here.any(1) & ~here.all(1)).any():
            raise Fault(f"not all threads of a {what} are here: {self.where()}")
        return here.all(1)

    def wait_for_launch_before(self) -> None:
        """Before a kernel of programmatic dependent launch may touch memory."""
        self.waited[self.whole(self.threads, "block").repeat(self.threads)] = True

    def warps_here(self) -> Any:
        """How many warps of each block are at the instruction that runs."""
        if self.mask is None:
            return self.threads // WARP
        return self.mask.reshape(-1, self.threads // WARP, WARP).any(2).sum(1)

    def put(self, name: str, bits: Value) -> None:
        """Write a register, of the lanes that act."""
        self.registers[name] = bits if self.mask is None else np.where(self.mask, bits, self.registers[name])

    def run(self) -> None:
        """Until every thread has returned. Threads that part meet again: those furthest behind go on first."""
        with np.errstate(all="ignore"):
            while self.at >= 0:
                self._step()

    def _step(self) -> None:
        code, at, everyone = self.code, self.at, self.mask
        self.executed[at] += self.warps_here()
        if code.guards[at] is not None:
            chosen = code.guards[at](self)
            if code.instructions[at].name == "bra":
                return self.part(code.labels[code.instructions[at].operands[0]], chosen)
            if everyone is not None or not np.all(chosen):
                self.mask = np.broadcast_to(chosen, self.lanes) & self.acting()
        if self.mask is None or self.mask.any():
            code.steps[at](self)
        if self.at == at:  # no branch
            if at + 1 in self.waiting:
                both = everyone | self.waiting.pop(at + 1)
                everyone = None if both.all() else both
            self.at, self.mask = at + 1, everyone
        return None

    def part(self, target: int, chosen: Value) -> None:
        """A branch to ``target`` for the lanes ``chosen``."""
        active = self.acting()
        for place, lanes in ((target, active & chosen), (self.at + 1, active & ~chosen)):
            if lanes.any():
                self.waiting[place] = self.waiting.get(place, False) | lanes
        self.resume()

    def resume(self) -> None:
        """Take up those who are furthest behind."""
        self.at = min(self.waiting, default=-1)
        if self.waiting:
            lanes = self.waiting.pop(self.at)
            self.mask = None if lanes.all() else lanes


def run(
    code: Code,
    order: np.ndarray,
    arguments: Sequence[Any],
    threads: int,
    shared: int,
    grid: tuple[int, ...] | None = None,
    others: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Run the blocks of a launch in ``order``, several at a time: all of its ``grid``, or some of them.

    Block ``p + m * grid[0]`` is the one with program_id(0) = p and program_id(1) = m; no ``grid`` is one of a single
    dimension. ``others`` are arrays that may be touched beside the arguments.

    ``arguments`` go with the kernel's first parameters: arrays (their addresses), ints and floats. The others, pointers
    to scratch memory that Triton appends, are null. ``threads`` are a block's, and ``shared`` the bytes of shared
    memory that it asks for. Returns ``[instructions, blocks]``: how many times a warp of the block ran the instruction.
    """
    memory = Global([argument for argument in (*arguments, *others) if isinstance(argument, np.ndarray)])
    rest = [0] * (len(code.parameters) - len(arguments))
    pairs = zip(code.parameters, [*arguments, *rest], strict=True)
    parameters = {name: _bits(argument, kind) for (name, kind), argument in pairs}
    together = max(1, TOGETHER // threads)
    grid = grid or (len(order), 1)
    executed = np.zeros((len(code.instructions), grid[0] * grid[1]), np.int64)
    for first in range(0, len(order), together):
        blocks = Blocks(code, order[first : first + together], grid, parameters, memory, threads, shared)
        blocks.run()
        executed[:, order[first : first + together]] = blocks.executed
    return executed


def _bits(argument: Any, kind: str) -> Value:
    """An argument as a kernel gets it."""
    if isinstance(argument, float):
        return np.float32(argument).view(np.uint32)
    size = np.dtype(TYPES[kind]).itemsize
    number = argument.ctypes.data if isinstance(argument, np.ndarray) else argument
    return UNSIGNED[size](number % 256**size)
