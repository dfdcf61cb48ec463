"""The file of a detector: its settings, and each model as it would be saved alone."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import checks
from minigen.anomalies.columns import COLUMNS
from minigen.anomalies.mixed import MixedColumns
from minigen.estimators.saving import content, tuples
from minigen.training import checkpoint
from minigen.training.checkpoint import Tensors, check_tensor

Restore = Callable[[dict[str, Any], Tensors], Any]


def save(detector: Any, path: str | os.PathLike[str]) -> None:
    """Write ``detector``, a fitted one."""
    detector._check_params()
    tensors, members = {}, []
    for i, model in enumerate(detector.models_):
        text, of_model = content(model)
        members.append(json.loads(text))
        tensors.update({f"member{i}.{name}": value for name, value in of_model.items()})
    if detector.scaling_ is not None:
        tensors["scaling"] = np.ascontiguousarray(detector.scaling_.tensor)
    names = getattr(detector, "feature_names_in_", None)
    settings = {
        "model": detector.kind,
        "params": detector.get_params(),
        "offset": detector.offset_,
        "item_shape": list(detector.item_shape_),
        "columns": None if names is None else list(names),
        "parts": None if detector.mixed_ is None else detector.mixed_.to_file(),
        "source": detector.source_,
        "members": members,
    }
    checkpoint.write(path, json.dumps(settings), tensors)


def restored(kind: type, settings: dict[str, Any], tensors: Tensors, restore: Restore) -> Any:
    """The detector that a file tells of; ``restore`` makes each of its models.

    Raises KeyError, TypeError or ValueError for what cannot be.
    """
    params = dict(settings["params"])
    if "latent_prior" not in params:  # a file from before there was a choice
        params["latent_prior"] = "mixture" if params.get("score_by") == "latent" else "normal"
    detector: Any = kind(**tuples(params))
    detector._check_params()
    shape = checks.widths("item_shape", settings["item_shape"])
    said = settings.get("parts")  # files written before there were tables have none
    detector.mixed_ = None if said is None else MixedColumns.from_file(said)
    width = numbers = columns = math.prod(shape)
    if detector.mixed_ is not None:
        width, numbers = sum(detector.mixed_.blocks), len(detector.mixed_.numbers)
        if (columns,) != shape or columns != len(detector.mixed_.parts):
            raise ValueError(f"parts must be {columns} columns")
    models = []
    for i, inner in enumerate(settings["members"]):
        prefix = f"member{i}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        models.append(restore(inner, own))
        if models[-1].kind != "vae" or models[-1].n_features_in_ != width:
            raise ValueError(f"member {i} must be a vae of {width} columns")
        if detector.latent_prior == "mixture" and models[-1].latent_prior_ is None:
            raise ValueError(f"member {i} must have a mixture")
    if not models:
        raise ValueError("members must not be empty")
    detector.scaling_ = None
    known = tensors.get("scaling", tensors.get("quantiles"))  # as older files call it
    if known is not None:
        check_tensor({"scaling": known}, "scaling", (len(known), numbers), np.float64)
        detector.scaling_ = COLUMNS[detector.columns].restored(known)
    elif detector.columns == "quantile":
        raise KeyError("scaling is missing")
    if settings["columns"] is not None:
        if len(settings["columns"]) != columns or not all(isinstance(name, str) for name in settings["columns"]):
            raise ValueError(f"columns must be {columns} names")
        detector.feature_names_in_ = np.array(settings["columns"], dtype=object)
    detector.source_ = settings.get("source")
    detector.offset_ = checks.number("offset", settings["offset"], -math.inf)
    detector.models_, detector.item_shape_, detector.n_features_in_ = models, shape, columns
    return detector
