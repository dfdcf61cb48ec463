"""minigen's NumPy reference, which is written to be read."""

from bench.peers import minigen_steps


class Contender(minigen_steps.Contender):
    computes_on = "numpy"
