"""What launches and barriers cost on this GPU: runs ``gpu_costs.cu``, built beforehand where that fits, else here."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.gpu_prepare import COSTS, build_costs
from bench.gpu_result import PREPARED, read, save


def source_digest() -> str:
    """Of the program's text."""
    return hashlib.sha256(COSTS.read_bytes()).hexdigest()


def program(folder: Path) -> tuple[list[str], str]:
    """The command and where it comes from. Raises where it must be built here and cannot be."""
    built, target = PREPARED / "gpu_costs", folder / "gpu_costs"
    made = (read(PREPARED / "manifest.json") or {}).get("parts", {}).get("costs", {})
    if built.exists() and made.get("source") == source_digest():
        shutil.copy(built, target)
        target.chmod(0o755)  # which a copy of the tree may have lost
        return [str(target)], "built beforehand"
    why = "the source has changed since" if built.exists() else "none came along"
    print(f"building {COSTS.name}: {why}", flush=True)
    build_costs(target, 90)
    return [str(target)], f"built here: {why}"


def parse(line: str) -> dict[str, Any] | None:
    """One cost; None for a line that is none."""
    try:
        cost = json.loads(line)
    except ValueError:
        return None
    return cost if isinstance(cost, dict) and "name" in cost else None


def text(cost: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in cost.items() if key not in ("name", "samples"))
    return f"{cost['name']}, {facts}" + (f": {1e6 * median(cost):.4g} us" if cost["samples"] else "")


def median(cost: dict[str, Any]) -> float:
    return statistics.median(cost["samples"])


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="minigen-costs-") as folder:
        command, origin = program(Path(folder))
        result: dict[str, Any] = {"program": origin, "costs": []}
        save(result)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
            assert process.stdout is not None
            for line in process.stdout:
                cost = parse(line)
                if cost is None:
                    print(line, end="", flush=True)
                    continue
                result["costs"].append(cost)
                save(result)
                print(text(cost), flush=True)
    return process.returncode


if __name__ == "__main__":
    raise SystemExit(main())
