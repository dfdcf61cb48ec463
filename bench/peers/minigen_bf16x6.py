"""minigen with six bf16 products on AMX for one of float32: float32's accuracy, where the processor has AMX."""

from bench.peers import minigen_steps


class Contender(minigen_steps.Contender):
    precision = "bf16x6"
