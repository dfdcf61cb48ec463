"""Operations as data: what a step is recorded as before it is fused, and what the fused kernels do.

The backend's operations and the fused ones share one form, so that a fusion is a rewriting of a list. :data:`EFFECTS`
says which buffers each reads and writes; everything the scheduler knows of dependencies follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minigen.backend import Array

UPDATED = "W W_m W_v b b_m b_v"

EFFECTS: dict[str, tuple[str, str]] = {
    # name: (reads, writes); buffers that a call leaves out are neither
    "dense_forward": ("x W b head_w head_b", "y scores"),
    "dense_forward_of_noise": ("step W b head_w head_b", "x y scores"),
    "dense_forward_of_batch": ("data step W b head_w head_b", "x y scores"),
    "dense_forward_reconstruction": ("h W b x", "doutput rows loss"),
    "dense_dgrad": ("dz h scores head_w W x", "dx"),
    "dense_wgrad": (f"x dz h scores head_w lr step {UPDATED}", f"dW db {UPDATED}"),
    "activation_forward": ("z", "y"),
    "activation_backward": ("dy y", "dz"),
    "gan_loss": ("logits", "dlogits loss"),
    "gan_head": (f"h scores lr step {UPDATED}", f"dW db loss {UPDATED}"),
    "vae_loss": ("output x", "doutput rows loss"),
    "latent_forward": ("heads eps", "z rows loss"),
    "latent_forward_of_noise": ("heads step", "eps z rows loss"),
    "latent_backward": ("dz heads eps", "dheads"),
    "latent_sample_and_decode": ("x W b step W_decoder b_decoder", "heads eps z rows loss y"),
    "latent_backward_through": ("dy W_decoder heads eps W x", "dheads dx"),
    "optimizer": ("p g m v lr step", "p m v"),
    "random_uniform": ("step", "out"),
    "random_normal": ("step", "out"),
    "batch_indices": ("step", "indices"),
    "batch_gather": ("data indices", "out"),
    "batch_take": ("data step", "x"),
    "copy": ("z", "y"),
    "advance": ("step losses", "step history"),
    "is_finite": ("x", "flags"),
}


@dataclass(frozen=True)
class Operation:
    """One call of the backend, or what a fused kernel does for several (``fuses`` names them)."""

    name: str
    buffers: Mapping[str, Array]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fuses: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        """A buffer or setting, None where the operation has none of the name."""
        return self.buffers.get(name, self.settings.get(name))

    def reads(self) -> list[Array]:
        return self._present(0)

    def writes(self) -> list[Array]:
        return self._present(1)

    def _present(self, kind: int) -> list[Array]:
        return [self.buffers[name] for name in EFFECTS[self.name][kind].split() if name in self.buffers]

    def with_(self, **settings: Any) -> Operation:
        """The same with other settings."""
        return replace(self, settings={**self.settings, **settings})


def operation(name: str, fuses: tuple[str, ...], buffers: Mapping[str, Array | None], **settings: Any) -> Operation:
    """An operation without the buffers that are None. Raises ValueError for one that :data:`EFFECTS` does not know."""
    known = " ".join(EFFECTS[name]).split()
    present = {key: buffer for key, buffer in buffers.items() if buffer is not None}
    for key in present:
        if key not in known:
            raise ValueError(f"{name} has no buffer {key!r}, only {', '.join(dict.fromkeys(known))}")
    return Operation(name, present, {"steps_ahead": 0, **settings}, fuses)
