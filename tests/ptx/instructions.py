"""What PTX's instructions do, but for those of the tensor cores. Floating point is IEEE's, as NumPy rounds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptx.code import OPERATIONS, TYPES, UNSIGNED, Code, Instruction, Step, Value, operation
from ptx.machine import WARP, Blocks, Fault

WIDER = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}

# --- arithmetic ---------------------------------------------------------------------------------------


def elementwise(name: str, compute: Callable[..., Value], kinds: str = "") -> None:
    """An operation on registers; ``kinds`` gives its operands' types where they are not the instruction's."""

    def build(i: Instruction, code: Code) -> Step:
        if "f32x2" in i.modifiers:
            return in_pairs(i, code, compute)
        given = [k if k != "." else i.kind for k in kinds.split()] or [i.kind] * len(i.operands)
        write = code.write(i.operands[0], given[0])
        reads = [code.read(text, kind) for text, kind in zip(i.operands[1:], given[1:], strict=True)]
        dtype = TYPES[given[0]]

        def step(m: Blocks) -> None:
            write(m, np.asarray(compute(*(read(m) for read in reads)), dtype))

        return step

    OPERATIONS[name] = build


def in_pairs(i: Instruction, code: Code, compute: Callable[..., Value]) -> Step:
    """Two float32 in a register of 64 bits."""
    write, *reads = code.write(i.operands[0], "b64"), *(code.read(text, "b64") for text in i.operands[1:])

    def step(m: Blocks) -> None:
        pairs = (np.ascontiguousarray(np.broadcast_to(read(m), m.lanes)).view(np.float32) for read in reads)
        write(m, compute(*pairs).view(np.uint64))

    return step


def divide(a: Value, b: Value) -> Value:
    """Integers towards zero."""
    if a.dtype.kind != "i":
        return a / b if a.dtype.kind == "f" else a // b
    quotient = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def fma(a: Value, b: Value, c: Value) -> Value:
    return (a.astype(np.float64) * b + c).astype(a.dtype)


elementwise("add", np.add)
elementwise("sub", np.subtract)
elementwise("xor", np.bitwise_xor)
elementwise("and", np.bitwise_and)
elementwise("or", np.bitwise_or)
elementwise("not", np.invert)
elementwise("neg", np.negative)
elementwise("abs", np.abs)
elementwise("copysign", lambda sign, of: np.copysign(of, sign))  # the sign is the first operand's
elementwise("min", np.fmin)
elementwise("max", np.fmax)
elementwise("div", divide)
elementwise("rem", np.fmod)
elementwise("fma", fma)
elementwise("sqrt", np.sqrt)
elementwise("rsqrt", lambda a: 1 / np.sqrt(a))
elementwise("rcp", np.reciprocal)
elementwise("ex2", np.exp2)
elementwise("lg2", np.log2)
elementwise("sin", np.sin)
elementwise("cos", np.cos)
elementwise("shl", lambda a, n: np.where(n >= 8 * a.dtype.itemsize, 0, a << n.astype(a.dtype)), ". . u32")
elementwise("selp", lambda a, b, p: np.where(p, a, b), ". . . pred")


@operation("shr")
def shr(i: Instruction, code: Code) -> Step:
    kind = i.kind.replace("b", "u")
    write, a, n = code.write(i.operands[0], kind), code.read(i.operands[1], kind), code.read(i.operands[2], "u32")
    most = 8 * np.dtype(TYPES[kind]).itemsize - 1

    def step(m: Blocks) -> None:
        value, by = a(m), n(m)
        shifted = value >> np.minimum(by, most).astype(value.dtype)
        write(m, shifted if kind[0] == "s" else np.where(by > most, 0, shifted).astype(value.dtype))

    return step


@operation("mul", "mad")
def mul(i: Instruction, code: Code) -> Step:
    if "f32x2" in i.modifiers:
        return in_pairs(i, code, np.multiply)
    kind = i.kind
    out = WIDER[kind] if "wide" in i.modifiers else kind
    write = code.write(i.operands[0], out)
    a, b = (code.read(text, kind) for text in i.operands[1:3])
    c = code.read(i.operands[3], out) if i.name == "mad" else None
    high = "hi" in i.modifiers
    big = WIDER.get(kind)

    def step(m: Blocks) -> None:
        if kind[0] == "f":
            product = a(m) * b(m)
        elif high:
            wide, bits = TYPES[big], 8 * np.dtype(TYPES[kind]).itemsize  # type: ignore[index]
            product = ((a(m).astype(wide) * b(m).astype(wide)) >> wide(bits)).astype(TYPES[kind])
        else:
            product = a(m).astype(TYPES[out]) * b(m).astype(TYPES[out])
        write(m, np.asarray(product if c is None else product + c(m), TYPES[out]))

    return step


COMPARISONS: dict[str, Any] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}


@operation("setp")
def setp(i: Instruction, code: Code) -> Step:
    """``setp.comparison[.and|.or|.xor].type p, a, b[, q]``; an unordered comparison (ltu ...) is true of a NaN."""
    name, floating = i.modifiers[0], i.kind[0] == "f"
    unordered = floating and name not in COMPARISONS
    compare = COMPARISONS[name[:-1] if unordered else name]
    write = code.write(i.operands[0], "pred")
    a, b = (code.read(text, i.kind) for text in i.operands[1:3])
    also = code.guard(i.operands[3]) if len(i.operands) > 3 else lambda m: np.True_
    join: Any = {"or": np.logical_or, "xor": np.logical_xor}.get(i.modifiers[1], np.logical_and)

    def step(m: Blocks) -> None:
        x, y = a(m), b(m)
        truth = compare(x, y)
        if floating and name == "ne":  # NumPy's is true of a NaN
            truth = truth & ~COMPARISONS["nan"](x, y)
        if unordered:
            truth = truth | COMPARISONS["nan"](x, y)
        write(m, np.asarray(join(truth, also(m)), bool))

    return step


@operation("mov")
def mov(i: Instruction, code: Code) -> Step:
    """Also packs and unpacks: ``mov.b64 r, {low, high}``."""
    target, source = i.operands
    size = np.dtype(TYPES[i.kind]).itemsize
    if isinstance(source, list):
        part = f"b{8 * size // len(source)}"
        reads, write = [code.read(text, part) for text in source], code.write(target, i.kind)

        def pack(m: Blocks) -> None:
            parts = np.broadcast_arrays(*(read(m) for read in reads))
            write(m, np.ascontiguousarray(np.stack(parts, -1)).view(UNSIGNED[size])[..., 0])

        return pack
    read = code.read(source, i.kind)
    if isinstance(target, list):
        part = f"b{8 * size // len(target)}"
        writes = [code.write(text, part) for text in target]

        def unpack(m: Blocks) -> None:
            bits = np.atleast_1d(read(m))
            for j, write in enumerate(writes):
                write(m, np.ascontiguousarray(bits).view(TYPES[part])[j :: len(writes)])

        return unpack
    write = code.write(target, i.kind)
    return lambda m: write(m, read(m))


ROUNDINGS = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


@operation("cvt")
def cvt(i: Instruction, code: Code) -> Step:
    kinds = [k for k in i.modifiers if k in TYPES or k in ("tf32", "bf16", "bf16x2")]
    to, how = kinds[0], i.modifiers[0]
    reads = [code.read(text, kinds[-1]) for text in i.operands[1:]]
    write = code.write(i.operands[0], {"tf32": "b32", "bf16x2": "b32", "bf16": "b16"}.get(to, to))

    def step(m: Blocks) -> None:
        value = reads[0](m)
        if to == "tf32":
            write(m, to_tf32(value))
        elif to == "bf16x2":  # the first operand is the upper half
            write(m, (to_bf16(value).astype(np.uint32) << np.uint32(16)) | to_bf16(reads[1](m)))
        elif to == "bf16":
            write(m, to_bf16(value))
        else:
            write(m, converted(value, TYPES[to], how))

    return step


def converted(value: Value, dtype: Any, how: str) -> Value:
    """To another type: floats to integers as ``how`` says, within its limits, NaN as 0."""
    if value.dtype.kind == "f" and how in ROUNDINGS:
        value = ROUNDINGS[how](value)
        if np.dtype(dtype).kind in "iu":
            limits = np.iinfo(dtype)
            value = np.clip(np.nan_to_num(value.astype(np.float64)), limits.min, limits.max)
    return np.asarray(value).astype(dtype)


def to_tf32(x: Value) -> Value:
    """The nearest number with 11 significant bits, ties away from zero, as its bits."""
    bits = np.asarray(x).view(np.uint32)
    return np.where(np.isfinite(x), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits)


def to_bf16(x: Value) -> Value:
    """The nearest number with 8 significant bits, ties to even, as its bits."""
    bits = np.asarray(x).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)


@operation("bfe")
def bfe(i: Instruction, code: Code) -> Step:
    write, a = code.write(i.operands[0], i.kind), code.read(i.operands[1], i.kind)
    first, count = (code.read(text, "u32") for text in i.operands[2:])

    def step(m: Blocks) -> None:
        value, start, length = a(m).astype(np.int64), first(m).astype(np.int64), count(m).astype(np.int64)
        field = (value >> start) & ((np.int64(1) << length) - 1)
        if i.kind[0] == "s":
            field = field - ((field >> np.maximum(length - 1, 0) & 1) << length)
        write(m, np.asarray(field).astype(TYPES[i.kind]))

    return step


@operation("prmt")
def prmt(i: Instruction, code: Code) -> Step:
    write = code.write(i.operands[0], "b32")
    a, b, selector = (code.read(text, "b32") for text in i.operands[1:])

    def step(m: Blocks) -> None:
        both, chosen = a(m).astype(np.uint64) | (b(m).astype(np.uint64) << np.uint64(32)), selector(m)
        out = np.uint64(0)
        for j in range(4):
            nibble = (chosen >> np.uint32(4 * j)) & np.uint32(15)
            byte = (both >> ((nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)
            byte = np.where(nibble & np.uint32(8), np.where(byte >= 128, np.uint64(255), np.uint64(0)), byte)
            out = out | (byte << np.uint64(8 * j))
        write(m, np.asarray(out).astype(np.uint32))

    return step


# --- memory -------------------------------------------------------------------------------------------


@operation("ld")
def ld(i: Instruction, code: Code) -> Step:
    kind = i.kind
    targets = i.operands[0] if isinstance(i.operands[0], list) else [i.operands[0]]
    writes = [code.write(text, kind) for text in targets]
    if "param" in i.modifiers:
        name, unsigned = i.operands[1].strip("[]"), UNSIGNED[np.dtype(TYPES[kind]).itemsize]
        return lambda m: writes[0](m, m.parameters[name].astype(unsigned).view(TYPES[kind]))
    space = space_of(i)
    where = code.address(i.operands[1], "u32" if space == "shared" else "u64")

    def step(m: Blocks) -> None:
        load = m.memory.load if space == "global" else load_shared
        for write, value in zip(writes, load(m, where(m), kind, len(writes)), strict=True):
            write(m, value)

    return step


@operation("st")
def st(i: Instruction, code: Code) -> Step:
    sources = i.operands[1] if isinstance(i.operands[1], list) else [i.operands[1]]
    reads = [code.read(text, i.kind) for text in sources]
    space = space_of(i)
    where = code.address(i.operands[0], "u32" if space == "shared" else "u64")

    def step(m: Blocks) -> None:
        store = m.memory.store if space == "global" else store_shared
        store(m, where(m), i.kind, [read(m) for read in reads])

    return step


def space_of(i: Instruction) -> str:
    """Which memory an access goes to."""
    for space in ("global", "shared"):
        if any(word.partition("::")[0] == space for word in i.modifiers):
            return space
    raise NotImplementedError(i.text)


def load_shared(m: Blocks, where: Value, kind: str, count: int) -> list[Value]:
    """As :meth:`Global.load`."""
    dtype, lanes = np.dtype(TYPES[kind]), m.active()
    first = m.shared.place(m, where, lanes, dtype.itemsize * count)
    found = []
    for j in range(count):
        value = np.zeros(m.lanes, dtype)
        at = first + j * dtype.itemsize
        if dtype.itemsize == 4:
            value[lanes] = m.shared.load(m, at // 4, lanes).view(dtype)
        else:  # parts of a word: several warps may have some
            value[lanes] = m.shared.words.view(dtype)[at // dtype.itemsize]
        found.append(value)
    return found


def store_shared(m: Blocks, where: Value, kind: str, values: Sequence[Value]) -> None:
    """As :meth:`Shared.store`, of any type."""
    dtype, lanes = np.dtype(TYPES[kind]), m.active()
    first = m.shared.place(m, where, lanes, dtype.itemsize * len(values))
    for j, value in enumerate(values):
        at, mine = first + j * dtype.itemsize, np.broadcast_to(value, m.lanes)[lanes]
        if dtype.itemsize == 4:
            m.shared.store(m, at // 4, lanes, mine.view(np.uint32))
        else:
            m.shared.words.view(dtype)[at // dtype.itemsize] = mine


@operation("cp")
def cp(i: Instruction, code: Code) -> Step:
    """``cp.async``: begun now, there when it has been waited for. What its fourth operand leaves out becomes 0."""
    if "commit_group" in i.modifiers:
        return commit_copies
    if "wait_group" in i.modifiers:
        return lambda m: wait_for_copies(m, int(i.operands[0]))
    if i.modifiers[0] != "async" or i.modifiers[2:] != ("shared", "global"):
        raise NotImplementedError(i.text)
    to, origin, size = code.address(i.operands[0], "u32"), code.address(i.operands[1]), int(i.operands[2], 0)
    taken = code.read(i.operands[3], "u32") if len(i.operands) > 3 else lambda m: np.uint32(size)

    def step(m: Blocks) -> None:
        lanes, mask = m.active(), m.mask
        wanted = np.broadcast_to(taken(m), m.lanes)
        if not np.isin(wanted[lanes], (0, size)).all():
            raise NotImplementedError(f"part of a copy: {i.text}")
        m.mask = m.acting() & (wanted != 0)
        values = m.memory.load(m, origin(m), "b32", size // 4)
        if (np.broadcast_to(origin(m), m.lanes)[m.active()] % size).any():
            raise Fault(f"a copy's source is no multiple of {size}: {i.text}")
        m.mask = mask
        first = m.shared.place(m, to(m), lanes, size) // 4
        for j, value in enumerate(values):
            m.shared.store(m, first + j, lanes, np.uint32(0xFFFFFFFF))
            m.shared.pending[first + j] = True
            m.copies.append((lanes, first + j, value[lanes], m.committed[lanes]))

    return step


def commit_copies(m: Blocks) -> None:
    """Each thread's copies since its last group are its next one."""
    m.committed[m.active()] += 1


