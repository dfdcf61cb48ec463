"""A contender that cannot train."""

from bench.peers import numpy_plain


class Contender(numpy_plain.Contender):
    def run(self, steps: int) -> None:
        raise MemoryError("no room for a batch")
