"""Triton kernels, one file an operation, beside the reference module of the same name.

A kernel is a device function whose first parameter is its own program number. A launch runs one job or several side by
side, each a kernel with its arguments (:mod:`minigen.cuda.plan.codegen` writes the few lines that hand out the program
numbers), so a kernel never asks for ``tl.program_id`` itself, and no two programs of a launch may touch the same memory
where one of them writes. Layer widths are ``constexpr``, the number of rows ``B`` is not: a last, smaller batch runs
the same cubin.

At the end of each file stand the functions that turn its operations into jobs (:mod:`minigen.cuda.plan.lowering`).
Arguments that belong together are named tuples. ``elementary`` and ``matmul`` have no operation of their own.

Importing any module here imports Triton, so they are imported when the first operation is lowered.
"""
