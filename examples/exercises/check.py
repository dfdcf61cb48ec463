"""Checks the exercises beside this file.

python examples/exercises/check.py            # all
python examples/exercises/check.py wgrad kl   # these
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np

from minigen.reference import activations, dense, gan_loss, latent

HERE = Path(__file__).resolve().parent


class Wrong(Exception):
    """What is wrong with an answer, for the one who wrote it."""


def expect(name, got, right, mistakes=None, tolerance=1e-9):
    """Raise Wrong unless ``got`` is ``right``. ``mistakes`` maps a hint to the value that the mistake leads to."""
    if got is None:
        raise Wrong(f"{name} is None: does the function return it?")
    got, right = np.asarray(got, np.float64), np.asarray(right, np.float64)
    if got.shape != right.shape:
        hint = ", its transpose" if got.T.shape == right.shape else ""
        raise Wrong(f"{name} has the shape {got.shape}, not {right.shape}{hint}")
    scale = max(1e-300, abs(right).max())
    if np.isfinite(got).all() and abs(got - right).max() <= tolerance * scale:
        return
    for hint, value in (mistakes or {}).items():
        if np.isfinite(value).all() and abs(got - value).max() <= 1e-6 * max(scale, abs(value).max()):
            raise Wrong(f"{name} is wrong: {hint}")
    if not np.isfinite(got).all():
        raise Wrong(f"{name} has {got[~np.isfinite(got)].flat[0]} in it, where all should be finite")
    at = np.unravel_index(abs(got - right).argmax(), right.shape)
    where = f"[{', '.join(map(str, at))}]" if at else ""
    raise Wrong(f"{name}{where} is {got[at]:.9g}, not {right[at]:.9g}")


def two(name, answer):
    """The two values that a function was to return."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Wrong(f"{name} must return two arrays, not {type(answer).__name__}")
    return answer


# --- the exercises ----------------------------------------------------------------------------------


def check_wgrad(module, rng):
    x, dz = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    dW, db = two("wgrad", module.wgrad(x, dz))
    right_W, right_b = dense.wgrad(x, dz)
    averaged = "it is divided by the number of rows, but the mean is in the loss, and so in dz already"
    expect("dW", dW, right_W, {averaged: right_W / 5})
    expect("db", db, right_b, {averaged: right_b / 5})


def check_tanh(module, rng):
    z, dy = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    y = np.tanh(z)
    mistakes = {
        "that takes y for z and applies tanh a second time": dy * (1 - np.tanh(y) ** 2),
        "that is the sigmoid's derivative, y (1 - y)": dy * y * (1 - y),
        "that is tanh'(z) alone; the chain rule multiplies it by dy": 1 - y**2,
    }
    expect("dz", module.tanh_backward(dy, y), activations.backward(dy, y, "tanh"), mistakes)


def check_discriminator(module, rng):
    real, fake = rng.standard_normal((6, 1)) + 1, rng.standard_normal((4, 1)) - 1
    _check_discriminator(module, real, fake)
    _check_discriminator(module, np.array([[1000.0], [-1000.0]]), np.array([[1000.0], [-1000.0], [0.0]]))


def _check_discriminator(module, real, fake):
    answer = module.discriminator_loss(real, fake)
    if not isinstance(answer, tuple) or len(answer) != 3:
        raise Wrong(f"discriminator_loss must return loss, dreal, dfake, not {type(answer).__name__}")
    loss, dreal, dfake = answer
    logits = np.concatenate([real, fake])
    right, d = gan_loss.discriminator(logits, len(real))
    swapped, _ = gan_loss.discriminator(np.concatenate([fake, real]), len(fake))
    summed = np.logaddexp(0, -real).sum() + np.logaddexp(0, fake).sum()
    mistakes = {
        "its sign is wrong, the discriminator minimises it": -right,
        "real and generated rows are swapped": swapped,
        "the rows are summed, where each half is a mean": summed,
        "one mean over all rows, where each half has its own": summed / len(logits),
    }
    expect("the loss", loss, right, mistakes)
    for name, got, part in (("dreal", dreal, d[: len(real)]), ("dfake", dfake, d[len(real) :])):
        mistakes = {
            "its sign is wrong": -part,
            "the 1/N of the mean is missing": part * len(part),
            "it is divided by all rows, where each half is a mean of its own": part * len(part) / len(logits),
        }
        expect(name, got, part, mistakes)


