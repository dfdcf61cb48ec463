"""minigen's NumPy floor: the reference, which is written to be read."""

from bench.peers import minigen_steps


class Contender(minigen_steps.Contender):
    floor = "numpy"
