"""minigen: several GANs by `fit_many` on CUDA, each with the bits of its own `fit`."""

from bench.peers import many_minigen


class Contender(many_minigen.Contender):
    exact = True