def check_saturation(module, rng):
    s = np.concatenate([rng.standard_normal((5, 1)), [[-10.0], [10.0]]])
    minimax, non_saturating = two("generator_gradients", module.generator_gradients(s))
    rights = {kind: gan_loss.generator(s, kind)[1] for kind in ("minimax", "non_saturating")}
    swapped = {"the two are swapped": rights["non_saturating"]}
    for got, kind, other in ((minimax, "minimax", swapped), (non_saturating, "non_saturating", {})):
        right = rights[kind]
        mistakes = {"its sign is wrong": -right, "the 1/B of the mean is missing": right * len(s), **other}
        expect(f"d{kind}", got, right, mistakes)
    at = {kind: abs(float(value[-2, 0])) * len(s) for kind, value in rights.items()}
    return f"at s = -10 a row's slope is {at['minimax']:.6f} with minimax and {at['non_saturating']:.6f} without"


def check_through(module, rng):
    B, D, H = 5, 7, 6
    g = np.tanh(rng.standard_normal((B, D)))
    V1, c1, V2, c2 = (rng.standard_normal(size) for size in ((D, H), (H,), (H, 1), (1,)))
    k = dense.forward(g, V1, c1, "relu")
    _, ds = gan_loss.generator(dense.forward(k, V2, c2))

    def back(ds, relu="relu", tanh="tanh"):
        return dense.dgrad(dense.dgrad(ds, V2, k, relu), V1, g, tanh)

    mistakes = {
        "the derivative of the relu is missing": back(ds, relu="linear"),
        "it stops at g: the derivative of the tanh is missing": back(ds, tanh="linear"),
        "its sign is wrong: the loss falls where s grows": back(-ds),
        "the 1/B of the mean is missing": back(ds * B),
        "its ds is that of a row that the discriminator should call generated": back(ds + 1 / B),
    }
    answer = module.gradient_through_discriminator(g, V1, c1, V2, c2)
    expect("da", answer, back(ds), mistakes)


def check_kl(module, rng):
    mu, logvar = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    right = latent.forward(np.concatenate([mu, logvar], axis=1), np.zeros_like(mu))[1]
    sigma2 = np.exp(logvar)
    mistakes = {
        "its sign is wrong: no divergence is below 0": -right,
        "the factor 1/2 is missing": 2 * right,
        "it takes logvar for the logarithm of sigma": (mu**2 + np.exp(2 * logvar) - 1 - 2 * logvar).sum(axis=1) / 2,
        "it takes logvar for the variance": (mu**2 + logvar - 1 - np.log(abs(logvar))).sum(axis=1) / 2,
        "it is the other divergence, of the prior from q": ((mu**2 + 1) / sigma2 - 1 + logvar).sum(axis=1) / 2,
        "the latents of a row are summed, not averaged": right / 3,
    }
    got = module.kl(mu, logvar)
    expect("the divergence", got, right, mistakes)
    expect("the divergence of the prior from itself", module.kl(np.zeros((2, 3)), np.zeros((2, 3))), np.zeros(2))
    expect("that of mu = 1, logvar = -1", module.kl(np.ones((1, 1)), -np.ones((1, 1))), [np.exp(-1) / 2 + 0.5])


