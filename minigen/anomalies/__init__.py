"""Which rows are unusual: :class:`minigen.AnomalyDetector`."""

from minigen.anomalies.detector import AnomalyDetector

__all__ = ["AnomalyDetector"]
