"""Same seed, same bits: digests of small models, trained before a reorganisation of the code, and a file from then.

A change that is meant to alter a training's numbers makes new ones for ``same_bits.json``:
``python tests/test_same_bits.py numpy``, or ``cpu`` with MINIGEN_ISA set, prints them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import minigen
from models import blobs

HERE = Path(__file__).parent
STORED = json.loads((HERE / "same_bits.json").read_text()) if (HERE / "same_bits.json").exists() else {}
OLD_FILE = HERE / "gan-of-format-1.safetensors"

QUIET = {"progress": False}
SMALL = {"batch_size": 24, "epochs": 2, "seed": 5}


def floats() -> np.ndarray:
    return np.random.default_rng(3).normal(2.0, 3.0, (70, 7)).astype(np.float32)


TRAININGS: dict[str, Any] = {
    "gan": lambda **at: minigen.GAN(hidden=(40,), latent_dim=9, **SMALL, **at).fit(blobs(), **QUIET),
    "gan, deep, sgd, minimax, sigmoid": lambda **at: minigen.GAN(
        hidden=(21, 33), hidden_discriminator=(17,), latent_dim=5, activation="relu", output="sigmoid", loss="minimax",
        optimizer="sgd", momentum=0.6, weight_decay=0.01, learning_rate=0.01, init="he_normal", **SMALL, **at,
    ).fit(blobs(), **QUIET),
    "gan, adamw, standardised": lambda **at: minigen.GAN(
        hidden=(19,), activation="tanh", optimizer="adamw", weight_decay=0.02, **SMALL, **at
    ).fit(floats(), **QUIET),
    "vae": lambda **at: minigen.VAE(hidden=(40,), latent_dim=6, **SMALL, **at).fit(blobs(), **QUIET),
    "vae, deep, adamw, gaussian": lambda **at: minigen.VAE(
        hidden=(23, 18), latent_dim=3, activation="softplus", likelihood="gaussian", variance=0.4, beta=1.5,
        optimizer="adamw", weight_decay=0.02, init="auto", **SMALL, **at,
    ).fit(floats(), **QUIET),
    "vae, no hidden layer, sgd, zeros and ones": lambda **at: minigen.VAE(
        hidden=(), latent_dim=4, optimizer="sgd", learning_rate=0.01, **SMALL, **at
    ).fit(blobs() > 100, **QUIET),
}  # fmt: skip


def digest_of(tensors: dict[str, np.ndarray]) -> str:
    """Of names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        sha.update(np.ascontiguousarray(tensors[name]).tobytes())
    return sha.hexdigest()[:24]


def digests(device: str, folder: Path) -> dict[str, str]:
    """Of the file that each training gives (weights, moments, counters, losses), and of samples of the model."""
    found = {}
    for name, train in TRAININGS.items():
        model = train(device=device, precision="ieee")
        model.save(folder / "model")
        found[name] = digest_of(load_file(folder / "model") | {"samples": np.asarray(model.sample(9, seed=4))})
    return found


def numpys_own_bits() -> str:
    """NumPy's products and functions have other bits on other processors and in other versions: which are these?"""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(48, 40)).astype(np.float32), rng.normal(size=(40, 37)).astype(np.float32)
    x = rng.normal(size=1000).astype(np.float32)
    functions = (np.exp, np.tanh, np.sin, np.cos, np.log1p, np.log, np.sqrt)
    values = {f.__name__: f(np.abs(x) if f in (np.log, np.log1p, np.sqrt) else x) for f in functions}
    products = {f"product {n}": a[:n, :n] @ b[:n, : n + 3] for n in (1, 3, 9, 24, 34)} | {"turned": a.T @ a[:, :33]}
    return digest_of(values | products | {"sum": x[:999].reshape(3, 333).sum(axis=1)})


def test_the_reference_trains_to_the_bits_it_always_did(tmp_path):
    own = numpys_own_bits()
    if own not in STORED["numpy"]:
        pytest.skip(f"NumPy computes with other bits here than where the digests were made ({own})")
    assert digests("numpy", tmp_path) == STORED["numpy"][own]


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="digests are of x86-64 alone")
@pytest.mark.parametrize("isa", sorted(STORED.get("cpu", {})))
def test_the_cpu_trains_to_the_bits_it_always_did(isa):
    pytest.importorskip("minigen.cpu", reason="no compiled module", exc_type=ImportError)
    found = subprocess.run(
        [sys.executable, __file__, "cpu"], env=os.environ | {"MINIGEN_ISA": isa}, capture_output=True, text=True
    )
    if "MINIGEN_ISA" in found.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == STORED["cpu"][isa]


def test_a_file_of_before_still_loads(tmp_path):
    old = load_file(OLD_FILE)
    model = minigen.load(OLD_FILE, device="numpy")
    assert model.history_.epochs == 2 and model.get_params()["hidden"] == (3,)
    np.testing.assert_array_equal(model.generator_.state()["generator.0.W"], old["generator.0.W"])
    model.save(tmp_path / "again")
    assert digest_of(load_file(tmp_path / "again")) == digest_of(old)
    assert model.partial_fit(blobs(24, 4), epochs=1, progress=False).history_.epochs == 3


def main(device: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found: Any = digests(device, Path(folder))
    print(json.dumps(found if device == "cpu" else {numpys_own_bits(): found}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
