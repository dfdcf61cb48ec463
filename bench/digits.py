"""Digits and clothes: how good samples of a GAN are after a number of epochs, and what the training costs.

    MINIGEN_DATA=... python -m bench.digits                                # the preset, before and now; PyTorch-GAN's
    MINIGEN_DATA=... python -m bench.digits --epochs 3 --settings ema r1   # a short look at single settings
    MINIGEN_DATA=... python -m bench.digits --data fashion_mnist --seeds 0 1 2
    MINIGEN_DATA=... python -m bench.digits --settings VAE "VAE, mixture" --epochs 10     # N(0, I) and a mixture
    MINIGEN_DATA=... python -m bench.digits --settings quality --set learning_rate=3e-4   # a setting with a change

Each run trains on the 60,000 training pictures, draws 10,000 samples and measures them as `bench.sample_quality`
says; the real test set is measured beside them. CPU seconds are those of the training alone, of all its threads
together. Runs are added to `bench/results/digits-MACHINE.json`; one that is there already (data, setting, epochs,
seed) is measured again. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import minigen
from bench.environment import RESULTS, complete, machine, machine_name, provenance, slug, write_json
from bench.sample_quality import Classifier, Judge, cache_folder

SAMPLES = 10_000
BEFORE: dict[str, Any] = {
    "latent_dim": 64,
    "hidden": (256, 512, 1024),
    "hidden_discriminator": (512, 256),
    "batch_size": 64,
}
"""The preset ``quality`` as it was before R1 and averages: what the others differ from."""
SETTINGS: dict[str, dict[str, Any]] = {
    "before": BEFORE,
    "ema": BEFORE | {"ema": 0.999},
    "r1": BEFORE | {"ema": 0.999, "r1": 1.0},
}
VAES: dict[str, dict[str, Any]] = {"VAE": {}, "VAE, mixture": {"latent_prior": "mixture"}}
"""Settings of the VAE, which has 10 epochs by default."""
PEER = "PyTorch-GAN"
"""The dense GAN of https://github.com/eriklindernoren/PyTorch-GAN, by the same name in the tables."""


def load(name: str, rows: int | None) -> tuple[Any, Any]:
    """Training and test set; the first ``rows`` of each where that is given."""
    if name == "sample":
        whole = minigen.datasets.mnist_sample()
        cut = len(whole.images) * 4 // 5
        sets = [(whole.images[:cut], whole.labels[:cut]), (whole.images[cut:], whole.labels[cut:])]
    else:
        source = getattr(minigen.datasets, name)
        loaded = [source(split, download=False) for split in ("train", "test")]
        sets = [(found.images, found.labels) for found in loaded]
    return tuple((images[:rows], labels[:rows]) for images, labels in sets)  # type: ignore[return-value]


def train_minigen(family: Any, settings: dict[str, Any], images: np.ndarray, epochs: int, seed: int) -> Any:
    model = family(**settings | {"epochs": epochs, "seed": seed})
    complete(model.fit(images, progress=False))
    return lambda n: model.sample(n, seed=seed + 1000)


def train_peer(images: np.ndarray, epochs: int, seed: int, threads: int) -> Any:
    from bench import pytorch_gan

    return pytorch_gan.train(images, epochs=epochs, seed=seed, threads=threads)


def measure(
    setting: str, given: dict[str, Any], judge: Judge, images: np.ndarray, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One training and the figures of its samples."""
    cpu, wall = time.process_time(), time.perf_counter()
    if setting == PEER:
        sample = train_peer(images, options.epochs, seed, options.threads)
    else:
        minigen.set_num_threads(options.threads)
        sample = train_minigen(
            minigen.VAE if setting.startswith("VAE") else minigen.GAN, given, images, options.epochs, seed
        )
    cost = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
    run = {"data": options.data, "setting": setting, "settings": given, "epochs": options.epochs, "seed": seed}
    samples = sample(options.samples)
    if options.pictures:
        name = "-".join([options.data, slug(setting), f"{options.epochs}-epochs", f"seed-{seed}"])
        options.pictures.mkdir(parents=True, exist_ok=True)
        minigen.show(samples[:64]).save(options.pictures / f"{name}.png")
    return run | cost | judge(samples) | provenance()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.digits", description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["mnist", "fashion_mnist", "sample"], default="mnist")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--settings", nargs="+", default=["before", "quality", PEER], metavar="NAME")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="over each of the settings")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="save 64 samples of each run there")
    parser.add_argument("--rows", type=int, help="how many pictures to take, from the first on (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--classifier-epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / f"digits-{machine_name()}.json")
    options = parser.parse_args(arguments)
    known = [*SETTINGS, *VAES, "quality", PEER]
    if unknown := [name for name in options.settings if name not in known]:
        parser.error(f"no setting {unknown[0]!r}; known: {', '.join(known)}")
    pairs = [text.partition("=") for text in options.set]
    options.changes = {name: ast.literal_eval(value) for name, _, value in pairs}
    return options


def settings_of(name: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A setting's name, with its changes, and the arguments of the model."""
    if name == PEER:
        return name, {}
    given = minigen.GAN.presets["quality"] if name == "quality" else (SETTINGS | VAES)[name]
    given = {key: value for key, value in (given | changes).items() if key != "epochs"}
    return ", ".join([name, *(f"{key}={value}" for key, value in changes.items())]), given


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    (images, labels), (test_images, test_labels) = load(options.data, options.rows)
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"real": {}, "runs": []}
    result |= {"schema": 1, "kind": "digits", "machine": machine(), **provenance()}
    classifier = Classifier(images, labels, epochs=options.classifier_epochs, folder=cache_folder())
    judge = Judge(classifier, images, options.samples)
    accuracy = classifier.accuracy(test_images, test_labels)
    result["real"][options.data] = {"accuracy": accuracy} | judge(test_images)
    print(f"{options.data}: the classifier's test accuracy {accuracy:.4f};", result["real"][options.data], flush=True)
    for seed in options.seeds:
        for name in options.settings:
            setting, given = settings_of(name, options.changes)
            run = measure(setting, given, judge, images, options, seed)
            keys = ("data", "setting", "epochs", "seed")
            others = [old for old in result["runs"] if [old[k] for k in keys] != [run[k] for k in keys]]
            result["runs"] = [*others, run]
            write_json(options.out, result)
            shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in run.items() if k not in ("settings",)}
            print(shown, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
