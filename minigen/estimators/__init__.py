"""The models as estimators: settings, ``fit``, and what to do with the result."""
