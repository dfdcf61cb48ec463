"""The first instructions of every generated kernel from sm_90 on: programmatic dependent launch.

Launches A, B, C of a graph follow each other, and each reads what those before it wrote. Ordinarily the GPU starts to
set up B when A has ended. Here A's programs signal, as soon as they run, that B may be started, and B's programs wait
until A has ended: only the setting up overlaps. (CUDA programming guide, "Programmatic dependent launch"; PTX,
``griddepcontrol``.) Why every launch still finds memory as if each had waited for the one before to end:

- ``wait`` returns when the launch before has ended as a whole and what it wrote is visible. It comes before the first
  access to memory. So B reads nothing that A has yet to write, and overwrites nothing that A has yet to read.
- C waits for B alone. But B ends only when each of its programs has passed its own ``wait``, that is after A has ended,
  and visibility is handed on: what B's programs saw of A, C's see when B has ended. So each launch waits for all before
  it. This stands on *every* program of B waiting: it must not depend on what a program has to do, nor on its number.
- ``launch_dependents`` promises nothing about memory. It lets C's programs take what room B leaves on the
  multiprocessors, once all of B's have begun: so those that wait never keep out those that they wait for. Before
  ``wait`` it would be as correct, C's programs could then come while A still runs, and many launches could be there at
  once. After it there is one beside the one that runs, which takes less room from it.
- Everything else (copies, CuPy's and CUDA C++ kernels) gives no signal and is launched without the attribute: it
  begins when all before it has ended, and what follows begins when it has ended.
- In a launch without the attribute both instructions do nothing.

Before ``wait`` a program can do what needs no memory that a launch writes. That leaves arithmetic with its number: the
weights, and the counter that chooses the batch's rows, are written by the last launches of the step before.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

COMPILED: tl.constexpr = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def wait_for_launch_before():
    """Nothing in the interpreter, which runs one launch after the other."""
    if COMPILED:
        gdc_wait()
        gdc_launch_dependents()
