"""Where a stage of ``bench/gpu.sh`` leaves what it measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def save(result: dict[str, Any]) -> None:
    """Write ``result`` to ``$STAGE_RESULT``, or print it. Called after every part: a failure then costs little."""
    text = json.dumps(result, indent=1, default=float)
    target = os.environ.get("STAGE_RESULT")
    if target is None:
        print(text)
        return
    path = Path(target)
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    temporary.replace(path)
