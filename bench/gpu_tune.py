"""What ``minigen tune`` would choose on this GPU, class by class and saved as it goes; nothing is changed by it."""

from __future__ import annotations

import os
import time
from typing import Any

from bench.gpu_result import rehearsing, save
from bench.gpu_step import PRECISION


def main() -> None:
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.plan import tiles
    from minigen.cuda.tools import tune

    seconds = max(30.0, float(os.environ.get("STAGE_SECONDS") or 200) - 20)  # the last class may take longer
    backend = CudaBackend(precision=PRECISION)
    tiles.forget_measured(backend.executor.architecture)
    shapes = tune.SHAPES.items()  # the default models' first
    result: dict[str, Any] = {
        "architecture": backend.executor.architecture,
        "precision": PRECISION,
        "rehearsal": rehearsing(),
        "entries": [],
    }
    end = time.monotonic() + seconds
    for number, ((operation, kind), shape) in enumerate(shapes):
        share = max(1.0, (end - time.monotonic()) / (len(shapes) - number))
        entry = tune.best(backend, operation, kind, shape, share)
        result["entries"].append(entry)
        save(result)
        took = f"{1e6 * entry['seconds']:.2f} us (the table's {1e6 * entry['table_seconds']:.2f})"
        print(f"{operation} {kind}: {took}, best of {entry['measured']}: {entry['tile']}", flush=True)


if __name__ == "__main__":
    main()
