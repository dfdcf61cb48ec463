"""PTX, the assembler of NVIDIA's GPUs, run by NumPy: what a compiler has made of a kernel, tested without a GPU.

Triton's interpreter runs a kernel's source. This runs the instructions that the compiler made of it: shared memory,
copies in the background, barriers, shuffles and the tensor cores' operations, each for all threads of many blocks at
once. It knows what the code of minigen's kernels contains, by the PTX ISA's rules, and raises NotImplementedError for
the rest.

A GPU passes over most faults in silence. Here each raises :class:`Fault`: an address outside of the launch's buffers
or off its alignment; a read of shared memory that no barrier separates from another warp's write, or the other way
round; a read of a copy that has not been waited for; a barrier that not all threads of a block reach; two blocks of a
launch that touch a word which one of them writes. Registers and shared memory hold ones before they are written.

Not modelled: the warps of a block are in lockstep, ``wgmma`` is done at once, float64 takes the place of the tensor
cores' own sums, and ``div.full``, ``ex2.approx`` and their like round as NumPy does.

``code`` reads the text, ``machine`` has threads and memory, ``instructions`` and ``tensor_cores`` what each instruction
does, ``executor`` the CUDA backend on top of it.
"""

from ptx import instructions, tensor_cores
from ptx.code import Code
from ptx.machine import Fault, run

__all__ = ["Code", "Fault", "instructions", "run", "tensor_cores"]
