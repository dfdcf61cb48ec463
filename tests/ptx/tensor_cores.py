"""Instructions of the tensor cores: matrices of a warp's registers, to and from shared memory, and their products.

In all of them g = lane // 4 and t = lane % 4. Of a left factor ``[16, K]`` a thread has rows g and g + 8, of a right
one ``[K, 8]`` column g, in both those of K that begin at t; of a sum ``[16, 8]`` rows g and g + 8, columns 2 t and
2 t + 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptx.code import Code, Instruction, Step, Value, operation
from ptx.instructions import load_shared, store_shared
from ptx.machine import WARP, Blocks, Fault


@operation("ldmatrix", "stmatrix")
def matrix(i: Instruction, code: Code) -> Step:
    """Up to four 8 x 8 matrices of 16 bits: thread 8 j + r has the address of row r of matrix j, and holds two
    neighbours of row ``lane // 4`` of each (with ``.trans`` of its transpose)."""
    loads = i.name == "ldmatrix"
    registers, address = i.operands if loads else i.operands[::-1]
    where = code.address(address, "u32")
    count, across = len(registers), "trans" in i.modifiers
    values = [(code.write if loads else code.read)(text, "b32") for text in registers]

    def step(m: Blocks) -> None:
        m.whole(WARP, "warp")
        starts = np.broadcast_to(where(m), m.lanes).reshape(-1, WARP)
        for j in range(count):
            rows = starts[:, 8 * j : 8 * j + 8]
            if across:
                matrix_of_halves(m, rows, values[j], loads)
                continue
            at = np.take_along_axis(rows, (m.lane // 4).reshape(-1, WARP), 1).ravel() + 4 * (m.lane % 4)
            if loads:
                values[j](m, load_shared(m, at.astype(np.uint32), "b32", 1)[0])
            else:
                store_shared(m, at.astype(np.uint32), "b32", [values[j](m)])

    return step


def matrix_of_halves(m: Blocks, rows: Any, access: Any, loads: bool) -> None:
    """One transposed 8 x 8 matrix: a thread's two halves lie in two rows."""
    lane = m.lane.reshape(-1, WARP)
    places = [np.take_along_axis(rows, 2 * (lane % 4) + j, 1).ravel() + (2 * (lane // 4)).ravel() for j in (0, 1)]
    if loads:
        for at in places:  # for its checks: the words that hold the halves
            load_shared(m, (at & ~3).astype(np.uint32), "b32", 1)
        low, high = (load_shared(m, at.astype(np.uint32), "b16", 1)[0].astype(np.uint32) for at in places)
        access(m, low | (high << np.uint32(16)))
    else:
        bits = np.broadcast_to(access(m), m.lanes)
        for j, at in enumerate(places):
            store_shared(m, at.astype(np.uint32), "b16", [(bits >> np.uint32(16 * j)).astype(np.uint16)])


def factors(registers: Sequence[Value], kind: str, lanes: int) -> Any:
    """What the tensor cores read from 32-bit registers: ``[lanes, registers, 1 or 2]``, exact in float64."""
    bits = np.stack([np.broadcast_to(r, lanes) for r in registers], 1)
    if kind == "tf32":  # they do not look at the last 13 bits
        return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)[..., None]
    halves = np.stack([bits << np.uint32(16), bits & np.uint32(0xFFFF0000)], -1)
    return halves.view(np.float32).astype(np.float64)


def left_factor(a: Any) -> Any:
    """``[warps, 16, K]`` from four registers a thread: rows g and g + 8, columns t and t + K/2 (in pairs of bf16)."""
    pairs = a.shape[-1]
    grid = a.reshape(-1, 8, 4, 2, 2, pairs)  # warp, g, t, columns' half, rows' half, pair
    return grid.transpose(0, 4, 1, 3, 2, 5).reshape(-1, 16, 8 * pairs)


@operation("mma")
def mma(i: Instruction, code: Code) -> Step:
    """A warp's product, ``[16, 8] = [16, K] [K, 8] + [16, 8]``."""
    shape, kind = i.modifiers[2], i.modifiers[6]
    if (shape, kind) not in (("m16n8k8", "tf32"), ("m16n8k16", "bf16")):
        raise NotImplementedError(i.text)
    writes = [code.write(text, "f32") for text in i.operands[0]]
    a, b = ([code.read(text, "b32") for text in operand] for operand in i.operands[1:3])
    c = [code.read(text, "f32") for text in i.operands[3]]

    def step(m: Blocks) -> None:
        m.whole(WARP, "warp")
        left = left_factor(factors([read(m) for read in a], kind, m.lanes))
        right = factors([read(m) for read in b], kind, m.lanes)  # n = g, k = t and t + 4
        right = right.reshape(-1, 8, 4, 2, right.shape[-1]).transpose(0, 3, 2, 4, 1).reshape(len(left), -1, 8)
        product = np.matmul(left, right).reshape(-1, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(m.lanes, 4)
        for j, write in enumerate(writes):
            write(m, (product[:, j] + c[j](m)).astype(np.float32))

    return step


@operation("wgmma")
def wgmma(i: Instruction, code: Code) -> Step:
    """Hopper's product of four warps, ``[64, N] += [64, K] [K, N]``. The left factor may be in registers."""
    if i.modifiers[0] != "mma_async":
        return lambda m: None  # fences and waits: the products here are done at once
    shape, kind = next(x for x in i.modifiers if x.startswith("m64")), i.modifiers[-1]
    n = int(re.match(r"m64n(\d+)k", shape)[1])  # type: ignore[index]
    totals, a, b, scale, *signs = i.operands
    keep = code.guard(scale) if code.register(scale) is not None else (lambda m: np.bool_(int(scale)))
    if signs[:2] != ["1", "1"] or kind not in ("tf32", "bf16"):
        raise NotImplementedError(i.text)
    across = [text == "1" for text in signs[2:]] or [False]
    reads, writes = [code.read(t, "f32") for t in totals], [code.write(t, "f32") for t in totals]
    lefts = [code.read(t, "b32") for t in a] if isinstance(a, list) else code.read(a, "b64")
    right_at = code.read(b, "b64")

    def step(m: Blocks) -> None:
        m.whole(WARP, "warp")
        if isinstance(lefts, list):
            left = left_factor(factors([read(m) for read in lefts], kind, m.lanes))
        else:
            left = described(m, lefts(m), 64, kind, across[0]).reshape(-1, 16, 32 // (4 if kind == "tf32" else 2))
        right = np.repeat(described(m, right_at(m), n, kind, across[-1]), 4, axis=0)
        product = np.matmul(left, right.transpose(0, 2, 1)).reshape(-1, 2, 8, n // 8, 4, 2)
        product = product.transpose(0, 2, 4, 3, 1, 5).reshape(m.lanes, n // 2)
        for j, (read, write) in enumerate(zip(reads, writes, strict=True)):
            before = np.where(keep(m), read(m), np.float32(0))
            write(m, (product[:, j] + before).astype(np.float32))

    return step


def described(m: Blocks, descriptor: Value, rows: int, kind: str, across: bool) -> Any:
    """The matrix ``[warp groups, rows, K]`` that a descriptor of shared memory names: K is 32 bytes."""
    size = 4 if kind == "tf32" else 2
    d = np.broadcast_to(descriptor, m.lanes).reshape(-1, 4 * WARP)
    here = np.unique(m.active() // (4 * WARP))
    d = d[np.where(np.isin(np.arange(len(d)), here), np.arange(len(d)), here[0])]  # who is elsewhere does no harm
    if (d != d[:, :1]).any():
        raise Fault(f"threads name different matrices: {m.where()}")
    start, leading, stride = ((d[:, 0] >> np.uint64(shift)).astype(np.int64) % 2**14 * 16 for shift in (0, 16, 32))
    mode = (d[:, 0] >> np.uint64(62)).astype(np.int64)
    if (mode != mode[0]).any():
        raise NotImplementedError("several swizzles at once")
    width = {0: 16, 1: 128, 2: 64, 3: 32}[int(mode[0])]  # bytes of a row of eight
    row, k = np.arange(rows)[:, None], np.arange(32 // size)[None, :]
    inner, outer = (row, k) if across else (k, row)  # the direction whose neighbours lie side by side, the other
    columns, byte = inner * size // width, inner * size % width
    at = start[:, None, None] + columns * leading[:, None, None] + outer // 8 * stride[:, None, None]
    at = at + outer % 8 * width + byte
    if width > 16:
        at = at ^ ((at >> 7) & (width // 16 - 1)) << 4
    first = np.arange(0, m.lanes, 4 * WARP)[:, None, None]
    word = (m.local_block[first] * m.shared.stride + at) // 4
    for warp in range(4):  # each reads it, or a part
        m.shared.load(m, word[here], np.broadcast_to(first + warp * WARP, word.shape)[here])
    bits = m.shared.words[word]
    if kind == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    halves = np.where(at % 4 == 0, bits << np.uint32(16), bits & np.uint32(0xFFFF0000))
    return halves.view(np.float32).astype(np.float64)
