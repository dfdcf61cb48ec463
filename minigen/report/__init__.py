"""A page on a training run: samples, curves, metrics, nearest real rows, latents, settings, in one HTML file.

>>> minigen.report.write("report.html", model, digits)
"""

from minigen.report.page import NAME, write

__all__ = ["NAME", "write"]