def wait_for_copies(m: Blocks, left: int) -> None:
    """Until at most ``left`` of a thread's groups are on their way; what arrives is written by the thread, now."""
    acts, rest = m.acting(), []
    for lanes, words, values, group in m.copies:
        done = acts[lanes] & (group < m.committed[lanes] - left)
        if done.any():
            m.shared.store(m, words[done], lanes[done], values[done], arriving=True)
            m.shared.pending[words[done]] = False
        if not done.all():
            rest.append((lanes[~done], words[~done], values[~done], group[~done]))
    m.copies = rest


# --- control ------------------------------------------------------------------------------------------


@operation("bra")
def bra(i: Instruction, code: Code) -> Step:
    return lambda m: m.part(code.labels[i.operands[0]], np.True_)


@operation("ret", "exit")
def ret(i: Instruction, code: Code) -> Step:
    return lambda m: m.resume()


@operation("bar")
def bar(i: Instruction, code: Code) -> Step:
    """``bar.sync 0``, of a block, or ``bar.warp.sync``."""
    if "warp" in i.modifiers:
        return lambda m: None
    if i.operands != ("0",):
        raise NotImplementedError(i.text)
    return lambda m: m.shared.barrier(m.whole(m.threads, "block"))


@operation("griddepcontrol")
def griddepcontrol(i: Instruction, code: Code) -> Step:
    """``wait`` for the launch before, which has run here; ``launch_dependents`` lets the next one come."""
    return Blocks.wait_for_launch_before if i.modifiers == ("wait",) else lambda m: None


