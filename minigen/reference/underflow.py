"""Numbers too small for the dtype."""

from __future__ import annotations

import numpy as np

small_is_zero = np.errstate(under="ignore")
"""Decorates a function whose results may round to 0, such as ``e^-200`` in float32: right here, and no error although
the caller may have set ``np.seterr(under="raise")``."""
