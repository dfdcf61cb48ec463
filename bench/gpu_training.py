"""The article's whole training through the public function: 1000 epochs of 468 steps, if they fit the time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.gpu_result import rehearsing, save

EPOCHS = (1, 2) if rehearsing() else (1, 20, 1000)  # the first compiles
PATIENCE = 25  # seconds that the last one may take, judged by the one before


def main() -> None:
    import minigen

    rows = np.random.default_rng(0).integers(0, 256, (64, 20) if rehearsing() else (60_000, 784), np.uint8)
    results: dict[str, Any] = {"gan": [], "vae": []}
    for model, train in (("gan", minigen.train_gan), ("vae", minigen.train_vae)):
        pace = 0.0
        for epochs in EPOCHS:
            if pace * epochs > PATIENCE:
                results[model].append({"epochs": epochs, "skipped": f"would take {pace * epochs:.0f} s"})
                print(f"{model}: {epochs} epochs would take {pace * epochs:.0f} s", flush=True)
                save(results)
                break
            save(results)
            begin = time.perf_counter()
            trained = train(rows, epochs=epochs, batch_size=min(128, len(rows)), device="cuda", progress=False)
            seconds = time.perf_counter() - begin
            pace = seconds / epochs
            in_steps = float(np.sum(trained.history_.seconds))
            results[model].append({"epochs": epochs, "seconds": seconds, "seconds_in_steps": in_steps})
            print(f"{model}: {epochs} epochs in {seconds:.2f} s, {in_steps:.2f} s of them in steps", flush=True)
            save(results)


if __name__ == "__main__":
    main()
