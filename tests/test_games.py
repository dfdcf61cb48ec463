"""What a GAN's step does beyond its two losses: several updates of the discriminator, clipped weights, smoothed labels,
noise on what the discriminator sees. Whole steps against PyTorch's autograd in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigen
from helpers import InOut, Out, assert_close, normals, relative_error
from minigen.backend import DENSE_ACTIVATIONS as ACTIVATIONS
from minigen.backend import GAN_LOSSES
from minigen.reference import batch, optimizer, random
from minigen.reference_backend import NumpyBackend
from models import blobs, gan_training, run

COMBINATIONS: dict[str, dict[str, Any]] = {
    "critic": {"n_critic": 3, "loss": "wasserstein", "weight_clip": 0.05},
    "noise": {"instance_noise": 0.7, "noise_steps": 9, "label_smoothing": 0.2},
    "all": {"n_critic": 2, "instance_noise": 0.3, "gradient_penalty": 4.0, "label_smoothing": 0.1, "loss": "hinge"},
    "r1": {"n_critic": 2, "instance_noise": 0.3, "r1": 4.0, "loss": "least_squares", "weight_clip": 0.3},
}


@pytest.mark.parametrize("limit", [0.3, 1e-30])
def test_clip(arena, rng, limit):
    for n in (1, 17, 3000):
        p = normals(rng, n)
        p[n // 2] = np.nan
        (clipped,) = arena.call("clip", InOut(p), limit)
        assert_close(arena.backend, np.nan_to_num(clipped), np.nan_to_num(optimizer.clip(p, limit)))
        assert np.flatnonzero(np.isnan(clipped)).tolist() == [n // 2]


def test_noise_that_decays(arena, rng):
    """By hand: all of it at step 0, a half of it in the middle, nothing of it at the end and behind."""
    x, noise = normals(rng, 5, 7), normals(rng, 5, 7)
    for step, share in ((0, 1), (5, 0.5), (9, 0.1), (10, 0), (11, 0), (2**40, 0)):
        arguments = (x, noise, np.array([step], np.uint64), Out(5, 7), 0.3)
        (decayed,) = arena.call("add_noise", *arguments, 10)
        assert_close(arena.backend, decayed, x + 0.3 * share * noise)
        (steady,) = arena.call("add_noise", *arguments, 0)
        assert_close(arena.backend, steady, x + 0.3 * noise)


class Spelled:
    """One step by autograd, from the state of ``training``, with SGD: the weights after it and its losses."""

    def __init__(self, oracle: Any, training: Any, settings: dict[str, Any], rate: float) -> None:
        self.oracle, self.step, self.settings, self.rate = oracle, training.step, settings, rate
        self.done = training.done
        self.G, self.D = (oracle.TorchNet(net) for net in training.step.networks)
        self.k = settings.get("n_critic", 1)

    def draw(self, rows: int, columns: int, stream: int, update: int) -> Any:
        return self.oracle.double(random.normal((rows, columns), self.step.seed, stream, update, np.float64))

    def real(self, update: int, data: np.ndarray) -> Any:
        B, n = self.step.batch_size, len(data)
        order = self.step.seed, random.ORDER
        chosen = batch.indices(B, n, *order, update, B, n // (self.k * B) * self.k)
        return self.oracle.double(data[chosen] / 127.5 - 1)

    def seen(self, x: Any, noise: Any) -> Any:
        std, steps = self.settings.get("instance_noise", 0.0), self.settings.get("noise_steps", 0)
        return x + std * (max(0.0, 1 - self.done / steps) if steps else 1.0) * noise

    def descend(self, net: Any, loss: Any) -> None:
        for key, gradient in net.gradients(loss).items():
            value = net.parameters[key].detach() - self.rate * self.oracle.double(gradient)
            net.parameters[key] = value.requires_grad_()

    def run(self, data: np.ndarray) -> list[float]:
        oracle, step, B, D_inputs = self.oracle, self.step, self.step.batch_size, data.shape[1]
        loss = self.settings.get("loss", "non_saturating")
        for j in range(self.k):
            update, batches = self.done * self.k + j, 2 if j == self.k - 1 else 1
            z = self.draw(batches * B, step.generator.inputs, random.NOISE, update)
            noise = self.draw((1 + batches) * B, D_inputs, random.INSTANCE_NOISE, update)
            real = self.seen(self.real(update, data), noise[:B])
            fake = self.seen(self.G(z[:B]).detach(), noise[B : 2 * B])
            of_D = oracle.discriminator_loss(self.D, real, fake, loss, self.settings.get("label_smoothing", 0.0))
            penalty = oracle.double(0.0)
            if r1 := self.settings.get("r1"):
                penalty = oracle.r1(self.D, real, r1)
            if weight := self.settings.get("gradient_penalty"):
                u = random.uniform((B,), step.seed, random.INTERPOLATION, update, np.float64)
                u = oracle.double(u)[:, None]
                penalty = oracle.two_sided(self.D, u * real + (1 - u) * fake, weight)
            self.descend(self.D, of_D + penalty)
            if limit := self.settings.get("weight_clip"):
                clipped = {key: p.detach().clamp(-limit, limit) for key, p in self.D.parameters.items()}
                self.D.parameters = {key: p.requires_grad_() for key, p in clipped.items()}
        of_G = oracle.generator_loss(self.D, self.seen(self.G(z[B:]), noise[2 * B :]), loss)
        self.descend(self.G, of_G)
        return [of_D.item(), of_G.item(), penalty.item()][: len(step.loss_names)]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_steps_agree_with_autograd(backend, name, rng):
    """Captured, fused where the backend does that, over the end of an epoch: losses and weights after each step."""
    oracle = pytest.importorskip("torch_gan")
    settings, B = COMBINATIONS[name], int(rng.integers(2, 9))
    data = blobs(int(rng.integers(3, 5)) * 3 * B, int(rng.integers(1, 20)))
    hidden = tuple(int(n) for n in rng.integers(1, 20, rng.integers(0, 3)))
    shape = {"hidden": hidden, "activation": str(rng.choice(ACTIVATIONS)), "batch_size": B}
    rate = {"optimizer": "sgd", "learning_rate": 0.02}
    training = gan_training(backend, data, **shape, seed=int(rng.integers(2**32)), **rate, **settings)
    tolerance = {"float32": 1e-4, "float64": 1e-10}[backend.dtype.name]
    for _ in range(6):
        spelled = Spelled(oracle, training, settings, 0.02)
        expected = spelled.run(data)
        run(training, 1)
        np.testing.assert_allclose(training.recent_losses(1)[0], expected, rtol=tolerance, atol=tolerance)
        for net, torch_net in zip(training.step.networks, (spelled.G, spelled.D), strict=True):
            for key, value in net.state().items():
                wanted = torch_net.parameters[key].detach().numpy()
                np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_training_with_adam_follows_the_float64_reference(backend, name):
    # eps: wasserstein's gradient of the last bias is 0, and Adam would make steps of what rounding leaves of that.
    settings = {"hidden": (16,), "learning_rate": 1e-3, "eps": 1e-4, "batch_size": 16, **COMBINATIONS[name]}
    ours, reference = (gan_training(ops, blobs(), **settings) for ops in (backend, NumpyBackend(np.float64)))
    run(ours, 20)
    run(reference, 20)
    np.testing.assert_allclose(ours.recent_losses(20), reference.recent_losses(20), rtol=1e-3, atol=1e-3)
    for a, b in zip(ours.step.networks, reference.step.networks, strict=True):
        assert relative_error(backend.download(a.params), b.params) < 1e-3


def test_an_update_of_the_discriminator_is_no_step_of_the_generator():
    """Adam's correction of the discriminator counts its own updates: by hand, its first three have the size of the
    learning rate, as Adam's first have where a gradient keeps its sign."""
    training = gan_training(NumpyBackend(np.float64), blobs(96), batch_size=32, n_critic=3, learning_rate=1e-4)
    before = training.step.discriminator.state()
    run(training, 1)
    assert int(training.step.counter[0]) == 1 and int(training.step.updates[0]) == 3
    moved = np.concatenate([np.ravel(v - before[k]) for k, v in training.step.discriminator.state().items()])
    assert 2e-4 < np.abs(moved).max() <= 3.01e-4