def check_dlogvar(module, rng):
    dz, eps, mu, logvar = (rng.standard_normal((5, 3)) for _ in range(4))
    answer = two("latent_gradients", module.latent_gradients(dz, eps, mu, logvar))
    right_mu, right = np.split(latent.backward(dz, np.concatenate([mu, logvar], axis=1), eps, 1.0), 2, axis=1)
    sigma, of_kl = np.exp(logvar / 2), np.expm1(logvar) / 2 / 5
    of_mu = {
        "only the decoder's part, the divergence has one too": dz,
        "the divergence's part is not divided by the number of rows": dz + mu,
        "its parts have different signs: both are costs": dz - mu / 5,
    }
    expect("dmu", answer[0], right_mu, of_mu)
    of_logvar = {
        "only the decoder's part, the divergence has one too": right - of_kl,
        "the divergence's part is not divided by the number of rows": right + 4 * of_kl,
        "dsigma/dlogvar is sigma / 2": dz * eps * sigma + of_kl,
        "z changes with sigma by eps": dz * sigma / 2 + of_kl,
        "it is the gradient by sigma, not by its logarithm": dz * eps + (sigma - 1 / sigma) / 5,
        "its parts have different signs: both are costs": right - 2 * of_kl,
    }
    expect("dlogvar", answer[1], right, of_logvar)


def check_dense_triton(module, rng):
    import torch

    for B, n_in, n_out in ((16, 16, 32), (17, 5, 33), (3, 40, 70), (1, 1, 1)):
        arrays = [rng.standard_normal(size).astype(np.float32) for size in ((B, n_in), (n_in, n_out), (n_out,))]
        x, W, b = map(torch.from_numpy, arrays)
        y = torch.full((B, n_out), float("nan"))
        module.dense(x, W, b, y)
        got, (x, W, b) = y.numpy(), (array.astype(np.float64) for array in arrays)
        if np.isnan(got).all():
            raise Wrong(f"nothing of y was written, for (B, I, O) = {(B, n_in, n_out)}")
        mistakes = {"the bias is missing": x @ W, "it is W^T that was multiplied": x @ W.T + b if n_in == n_out else W}
        mistakes = {hint: value for hint, value in mistakes.items() if value.shape == got.shape}
        expect(f"y, for (B, I, O) = {(B, n_in, n_out)},", got, x @ W + b, mistakes, 1e-5)


EXERCISES = {
    "wgrad": check_wgrad,
    "tanh": check_tanh,
    "discriminator": check_discriminator,
    "saturation": check_saturation,
    "through": check_through,
    "kl": check_kl,
    "dlogvar": check_dlogvar,
    "dense_triton": check_dense_triton,
}
NEEDS = {"dense_triton": ("triton", "torch")}


def load(folder, name):
    """The module of an exercise, from the file of its name."""
    spec = importlib.util.spec_from_file_location(f"exercise_{name}", Path(folder) / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdict(folder, name, seed=0):
    """``(state, words)``: ``"right"``, ``"wrong"``, ``"to do"``, or ``"left out"`` where a package is missing."""
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        return "left out", f"needs pip install {' '.join(missing)}"
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            found = EXERCISES[name](load(folder, name), np.random.default_rng(seed))
    except NotImplementedError:
        return "to do", f"nothing is written in {name}.py yet: its first lines say what is wanted"
    except Wrong as wrong:
        return "wrong", str(wrong)
    except FloatingPointError as error:
        return "wrong", f"{error}: is there a form that takes logits of any size?"
    except Exception as error:  # of the answer: whatever it raises is part of the verdict
        return "wrong", f"it ends in {type(error).__name__}: {error}"
    return "right", found or ""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercise", nargs="*", help=f"of {', '.join(EXERCISES)}; all of them if none is named")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the answers are (default: beside this file)")
    options = parser.parse_args(arguments)
    for name in options.exercise:
        if name not in EXERCISES:
            parser.error(f"there is no exercise {name!r}, only {', '.join(EXERCISES)}")
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: it then needs no GPU
    states = []
    for name in options.exercise or EXERCISES:
        state, words = verdict(options.folder, name)
        states.append(state)
        print(f"{name:<14} {state:<9} {words}".rstrip())
    print(f"{states.count('right')} of {len(states)} are right")
    return 0 if states.count("right") + states.count("left out") == len(states) else 1


if __name__ == "__main__":
    sys.exit(main())
