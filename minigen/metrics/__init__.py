"""How good samples are: distances between distributions, coverage, copies; each to be read beside real rows' figure.

>>> minigen.metrics.evaluate(model, train, held_out)
"""

from minigen.metrics.distances import Estimate, frechet_distance, kernel_distance
from minigen.metrics.evaluation import Evaluation, Figure, evaluate
from minigen.metrics.neighbours import (
    DensityCoverage,
    Memorisation,
    PrecisionRecall,
    density_coverage,
    memorisation,
    precision_recall,
)

__all__ = [
    "DensityCoverage",
    "Estimate",
    "Evaluation",
    "Figure",
    "Memorisation",
    "PrecisionRecall",
    "density_coverage",
    "evaluate",
    "frechet_distance",
    "kernel_distance",
    "memorisation",
    "precision_recall",
]