def test_a_schedule_takes_both_players_down_together():
    settings = {"schedule": "linear", "epochs": 2, "learning_rate": 0.1, "optimizer": "sgd"}
    training = gan_training(NumpyBackend(np.float64), blobs(96), batch_size=8, n_critic=3, **settings)
    for done in range(8):
        run(training, 1)
        rates = [float(optimizer.lr[0]) for optimizer in training.step.optimizers]
        assert rates[0] == pytest.approx(0.1 * (1 - done / 8))
        assert rates[1] == pytest.approx(0.1 * (1 - (3 * done + 2) / 24)), "of the last of three updates"


def test_each_update_takes_rows_and_noise_of_its_own(monkeypatch):
    data = np.arange(96, dtype=np.uint8)[:, None]
    training = gan_training(NumpyBackend(), data, batch_size=8, n_critic=3)
    step, rows, noises = training.step, [], []
    gradient = step.discriminator_gradient

    def watched():
        gradient()
        rows.extend(np.rint((step.real_rows[:, 0] + 1) * 127.5).astype(int))
        noises.append(step.noise[:8].copy())

    monkeypatch.setattr(step, "discriminator_gradient", watched)
    assert training.steps_per_epoch == 4
    run(training, 4)
    assert sorted(rows) == list(range(96))
    assert len({noise.tobytes() for noise in noises}) == 12


