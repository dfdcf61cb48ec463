"""How good samples are: distances between distributions, coverage, copies; each to be read beside real rows' figure.

>>> minigen.metrics.evaluate(model, train, held_out)
"""

from minigen.metrics.classifier import CLASSIFIED, Classifier, digit_features, train_classifier
from minigen.metrics.distances import Estimate, frechet_distance, kernel_distance
from minigen.metrics.evaluation import Evaluation, Figure, evaluate
from minigen.metrics.neighbours import (
    DensityCoverage,
    Memorisation,
    PrecisionRecall,
    class_coverage,
    copied,
    density_coverage,
    memorisation,
    precision_recall,
)

__all__ = [
    "CLASSIFIED",
    "Classifier",
    "DensityCoverage",
    "Estimate",
    "Evaluation",
    "Figure",
    "Memorisation",
    "PrecisionRecall",
    "class_coverage",
    "copied",
    "density_coverage",
    "digit_features",
    "evaluate",
    "frechet_distance",
    "kernel_distance",
    "memorisation",
    "precision_recall",
    "train_classifier",
]