@operation("fence")
def fence(i: Instruction, code: Code) -> Step:
    """What was written before is seen by the tensor cores' reads after: here everything is."""
    return lambda m: None


# --- across the threads of a warp -----------------------------------------------------------------------


@operation("shfl")
def shfl(i: Instruction, code: Code) -> Step:
    """Another thread's ``a``: of the one whose number differs in the bits of ``b``, or is ``b``."""
    mode = i.modifiers[1]
    write, a, b = code.write(i.operands[0], "b32"), code.read(i.operands[1], "b32"), code.read(i.operands[2], "u32")
    if mode not in ("bfly", "idx") or i.operands[3:] != ("31", "-1"):
        raise NotImplementedError(i.text)

    def step(m: Blocks) -> None:
        m.whole(WARP, "warp")
        by = b(m).astype(np.int64) % WARP
        other = m.lane ^ by if mode == "bfly" else by
        write(m, np.broadcast_to(a(m), m.lanes)[np.arange(m.lanes) - m.lane + other])

    return step


@operation("redux")
def redux(i: Instruction, code: Code) -> Step:
    """A warp's maximum (minimum, sum), for each of its threads."""
    write, a = code.write(i.operands[0], i.kind), code.read(i.operands[1], i.kind)
    reduce = {"max": np.max, "min": np.min, "add": np.sum, "or": np.bitwise_or.reduce}[i.modifiers[1]]

    def step(m: Blocks) -> None:
        m.whole(WARP, "warp")
        rows = np.broadcast_to(a(m), m.lanes).reshape(-1, WARP)
        write(m, np.repeat(np.asarray(reduce(rows, axis=1), rows.dtype), WARP))

    return step
