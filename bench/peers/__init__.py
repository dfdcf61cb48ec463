"""The contenders: one file each, found by name. Importing this module imports none of them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.spec import VARIANTS


@dataclass(frozen=True)
class Peer:
    """Where a contender lives and what it needs, known without importing its framework."""

    module: str
    needs: str
    """Import name of the package that it is about."""
    environment: str = ""
    """Name of its requirements file and virtual environment; empty: this interpreter's own."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    models: tuple[str, ...] = ("gan", "vae")
    label: str = ""
    """What the tables call it."""
    start: float = 1.0
    """Roughly how many seconds it starts and compiles, for the estimate before a run."""


PEERS = {
    "minigen": Peer("bench.peers.minigen_steps", "minigen", models=("gan", "vae", *VARIANTS), label="minigen"),
    "minigen-tf32x3": Peer("bench.peers.minigen_tf32x3", "minigen", devices=("cuda",), label="minigen, tf32x3"),
    "minigen-bf16x6": Peer("bench.peers.minigen_bf16x6", "minigen", devices=("cpu",), label="minigen, bf16x6 on AMX"),
    "minigen-numpy": Peer("bench.peers.minigen_numpy", "minigen", devices=("cpu",), label="minigen, NumPy reference"),
    "numpy": Peer("bench.peers.numpy_plain", "numpy", devices=("cpu",), label="NumPy written plainly"),
    "torch": Peer("bench.peers.torch_eager", "torch", "torch", label="PyTorch, eager", start=3),
    "torch-compile": Peer("bench.peers.torch_compile", "torch", "torch", label="PyTorch, torch.compile", start=20),
    "torch-graph": Peer(
        "bench.peers.torch_graph", "torch", "torch", devices=("cuda",), label="PyTorch, CUDA graph", start=4
    ),
    "jax": Peer("bench.peers.jax_jit", "jax", "jax", label="JAX, jit", start=4),
    "jax-scan": Peer("bench.peers.jax_scan", "jax", "jax", label="JAX, jit + scan", start=4),
    "tensorflow": Peer("bench.peers.tf_function", "tensorflow", "tensorflow", label="TensorFlow, tf.function", start=6),
    "tensorflow-xla": Peer("bench.peers.tf_xla", "tensorflow", "tensorflow", label="TensorFlow, XLA loop", start=6),
    "keras-article": Peer(
        "bench.peers.keras_article",
        "tensorflow",
        "tensorflow",
        models=("gan",),
        label="the article's Keras script",
        start=6,
    ),
    "torch-variants": Peer(
        "bench.peers.torch_variants", "torch", "torch", models=VARIANTS, label="PyTorch, eager", start=3
    ),
    "torch-variants-compile": Peer(
        "bench.peers.torch_variants_compile",
        "torch",
        "torch",
        models=("gan-batch-norm", "gan-conditional"),
        label="PyTorch, torch.compile",
        start=30,
    ),
    "jax-variants": Peer("bench.peers.jax_variants", "jax", "jax", models=VARIANTS, label="JAX, jit + scan", start=6),
}


def environments_folder() -> Path:
    """The folder of the peers' virtual environments: ``$MINIGEN_BENCH_ENVS``, else in the user's cache."""
    chosen = os.environ.get("MINIGEN_BENCH_ENVS")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minigen-bench"


def interpreter(peer: Peer, chosen: dict[str, str]) -> str:
    """The Python that runs ``peer``: the ``chosen`` one, else its own virtual environment's, else this one."""
    if peer.environment in chosen:
        return chosen[peer.environment]
    python = environments_folder() / peer.environment / "bin" / "python"
    if peer.environment and python.exists():
        return str(python)
    return sys.executable


def is_installed(python: str, package: str) -> bool:
    """Whether ``python`` finds ``package``, asked without importing it."""
    if python == sys.executable:
        return importlib.util.find_spec(package) is not None
    question = f"import importlib.util, json; print(json.dumps(importlib.util.find_spec({package!r}) is not None))"
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True)
    return bool(json.loads(answer.stdout))


def contender_class(module: str) -> Any:
    """The class ``Contender`` of a peer's module."""
    return importlib.import_module(module).Contender