SMALL = {"hidden": (8,), "latent_dim": 4, "batch_size": 8, "learning_rate": 1e-3}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_an_estimator_goes_on_bit_for_bit(name, tmp_path):
    settings = {key: value for key, value in COMBINATIONS[name].items() if key != "noise_steps"}
    data, settings = blobs(64, 6), {**SMALL, **settings, "epochs": 6}
    whole = minigen.GAN(**settings).fit(data)
    half = minigen.GAN(**settings).fit(data, callbacks=[lambda end: end.epoch == 3])
    half.save(tmp_path / "half.safetensors")
    loaded = minigen.load(tmp_path / "half.safetensors").partial_fit(data, epochs=3)
    for loss, values in whole.history_.losses.items():
        np.testing.assert_array_equal(loaded.history_.losses[loss], values)
    np.testing.assert_array_equal(loaded.sample(5, seed=1), whole.sample(5, seed=1))


def test_clipped_weights_stay_within_the_limit():
    settings = {**SMALL, "loss": "wasserstein", "n_critic": 2, "weight_clip": 0.02, "epochs": 3}
    model = minigen.GAN(**settings).fit(blobs(64, 6))
    sizes = [np.abs(value).max() for value in model.discriminator_.state().values()]
    assert max(sizes) == np.float32(0.02)
    assert np.abs(model.generator_.params).max() > 0.1


def test_the_noise_is_gone_at_the_end_of_the_training():
    """The last step's noise is that of the first, less what the decay leaves of it; without decay it stays."""
    data = np.full((64, 3), 100, np.uint8)
    for decays, left in ((True, 1 / 8), (False, 1.0)):
        model = minigen.GAN(**SMALL, output="tanh", instance_noise=0.5, instance_noise_decay=decays, epochs=1)
        seen = []
        step_of = model._step
        model._step = lambda *given, step_of=step_of, seen=seen: seen.append(step_of(*given)) or seen[-1]  # type: ignore
        model.fit(data)
        step = seen[0]
        noise = np.asarray(step.real_rows) - (100 / 127.5 - 1)
        np.testing.assert_allclose(noise, 0.5 * left * step.instance_noise.noise[:8], atol=1e-5)


BAD = {
    "n_critic": (0, -1, 1.5, "2", True),
    "weight_clip": (-0.1, np.nan, "1"),
    "label_smoothing": (-0.1, 1.0, np.nan),
    "instance_noise": (-1, np.inf),
    "instance_noise_decay": (2, "no", None),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_values_are_refused(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        minigen.GAN(**SMALL, **{name: value}).fit(blobs(64, 6))


def test_combinations_without_sense_are_refused():
    with pytest.raises(ValueError, match="label_smoothing must be 0 with loss='wasserstein'"):
        minigen.GAN(**SMALL, label_smoothing=0.1, loss="wasserstein").fit(blobs(64, 6))
    with pytest.raises(ValueError, match="n_critic times batch_size must be at most the 64 rows, not 9 x 8"):
        minigen.GAN(**SMALL, n_critic=9).fit(blobs(64, 6))


def test_every_loss_is_known_to_the_oracle():
    assert set(pytest.importorskip("torch_gan").TERMS) == set(GAN_LOSSES)
