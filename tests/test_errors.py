"""Every exception of the package goes whole from one process to another: pickled, copied, out of a pool."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
import typing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import minigen
from minigen import checks, errors

WITHOUT_CUDA = [
    name
    for _, name, _ in pkgutil.walk_packages(minigen.__path__, "minigen.")
    if not name.startswith(("minigen.cuda", "minigen.__main__", "minigen._native", "minigen.cpu"))
]


def exceptions() -> list[type[BaseException]]:
    """All exception classes that the package defines, wherever they are."""
    found = {}
    for name in WITHOUT_CUDA:
        for cls in vars(importlib.import_module(name)).values():
            if inspect.isclass(cls) and issubclass(cls, BaseException) and cls.__module__.startswith("minigen"):
                found[cls.__qualname__] = cls
    return [found[name] for name in sorted(found)]


EXCEPTIONS = exceptions()


def one(cls: type[BaseException]) -> BaseException:
    """An exception of this class with a value for whatever it takes beside the message, which is "what happened"."""
    if issubclass(cls, errors._OfArgument):
        return with_note(cls("what", "happened"))
    own = inspect.isfunction(cls.__init__)
    hints = typing.get_type_hints(cls.__init__) if own else {}
    values = {
        int: 7,
        dict[int, errors.TrainingDiverged]: {2: errors.TrainingDiverged("nan", step=7, layer="generator.0")},
    }
    keywords = {
        name: values.get(hints.get(name), "generator.0")
        for name, parameter in (inspect.signature(cls.__init__).parameters.items() if own else ())
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return with_note(cls("what happened", **keywords))


def with_note(error: BaseException) -> BaseException:
    error.add_note("a note")
    return error


def assert_same(a: BaseException, b: BaseException) -> None:
    assert type(a) is type(b) and a.args == b.args and str(a) == str(b) == "what happened"
    assert repr(vars(a)) == repr(vars(b)) and a.__notes__ == ["a note"]


def test_the_exceptions_are_found():
    names = {"ArgumentError", "ArgumentTypeError", "DeviceError", "DownloadError", "ModelFileError", "TrainingDiverged"}
    assert names <= {e.__name__ for e in EXCEPTIONS}


@pytest.mark.parametrize("cls", EXCEPTIONS, ids=lambda cls: cls.__name__)
def test_exceptions_survive_pickle_and_copy(cls):
    error = one(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
    assert_same(copy.copy(error), error)
    assert_same(copy.deepcopy(error), error)


def raise_one(cls: type[BaseException]) -> None:
    raise one(cls)


def test_exceptions_survive_a_process_pool():
    with ProcessPoolExecutor(1) as pool:
        for cls in EXCEPTIONS:
            with pytest.raises(cls) as caught:
                pool.submit(raise_one, cls).result(timeout=60)
            assert repr({**vars(caught.value), "__notes__": ["a note"]}) == repr(vars(one(cls)))


POOL = """
import multiprocessing, sys
import numpy as np
import minigen

def diverge(seed):
    X = np.random.default_rng(seed).normal(size=(64, 8)).astype(np.float32)
    minigen.GAN(optimizer="sgd", learning_rate=1e9, output="linear", batch_size=16, hidden=(4,), seed=seed).fit(X)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            pool.map(diverge, [1])
        except minigen.TrainingDiverged as error:
            print(error.step, error.layer)
"""


def test_a_divergence_comes_out_of_a_pool(tmp_path):
    """multiprocessing's pool waits for ever for a result that it cannot unpickle."""
    (tmp_path / "pool.py").write_text(POOL)
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "pool.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    step, layer = done.stdout.split()
    assert int(step) >= 1 and "." in layer, done.stderr


# --- errors about an argument ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "check, error",
    [
        (lambda: checks.integer("n", 1.5, 1), TypeError),
        (lambda: checks.integer("n", 0, 1), ValueError),
        (lambda: checks.number("n", "x", 0), TypeError),
        (lambda: checks.number("n", -1, 0), ValueError),
        (lambda: checks.number("n", 1e-60, 0), ValueError),
        (lambda: checks.choice("n", "x", "ab"), ValueError),
        (lambda: checks.widths("n", "x"), TypeError),
        (lambda: checks.widths("n", [3, 0]), ValueError),
        (lambda: checks.seed("n", -1), ValueError),
    ],
)
def test_checks_say_which_argument_is_wrong(check, error):
    with pytest.raises(error, match=r"^n(\[1\])? must be ") as caught:
        check()
    assert caught.value.argument == "n"


X = np.linspace(0, 1, 40).reshape(20, 2)


@pytest.mark.parametrize(
    "argument, act",
    [
        ("X", lambda: minigen.GAN().fit(np.full((20, 2), np.nan))),
        ("X", lambda: minigen.GAN().fit([["a", "b"]])),
        ("X", lambda: minigen.GAN().fit(np.zeros((20, 0)))),
        ("X", lambda: minigen.GAN(output="tanh", batch_size=9).fit(9 * X)),
        ("X", lambda: minigen.VAE(batch_size=9).fit(9 * X)),
        ("data", lambda: minigen.datasets.as_rows(1j * X)),
        ("batch_size", lambda: minigen.GAN(batch_size=21).fit(X)),
        ("beta1", lambda: minigen.GAN(beta1=1).fit(X)),
        ("hidden", lambda: minigen.VAE(hidden=(3, 0)).fit(X)),
        ("standardize", lambda: minigen.VAE(standardize=True, batch_size=9).fit(X)),
        ("weight_decay", lambda: minigen.GAN(weight_decay=0.1).fit(X)),
        ("callbacks", lambda: minigen.GAN().fit(X, callbacks=[3])),
        ("device", lambda: minigen.GAN(device="tpu").fit(X)),
        ("precision", lambda: minigen.GAN(device="numpy", precision="tf32").fit(X)),
        ("preset", lambda: minigen.GAN.preset("best")),
        ("parameter", lambda: minigen.GAN().set_params(bogus=1)),
        ("data", lambda: minigen.datasets.resolve("nothing")),
        ("items", lambda: minigen.show(["a"])),
    ],
)
def test_an_error_about_an_argument_has_its_name(argument, act):
    with pytest.raises((ValueError, TypeError)) as caught:
        act()
    assert caught.value.argument == argument and str(caught.value).startswith(argument)
