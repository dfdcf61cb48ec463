"""minigen with three TF32 products for one of float32, CUDA's default: float32's accuracy on tensor cores."""

from bench.peers import minigen_steps


class Contender(minigen_steps.Contender):
    precision = "tf32x3"
