"""Operations as data: what a step is recorded as before it is fused, and what the fused kernels do.

The backend's operations and the fused ones share one form, so that a fusion is a rewriting of a list. :data:`EFFECTS`
says which buffers each reads and writes; everything the scheduler knows of dependencies follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Array = Any
"""A buffer in the memory of a backend: ``numpy.ndarray`` on the host, ``cupy.ndarray`` on CUDA."""

UPDATED = "W W_m W_v b b_m b_v"

FUSED: dict[str, tuple[str, str]] = {
    # name: (reads, writes); what fusion makes, and what it adds to an operation
    "dense_forward": ("head_w head_b", "scores"),
    "dense_forward_of_noise": ("step W b head_w head_b", "x y scores"),
    "dense_forward_of_batch": ("data step W b head_w head_b", "x y scores"),
    "dense_forward_reconstruction": ("h W b x", "doutput rows loss"),
    "dense_dgrad": ("h scores head_w", ""),
    "dense_wgrad": (f"h scores head_w lr step {UPDATED}", UPDATED),
    "gan_head": (f"x head_w head_b h scores lr step {UPDATED}", f"logits dlogits dx dW db loss {UPDATED}"),
    "latent_forward_of_noise": ("heads step", "eps z rows loss"),
    "latent_sample_and_decode": ("x W b step W_decoder b_decoder", "heads eps z rows loss y"),
    "latent_backward_through": ("dy W_decoder heads eps weights W x", "dheads dx"),
    "batch_take": ("data step", "x"),
    "copy": ("z", "y"),
    "is_finite": ("x", "flags"),
}

EFFECTS: dict[str, tuple[list[str], list[str]]] = {
    name: (reads.split(), writes.split()) for name, (reads, writes) in FUSED.items()
}
"""The names of the buffers that an operation reads, and of those that it writes; a call may leave some out."""


def declare(name: str, reads: list[str], writes: list[str]) -> None:
    """Enter the buffers of an operation of :mod:`minigen.ops` into :data:`EFFECTS`."""
    before = EFFECTS.get(name, ([], []))
    EFFECTS[name] = (list(dict.fromkeys([*reads, *before[0]])), list(dict.fromkeys([*writes, *before[1]])))


@dataclass(frozen=True)
class Operation:
    """One call of the backend, or what a fused kernel does for several (``fuses`` names them).

    ``sizes`` are those that the operation's row in :mod:`minigen.ops` has letters for. ``flops`` and ``bytes`` are what
    it needs at least: every input read once, every output written once.
    """

    name: str
    buffers: Mapping[str, Array]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fuses: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    flops: float = 0
    bytes: float = 0

    def __getitem__(self, name: str) -> Any:
        """A buffer or setting, None where the operation has none of the name."""
        return self.buffers.get(name, self.settings.get(name))

    def reads(self) -> list[Array]:
        return self._present(0)

    def writes(self) -> list[Array]:
        return self._present(1)

    def _present(self, kind: int) -> list[Array]:
        reads, writes = EFFECTS[self.name]
        names = writes if kind else [*reads, *writes] if self.settings.get("accumulate") else reads
        return [self.buffers[name] for name in names if name in self.buffers]

    def with_(self, **settings: Any) -> Operation:
        """The same with other settings."""
        return replace(self, settings={**self.settings, **settings})


def operation(name: str, fuses: tuple[str, ...], buffers: Mapping[str, Array | None], **settings: Any) -> Operation:
    """An operation without the buffers that are None. Raises ValueError for one that :data:`EFFECTS` does not know."""
    reads, writes = EFFECTS[name]
    present = {key: buffer for key, buffer in buffers.items() if buffer is not None}
    for key in present:
        if key not in reads and key not in writes:
            raise ValueError(f"{name} has no buffer {key!r}, only {', '.join(dict.fromkeys([*reads, *writes]))}")
    return Operation(name, present, {"steps_ahead": 0, **settings}, fuses)
