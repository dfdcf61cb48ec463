"""Launches on a GPU: ``driver`` looks for one, ``device`` is one, with its ``memory``; ``build`` is the compilation of
one kernel, ``compiler`` finds or compiles those of a step, ``cache`` keeps them on disk."""
