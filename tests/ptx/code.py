"""The text of a kernel in PTX: parameters, registers, instructions, and their operands as functions of the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ptx.machine import Blocks

TYPES: dict[str, Any] = {
    "pred": np.bool_,
    "b8": np.uint8,
    "u8": np.uint8,
    "s8": np.int8,
    "b16": np.uint16,
    "u16": np.uint16,
    "s16": np.int16,
    "b32": np.uint32,
    "u32": np.uint32,
    "s32": np.int32,
    "f32": np.float32,
    "b64": np.uint64,
    "u64": np.uint64,
    "s64": np.int64,
    "f64": np.float64,
}
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
WIDER = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}

Value = Any
"""A register's bits or a typed view of them, ``[lanes]``, or without dimensions where all threads have the same."""
Step = Callable[["Blocks"], None]
SPECIAL = ("%tid.x", "%ctaid.x", "%ctaid.y", "%ntid.x", "%nctaid.x", "%nctaid.y", "%laneid")
"""Registers of 32 bits that are given."""

OPERATIONS: dict[str, Callable[[Instruction, Code], Step]] = {}
"""By an instruction's first word: what makes of an instruction the function that runs it."""


def operation(*names: str) -> Callable[[Any], Any]:
    """Enter a function into :data:`OPERATIONS`."""

    def register(builder: Any) -> Any:
        for name in names:
            OPERATIONS[name] = builder
        return builder

    return register


@dataclass(frozen=True)
class Instruction:
    """``@guard name.modifiers operands``; a vector operand is a list. ``line`` is the source's, as ``file.py:12``."""

    text: str
    line: str
    guard: str | None
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """The type of the operation: the last modifier that is one."""
        return next(m for m in reversed(self.modifiers) if m in TYPES)


class Code:
    """One kernel: ``parameters`` (name, type), ``registers`` (type by name without its number), ``instructions``.

    ``shared`` has the addresses of its variables in shared memory, which take ``static`` bytes.
    """

    def __init__(self, text: str) -> None:
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
        head, _, rest = text.partition(".entry")[2].partition("{")
        self.parameters = [(m[2], m[1]) for m in re.finditer(r"\.param \.(\w+)[^,)]*?(\w+)\s*[,)\n]", head)]
        self.registers: dict[str, Any] = {}
        self.shared: dict[str, int] = {name: 0 for name in re.findall(r"\.extern \.shared [^;]*?(\w+)\[\]", text)}
        self.static = 0
        for alignment, name, size in re.findall(r"\n\s*\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", text):
            self.static += -self.static % int(alignment)
            self.shared[name] = self.static
            self.static += int(size)
        self.labels: dict[str, int] = {}
        self.instructions: list[Instruction] = []
        self._files = dict(re.findall(r'\.file\s+(\d+)\s+"[^"]*?([^/"]+)"', text))
        self._line = ""
        for statement in self._statements(rest):
            self._add(statement)
        self.steps = [OPERATIONS[i.name](i, self) for i in self.instructions]
        self.guards = [None if i.guard is None else self.guard(i.guard) for i in self.instructions]

    @staticmethod
    def _statements(body: str) -> list[str]:
        lines = [line for line in body.splitlines() if not re.match(r"\s*(\.file|\$L__(tmp|func)\w*:)", line)]
        lines = [f";{line};" if line.lstrip().startswith(".loc") else line for line in lines]
        return "\n".join(lines).partition("\t.section")[0].split(";")

    def _add(self, statement: str) -> None:
        statement = statement.strip()
        while found := re.match(r"[{}]\s*|(\$\w+):\s*", statement):  # a block's braces, a label
            if found[1]:
                self.labels[found[1]] = len(self.instructions)
            statement = statement[found.end() :]
        if not statement or statement.startswith(".pragma"):
            return
        if statement.startswith(".loc"):
            file, line = statement.split()[1:3]
            self._line = f"{self._files.get(file, file)}:{line}"
            return
        if statement.startswith(".reg"):
            kind, names = statement.removeprefix(".reg").strip().split(maxsplit=1)
            for name in names.split(","):
                self.registers[name.strip().partition("<")[0]] = TYPES[kind.lstrip(".")]
            return
        found = re.match(r"(?:@(\S+)\s+)?([\w.:]+)\s*(.*)", statement, re.DOTALL)
        if found is None:
            raise NotImplementedError(f"PTX statement {statement}")
        guard, word, rest = found.groups()
        name, *modifiers = word.split(".")
        if name not in OPERATIONS:
            raise NotImplementedError(f"PTX instruction {statement}")
        operands = tuple(_operands(rest))
        self.instructions.append(Instruction(statement, self._line, guard, name, tuple(modifiers), operands))

    # Operands, as functions of the machine.

    def guard(self, text: str) -> Callable[[Blocks], Value]:
        """A predicate, or with ``!`` its contrary."""
        if text.startswith("!"):
            read = self.read(text[1:], "pred")
            return lambda m: ~read(m)
        return self.read(text, "pred")

    def register(self, name: str) -> Any:
        """The unsigned type of a register, or None if ``name`` is not one."""
        return self.registers.get(name, self.registers.get(name.rstrip("0123456789")))

    def read(self, text: str, kind: str) -> Callable[[Blocks], Value]:
        """A source operand's values as a type: of a register the low bits."""
        dtype = np.dtype(TYPES[kind])
        if (found := self.register(text)) is not None or text in SPECIAL:
            size = np.dtype(found or np.uint32).itemsize
            if size == dtype.itemsize:
                return lambda m: m.registers[text].view(dtype)
            narrow = UNSIGNED[dtype.itemsize]
            return lambda m: m.registers[text].astype(narrow).view(dtype)
        value = self._constant(text, dtype)
        return lambda m: value

    def _constant(self, text: str, dtype: np.dtype[Any]) -> Value:
        if text in self.shared:
            return dtype.type(self.shared[text])
        if re.match(r"0[fF][0-9a-fA-F]{8}$", text):
            return np.uint32(int(text[2:], 16)).view(np.float32)
        if re.match(r"0[dD][0-9a-fA-F]{16}$", text):
            return np.uint64(int(text[2:], 16)).view(np.float64)
        if dtype == np.bool_:
            return np.bool_(int(text))
        bits = int(text.rstrip("U"), 0) % 256**dtype.itemsize
        return UNSIGNED[dtype.itemsize](bits).view(dtype)

    def write(self, name: str, kind: str) -> Callable[[Blocks, Value], None]:
        """A destination: what is narrower than the register is extended as its type says."""
        if name == "_":
            return lambda m, value: None
        unsigned = np.dtype(self.register(name))

        def store(m: Blocks, value: Value) -> None:
            same = value.dtype.itemsize == unsigned.itemsize
            m.put(name, value.view(unsigned) if same else value.astype(unsigned))

        return store

    def address(self, text: str, kind: str = "u64") -> Callable[[Blocks], Value]:
        """``[register + offset]``."""
        base, _, offset = text.strip("[] ").replace("+ ", "+").partition("+")
        read, add = self.read(base.strip(), kind), TYPES[kind](int(offset or "0", 0))
        return lambda m: read(m) + add


def _operands(text: str) -> list[Any]:
    """Split at the commas outside of braces and brackets."""
    parts = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s{}\[\]|]+", text)
    return [[x.strip() for x in p.strip("{}").split(",")] if p.startswith("{") else p for p in parts]
