"""Triton kernels, one file an operation, beside the reference module of the same name.

Each kernel is a *job*: a device function whose first parameter is its own program number. A launch runs one job or
several side by side (:mod:`minigen.cuda.dispatch` writes the few lines that hand out the program numbers), so a job
never asks for ``tl.program_id`` itself, and no two programs of a launch may touch the same memory where one of them
writes. Layer widths are ``constexpr``, the number of rows ``B`` is not: a last, smaller batch runs the same cubin.
"""
