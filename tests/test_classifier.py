"""The classifier whose features the metrics look at: its step, its training, its file."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen import metrics
from minigen.datasets.dataset import Dataset
from minigen.device import get_backend
from minigen.metrics import classifier
from minigen.models.hidden import dense_layers
from minigen.models.network import Network
from minigen.models.optimizer import OptimizerSettings
from minigen.training.run import TrainingRun


def labelled(rows, seed, split="train"):
    """Pictures of four kinds, and which kind each is of."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).integers(30, 226, (4, 16))
    labels = rng.integers(0, 4, rows)
    images = np.clip(centres[labels] + rng.normal(0, 10, (rows, 16)), 0, 255).astype(np.uint8)
    return Dataset(split, images.reshape(rows, 4, 4), labels.astype(np.uint8), tuple("abcd"), "here")


def test_a_step_goes_down_the_gradient_of_the_cross_entropy():
    """Of one linear layer: dW = X^T (softmax - one hot) / B."""
    ops, data = get_backend("numpy", "auto"), labelled(8, 1)
    network = Network(ops, "classifier", dense_layers((16, 4), "relu", "linear"))
    network.initialize(0, "auto", 0)
    before = {key.rpartition(".")[2]: value.astype(np.float64) for key, value in network.state().items()}
    settings = OptimizerSettings(optimizer="sgd", learning_rate=0.1, momentum=0.0)
    rows = data.images.reshape(8, 16)
    step = classifier.ClassifierStep(ops, network, rows, data.labels, batch_size=8, settings=settings, scale=1 / 255)
    run = TrainingRun(step)
    run.run(1)
    x, target = rows / 255, np.eye(4)[data.labels]
    logits = x @ before["W"] + before["b"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    after = {key.rpartition(".")[2]: value for key, value in network.state().items()}
    np.testing.assert_allclose(after["W"], before["W"] - 0.1 * x.T @ (p - target) / 8, atol=1e-6)
    np.testing.assert_allclose(after["b"], before["b"] - 0.1 * (p - target).mean(axis=0), atol=1e-6)
    loss = -np.log((p * target).sum(axis=1)).mean()
    np.testing.assert_allclose(run.recent_losses(1), [[loss]], rtol=1e-5)


def test_training_learns_and_repeats_itself(monkeypatch):
    monkeypatch.setattr(classifier, "WIDTHS", (24, 6))
    data, test = labelled(400, 1), labelled(100, 2)
    made = [
        metrics.train_classifier(data.images, data.labels, (test.images, test.labels), epochs=20, device="numpy")
        for _ in range(2)
    ]
    assert made[0].accuracy > 0.97
    features = made[0](test.images)
    assert features.shape == (100, 6) and features.dtype == np.float32 and features.min() >= 0
    np.testing.assert_array_equal(made[1](test.images), features)
    np.testing.assert_allclose(made[0](test.images.astype(np.float32) / 255), features, rtol=1e-5)
    assert (made[0].classes(test.images) == test.labels).mean() == made[0].accuracy


def test_digit_features_are_trained_once_and_kept(monkeypatch, tmp_path):
    loaded = []

    def load(split):
        loaded.append(split)
        return labelled(300, len(split), split)

    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(classifier, "WIDTHS", (8, 5))
    monkeypatch.setattr(classifier, "BATCH", 32)
    monkeypatch.setattr(classifier, "RATE", 1e-2)
    monkeypatch.setitem(classifier.NAMED, "mnist", load)
    first, second = (metrics.digit_features(device="numpy") for _ in range(2))
    assert loaded == ["train", "test"] and first.accuracy == second.accuracy > 0.5
    items = labelled(30, 9).images
    np.testing.assert_array_equal(first(items), second(items))
    model = minigen.GAN(hidden=4, latent_dim=2, epochs=1, device="numpy").fit(labelled(128, 5).images)
    found = metrics.evaluate(model, labelled(128, 5).images, items, features=first)
    assert (
        f"a classifier of mnist, right on {first.accuracy:.2%} of held-out" in str(found)
        and found["class coverage"].held_out > 0.5
    )
    expected = metrics.frechet_distance(first(model.sample(30, seed=0)), first(labelled(128, 5).images))
    assert found["frechet distance"].model == pytest.approx(expected)
    with pytest.raises(ValueError, match="name must be one of 'mnist', 'fashion-mnist'"):
        metrics.digit_features("cifar")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 9), np.float32), np.zeros(4, int), "images must be uint8, not float32"),
        (np.zeros((4, 9), np.uint8), np.zeros(3, int), "images must have one whole number from 0 on"),
        (np.zeros((4, 9), np.uint8), np.full(4, -1), "images must have one whole number from 0 on"),
        (np.zeros((4, 9), np.uint8), np.zeros(4), "images must have one whole number from 0 on"),
    ],
)
def test_bad_pictures_and_labels(images, labels, message):
    good = np.zeros((4, 9), np.uint8), np.zeros(4, int)
    with pytest.raises(ValueError, match=message):
        metrics.train_classifier(images, labels, good)


def test_features_of_items_of_another_size(monkeypatch):
    data = labelled(40, 1)
    monkeypatch.setattr(classifier, "WIDTHS", (4, 3))
    made = metrics.train_classifier(data.images, data.labels, (data.images, data.labels), epochs=1, device="numpy")
    with pytest.raises(ValueError, match="items must have 16 numbers each, not 9"):
        made(np.zeros((2, 3, 3), np.uint8))
