"""The command line, run as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen import cli
from minigen.run_folder import MODEL
from png import decode

SMALL = ["--batch-size", "16", "--hidden", "12", "--latent-dim", "4"]
# No report: it takes half a second, and tests/test_report.py looks at it.
TRAIN_GAN = ["train", "gan", "--data", "digits.npy", "--no-report", *SMALL]
TRAIN_VAE = ["train", "vae", *TRAIN_GAN[2:]]


def minigen_command(*arguments: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``minigen arguments...`` in ``folder``."""
    command = [sys.executable, "-m", "minigen", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def succeeds(*arguments: str | Path, folder: Path, **environment: str) -> str:
    """What the command prints; it must succeed and complain of nothing."""
    done = minigen_command(*arguments, folder=folder, **environment)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def fails(*arguments: str | Path, folder: Path, code: int = 2, **environment: str) -> str:
    """The error of a command that must fail with one line and leave no trace in the folder."""
    before = snapshot(folder)
    done = minigen_command(*arguments, folder=folder, **environment)
    assert done.returncode == code, done
    assert done.stdout == "" and done.stderr.startswith("minigen: error: ") and done.stderr.count("\n") == 1, done
    assert snapshot(folder) == before
    return done.stderr.removeprefix("minigen: error: ").rstrip()


def fails_here(*arguments: str, folder: Path, capsys: typing.Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """As :func:`fails`, but in this process, which is quicker."""
    before = snapshot(folder)
    monkeypatch.setattr(sys, "argv", ["minigen", *arguments])
    with pytest.raises(SystemExit) as stop:
        sys.exit(cli.run(sys.argv[1:]))
    out, err = capsys.readouterr()
    assert stop.value.code == 2, err
    assert out == "" and err.startswith("minigen: error: ") and err.count("\n") == 1, (out, err)
    assert snapshot(folder) == before
    return err.removeprefix("minigen: error: ").rstrip()


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def digits(n: int = 64, side: int = 8) -> np.ndarray:
    """Something to learn: bright squares at random places."""
    rng = np.random.default_rng(3)
    images = np.zeros((n, side, side), np.uint8)
    for image, (top, left) in zip(images, rng.integers(0, side - 3, (n, 2)), strict=True):
        image[top : top + 4, left : left + 4] = rng.integers(200, 256)
    return images


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with some data, the current one."""
    np.save(tmp_path / "digits.npy", digits())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a trained GAN in ``gan`` and a trained VAE in ``vae``; not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    np.save(folder / "digits.npy", digits())
    succeeds(*TRAIN_GAN, "--epochs", "4", "--out", "gan", folder=folder)
    succeeds(*TRAIN_VAE, "--learning-rate", "0.01", "--epochs", "100", "--out", "vae", folder=folder)
    return folder


def assert_same_model(a: Path, b: Path) -> None:
    """The same weights, moments and losses to the bit, and the same settings."""
    one, other = minigen.load(a, device="numpy"), minigen.load(b, device="numpy")
    assert one.get_params() == other.get_params()
    np.testing.assert_array_equal(one.history_.values, other.history_.values)
    assert one.history_.ends == other.history_.ends
    for key, value in one._training_state().items():
        np.testing.assert_array_equal(value, other._training_state()[key], err_msg=key)


# --- training -------------------------------------------------------------------------------------


def test_training_a_gan_fills_its_folder(runs):
    names = {path.name for path in (runs / "gan").iterdir()}
    pictures = {f"samples-epoch-000{epoch}.png" for epoch in (1, 2, 3, 4)}
    assert names - {"losses.png"} == {MODEL, "history.csv", "samples.png"} | pictures
    with open(runs / "gan" / "history.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4"]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in table)
    frames = [decode((runs / "gan" / name).read_bytes()) for name in sorted(pictures)]
    assert {frame.shape for frame in frames} == {(8 * (8 * 8 + 2) + 2,) * 2}  # 8 x 8 pictures, each pixel 8 x 8
    assert not np.array_equal(frames[0], frames[-1])
    np.testing.assert_array_equal(frames[-1], decode((runs / "gan" / "samples.png").read_bytes()))
    assert frames[-1].std() > 10  # not blank


def test_training_a_vae_shows_reconstructions_beside_originals(runs):
    canvas = decode((runs / "vae" / "reconstructions.png").read_bytes())
    assert canvas.shape == (8 * (64 + 2) + 2, 4 * (2 * 64 + 2) + 2)
    left, right = canvas[2:66:8, 2:66:8], canvas[2:66:8, 66:130:8]
    np.testing.assert_array_equal(left, digits()[0])
    model = minigen.load(runs / "vae" / MODEL)
    np.testing.assert_array_equal(right, model.reconstruct(digits()[:1])[0])
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.5
    assert len(list((runs / "vae").glob("samples-epoch-*.png"))) == 10


def test_losses_are_drawn(runs):
    pytest.importorskip("matplotlib")
    assert (runs / "gan" / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_without_matplotlib_a_sentence_stands_for_the_curves(here):
    (here / "without" / "matplotlib").mkdir(parents=True)
    (here / "without" / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(here / "without"), os.environ.get("PYTHONPATH", "")])
    out = succeeds(*TRAIN_GAN, "--epochs", "1", folder=here, PYTHONPATH=path)
    assert 'losses.png is not drawn: matplotlib is needed to draw losses: pip install "minigen-engine[plot]"' in out
    assert (here / "runs" / "gan" / MODEL).exists() and not (here / "runs" / "gan" / "losses.png").exists()


@pytest.mark.slow
def test_the_bundled_digits_are_the_default(here):
    out = succeeds("train", "vae", "--epochs", "1", folder=here)
    assert out.startswith("mnist-sample: 5000 x 28 x 28, uint8\n")
    samples = decode((here / "runs" / "vae" / "samples.png").read_bytes())
    assert samples.shape == (8 * (2 * 28 + 2) + 2,) * 2
    reconstructions = decode((here / "runs" / "vae" / "reconstructions.png").read_bytes())
    originals = minigen.datasets.mnist_sample().images
    np.testing.assert_array_equal(reconstructions[2:58:2, 2:58:2], originals[0])
    assert "source  mnist-sample" in succeeds("info", "runs/vae", folder=here)
    succeeds("reconstruct", "runs/vae", "-n", "2", folder=here)


@pytest.mark.slow
def test_tables_are_written_as_tables(here, rng):
    np.save("table.npy", rng.normal(size=(90, 5)).astype(np.float32))
    settings = ["--likelihood", "gaussian", "--hidden", "8", "--latent-dim", "2", "--batch-size", "32"]
    succeeds("train", "vae", "--data", "table.npy", *settings, "--epochs", "2", "--out", "out", folder=here)
    assert not list(here.glob("out/samples*.png"))
    table = np.loadtxt("out/samples.csv", delimiter=",", skiprows=1)
    assert table.shape == (64, 5) and np.isfinite(table).all()
    assert Path("out/samples.csv").read_text().startswith("x0,x1,x2,x3,x4\n")
    pairs = np.loadtxt("out/reconstructions.csv", delimiter=",", skiprows=1)
    rows = np.load("table.npy")[np.linspace(0, 89, 32).round().astype(int)]
    np.testing.assert_allclose(pairs[:, :5], rows, rtol=1e-7)
    assert "no pictures" in fails("sample", "out", "--out", "grid.png", folder=here)


@pytest.mark.slow
def test_npz_and_idx_files_are_data_too(here):
    np.savez("several.npz", a=digits(), b=digits()[:32])
    minigen.datasets.write_idx("digits-idx3-ubyte", digits())
    for data, size in [("several.npz:b", 32), ("digits-idx3-ubyte", 64)]:
        out = succeeds("train", "gan", "--data", data, "--epochs", "0", "--batch-size", "16", folder=here)
        assert out.startswith(f"{data}: {size} x 8 x 8, uint8\n")
    assert "a, b" in fails("train", "gan", "--data", "several.npz", folder=here)


@pytest.mark.slow
def test_quiet_prints_nothing(here):
    assert succeeds(*TRAIN_GAN, "--epochs", "1", "--quiet", folder=here) == ""


@pytest.mark.slow
def test_sample_every(here):
    succeeds(*TRAIN_GAN, "--epochs", "5", "--sample-every", "2", "--out", "two", folder=here)
    assert sorted(path.name for path in here.glob("two/samples-epoch-*")) == [
        "samples-epoch-0002.png",
        "samples-epoch-0004.png",
    ]
    succeeds(*TRAIN_GAN, "--epochs", "2", "--sample-every", "0", "--out", "none", folder=here)
    assert not list(here.glob("none/samples-epoch-*"))


@pytest.mark.slow
def test_threads_do_not_change_the_result(here):
    if not minigen.devices()["cpu"].usable:
        pytest.skip("no compiled backend")
    for threads in ("1", "2"):
        succeeds(*TRAIN_GAN, "--device", "cpu", "--threads", threads, "--epochs", "2", "--out", threads, folder=here)
    assert_same_model(here / "1" / MODEL, here / "2" / MODEL)


# --- an earlier run is not overwritten ------------------------------------------------------------


@pytest.mark.slow
def test_precision(here):
    """Told in the output, kept in the file, and free to change while resuming."""
    out = succeeds(*TRAIN_GAN, "--device", "numpy", "--precision", "ieee", "--epochs", "1", "--out", "p", folder=here)
    assert "on numpy (ieee), 1 epoch\n" in out
    assert re.search(r"precision +ieee\n", succeeds("info", "p", folder=here))
    succeeds("train", "gan", "--resume", "p", "--epochs", "1", folder=here)
    assert minigen.load("p/model.safetensors").precision == "ieee"
    again = ("train", "gan", "--resume", "p", "--device", "numpy", "--epochs", "1")
    assert "--precision must be one of" in fails(*again, "--precision", "tf32", folder=here)
    succeeds(*again, "--precision", "auto", folder=here)
    assert minigen.load("p/model.safetensors").precision == "auto"


@pytest.mark.slow
def test_the_default_folder_is_the_next_free_one(here):
    for folder in ("runs/gan", "runs/gan-2", "runs/gan-3"):
        assert f"results in {folder}:" in succeeds(*TRAIN_GAN, "--epochs", "1", folder=here)


@pytest.mark.slow
def test_a_folder_with_a_run_is_replaced_only_by_force(here):
    (here / "out").mkdir()
    (here / "out" / "notes.txt").write_text("mine")
    succeeds(*TRAIN_GAN, "--epochs", "3", "--out", "out", folder=here)
    assert "holds a run already" in fails(*TRAIN_GAN, "--epochs", "1", "--out", "out", folder=here)
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "out", "--force", folder=here)
    assert {path.name for path in here.glob("out/*")} - {"losses.png"} == {
        MODEL,
        "history.csv",
        "samples.png",
        "samples-epoch-0001.png",
        "notes.txt",
    }
    assert minigen.load("out/" + MODEL).history_.epochs == 1


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("train", [TRAIN_GAN, TRAIN_VAE], ids=["gan", "vae"])
def test_resuming_continues_bit_for_bit(here, train):
    succeeds(*train, "--epochs", "4", "--out", "whole", folder=here)
    succeeds(*train, "--epochs", "2", "--out", "parts", folder=here)
    out = succeeds(*train[:2], "--resume", "parts", "--epochs", "2", folder=here)
    assert "results in parts:" in out
    assert_same_model(here / "whole" / MODEL, here / "parts" / MODEL)
    whole, parts = (decode(Path(name, "samples.png").read_bytes()) for name in ("whole", "parts"))
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.slow
def test_resuming_into_another_folder_leaves_the_first_alone(here):
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "a", folder=here)
    before = snapshot(here / "a")
    succeeds("train", "gan", "--resume", "a", "--epochs", "1", "--learning-rate", "0.01", "--out", "b", folder=here)
    assert snapshot(here / "a") == before
    model = minigen.load("b/" + MODEL)
    assert (model.history_.epochs, model.learning_rate) == (2, 0.01)
    Path("b", MODEL).rename("best.safetensors")  # not a run folder's own model: a new folder
    out = succeeds("train", "gan", "--resume", "best.safetensors", "--epochs", "1", folder=here)
    assert "results in runs/gan:" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gan", "--resume", "gan"], "all its 4 epochs; say how many more with --epochs"),
        (["gan", "--resume", "gan", "--epochs", "1", "--hidden", "3"], "--hidden cannot be given with --resume"),
        (["gan", "--resume", "gan", "--epochs", "1", "--preset", "quality"], "--preset cannot be given with --resume"),
        (["gan", "--resume", "gan", "--epochs", "-1"], "--epochs must be an integer of at least 0, not -1"),
        (["gan", "--resume", "gan", "--epochs", "1", "--learning-rate", "0"], "--learning-rate must be"),
        (["gan", "--resume", "gan", "--epochs", "1", "--data", "mnist-sample"], "items of shape (8, 8), not (28, 28)"),
        (["vae", "--resume", "gan", "--epochs", "1"], "MODEL must be a vae"),
        (["gan", "--resume", "nothing", "--epochs", "1"], "there is no model at nothing"),
        (["gan", "--resume", "digits.npy", "--epochs", "1"], "no safetensors file"),
    ],
)
def test_what_resuming_refuses(runs, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert message in fails_here("train", *arguments, folder=runs, capsys=capsys, monkeypatch=monkeypatch)


def test_a_model_trained_in_python_names_no_data(here):
    model = minigen.train_vae(digits(), epochs=1, batch_size=16, hidden=8, progress=False)
    model.save("m.safetensors")
    assert "--data is needed" in fails("reconstruct", "m.safetensors", folder=here)
    succeeds("reconstruct", "m.safetensors", "--data", "digits.npy", folder=here)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_learnt(here):
    command = [sys.executable, "-m", "minigen", *TRAIN_GAN, "--epochs", "1000000", "--sample-every", "50"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 100/"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    path = here / "runs" / "gan" / MODEL
    model = minigen.load(path)
    epochs = model.history_.epochs
    assert 100 <= epochs < 1000000 and model.history_.stop_reason == "interrupted"
    assert err == (
        f"minigen: interrupted: {epochs} of 1000000 epochs are done and saved; "
        f"minigen train gan --resume runs{os.sep}gan goes on\n"
    )
    assert (here / "runs" / "gan" / "samples.png").exists()
    assert len((here / "runs" / "gan" / "history.csv").read_text().splitlines()) == 1 + epochs
    assert "interrupted" in succeeds("info", "runs/gan", folder=here)
    # The epoch that was cut short is finished as if nothing had happened.
    succeeds("train", "gan", "--resume", "runs/gan", "--epochs", "1", folder=here)
    succeeds(*TRAIN_GAN, "--epochs", str(epochs + 1), "--sample-every", "0", "--out", "whole", folder=here)
    assert_same_model(path, here / "whole" / MODEL)


def test_resuming_without_epochs_does_what_an_interruption_left(here):
    def stop(end):
        return end.epoch == 2

    model = minigen.GAN(hidden=(8,), latent_dim=3, batch_size=16, epochs=5).fit(digits(), callbacks=[stop])
    model.save("stopped.safetensors")
    succeeds("train", "gan", "--resume", "stopped.safetensors", "--data", "digits.npy", "--out", "o", folder=here)
    assert minigen.load("o/" + MODEL).history_.epochs == 5


def test_divergence_is_an_error_that_keeps_the_last_saved_model(here):
    np.save("wide.npy", np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    done = minigen_command(
        "train",
        "gan",
        "--data",
        "wide.npy",
        "--batch-size",
        "16",
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e9",
        "--epochs",
        "50",
        "--out",
        "o",
        folder=here,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"minigen: error: step \d+: .* of layer \w+\.\d.*\n", done.stderr), done.stderr


# --- sample, reconstruct, info --------------------------------------------------------------------


def test_sample_draws_a_grid(runs, tmp_path):
    path = tmp_path / "g.png"
    out = succeeds("sample", "gan", "-n", "10", "--seed", "5", "--columns", "5", "--out", path, folder=runs)
    assert out == f"{path}: 10 samples, seed 5\n"
    canvas = decode(path.read_bytes())
    assert canvas.shape == (2 * 66 + 2, 5 * 66 + 2)
    expected = minigen.load(runs / "gan" / MODEL).sample(10, seed=5)
    np.testing.assert_array_equal(canvas[2:66:8, 2:66:8], expected[0])
    np.testing.assert_array_equal(canvas[68:132:8, 266:330:8], expected[9])


@pytest.mark.slow
def test_sample_writes_arrays_and_tables(runs, tmp_path):
    expected = minigen.load(runs / "vae" / MODEL, device="numpy").sample(7, seed=1)
    for name in ("s.npy", "s.csv", "new/s.npy"):
        succeeds("sample", "vae", "-n", "7", "--seed", "1", "--device", "numpy", "--out", tmp_path / name, folder=runs)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "s.npy"), expected)
    table = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table, expected.reshape(7, -1))


@pytest.mark.slow
def test_sample_without_a_seed_tells_the_one_it_took(runs, tmp_path):
    command = ["sample", runs / "gan", "-n", "2", "--out"]
    first, second = (succeeds(*command, name, folder=tmp_path).split()[-1] for name in ("a.npy", "b.npy"))
    assert first != second
    succeeds(*command, "c.npy", "--seed", second, folder=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), np.load(tmp_path / "b.npy"))


def test_reconstruct(runs, tmp_path):
    out = succeeds("reconstruct", "vae", "-n", "3", "--out", tmp_path / "r.npy", folder=runs)
    assert out.endswith("3 rows and their reconstructions\n")
    pairs = np.load(tmp_path / "r.npy")
    originals = digits()[[0, 32, 63]]
    np.testing.assert_array_equal(pairs[:, 0], originals)
    np.testing.assert_array_equal(pairs[:, 1], minigen.load(runs / "vae" / MODEL).reconstruct(originals))
    succeeds("reconstruct", "vae", "--data", "digits.npy", "-n", "1000", "--out", tmp_path / "r.png", folder=runs)
    assert decode((tmp_path / "r.png").read_bytes()).shape == (11 * 66 + 2, 6 * 130 + 2)  # all 64, once each


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sample", "nothing"], "there is no model at nothing"),
        (["sample", "."], f"there is no model at {MODEL}"),
        (["sample", "digits.npy"], "no safetensors file"),
        (["sample", "gan", "-n", "0"], "-n must be an integer of at least 1, not 0"),
        (["sample", "gan", "-n", "many"], "'many' is not an integer"),
        (["sample", "gan", "--seed", "-1"], "--seed must be an integer from 0 to 4294967295, not -1"),
        (["sample", "gan", "--columns", "0"], "--columns must be"),
        (["sample", "gan", "--out", "grid.jpg"], "'.png', '.csv', '.npy', not '.jpg'"),
        (["sample", "gan", "--out", "gan"], "the ending of --out"),
        (["sample", "gan", "--device", "tpu"], "--device must be one of 'auto', 'numpy', 'cpu', 'cuda'"),
        (["sample"], "Missing argument 'MODEL'"),
        (["reconstruct", "gan"], "MODEL must be a vae"),
        (["reconstruct", "vae", "-n", "0"], "-n must be"),
        (["reconstruct", "vae", "--data", "mnist-sample"], "items of shape (8, 8), not (28, 28)"),
        (["info", "nothing"], "there is no model at nothing"),
        (["gradcheck", "--device", "tpu"], "--device must be one of"),
        (["gradcheck", "--seed", "x"], "'x' is not an integer"),
        (["trian"], "No such command 'trian'"),
        (["--bogus"], "--bogus"),
        (["train", "rnn"], "No such command 'rnn'"),
        (["train", "gan", "extra"], "unexpected extra argument"),
        (["train", "vae", "--loss", "minimax"], "--loss"),
    ],
)
def test_bad_use_of_the_other_commands(runs, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert message in fails_here(*arguments, folder=runs, capsys=capsys, monkeypatch=monkeypatch)


@pytest.mark.slow
def test_evaluate_prints_figures_beside_those_of_held_out_rows(runs, here):
    np.save("new.npy", digits(40)[::-1])
    out = succeeds(
        "evaluate",
        runs / "vae",
        "--data",
        runs / "digits.npy",
        "--held-out",
        "new.npy",
        "--out",
        "figures.json",
        folder=here,
    )
    assert re.search(r"^metric +samples +held-out rows +better$", out, re.MULTILINE)
    assert "40 samples, and as many held-out rows" in out
    figures = json.loads(Path("figures.json").read_text())["figures"]
    # The rows held out are copies of training rows, so no sample is nearer to these.
    assert figures["precision"]["held_out"] > 0.5 and figures["nearer to training rows"]["model"] < 0.5
    assert {"bound", "log likelihood", "reconstruction error"} < set(figures)
    assert "--features must be one of 'none', 'mnist'" in fails(
        "evaluate", runs / "gan", "--features", "x", folder=here
    )
    assert "--held-out: name rows that the model was not trained on" in fails("evaluate", runs / "gan", folder=here)


def test_info_tells_what_a_file_holds(runs):
    out = succeeds("info", "gan", folder=runs)
    for expected in (
        f"gan{os.sep}{MODEL}: GAN, 1,685 parameters",
        "8 x 8, uint8",
        "digits.npy",
        "4 of 4, 16 steps",
        "learning_rate  ",
        "generator.1      W (12, 64), b (64,), tanh",
        "discriminator.0  W (64, 12), b (12,), leaky_relu",
    ):
        assert expected in out
    assert "VAE" in succeeds("info", f"vae/{MODEL}", folder=runs)


# --- gradcheck, devices, help ---------------------------------------------------------------------


@pytest.mark.slow
def test_gradcheck_prints_a_table(tmp_path):
    out = succeeds("gradcheck", "--device", "numpy", "--seed", "1", folder=tmp_path)
    assert re.search(r"^(\d+) checks, 0 failed; repeat with --seed 1$", out, re.M)
    assert re.search(r"^dense +numpy +dense_wgrad .* pass$", out, re.M)
    assert len({len(line) for line in out.splitlines()[:-1]}) <= 2  # columns: "result" is longer than "pass"


@pytest.mark.slow
def test_gradcheck_fails_when_a_gradient_is_wrong(capsys, monkeypatch):
    from minigen.reference import dense

    wgrad = dense.wgrad
    monkeypatch.setattr(dense, "wgrad", lambda x, dz: (1.001 * wgrad(x, dz)[0], wgrad(x, dz)[1]))
    monkeypatch.setattr(sys, "argv", ["minigen", "gradcheck", "--device", "numpy"])
    with pytest.raises(SystemExit) as stop:
        sys.exit(cli.run(sys.argv[1:]))
    out = capsys.readouterr().out
    assert stop.value.code == 1
    assert re.search(r"^dense .*FAIL$", out, re.M) and not re.search(r" 0 failed", out)


def test_devices_are_listed(tmp_path):
    out = succeeds("devices", folder=tmp_path)
    assert [line.split()[0] for line in out.splitlines()] == ["numpy", "cpu", "cuda", "auto"]


@pytest.mark.slow
def test_version_and_help(tmp_path):
    assert succeeds("--version", folder=tmp_path) == f"minigen {minigen.__version__}\n"
    front = succeeds("--help", folder=tmp_path)
    assert succeeds(folder=tmp_path) == front
    for command in ("train", "sample", "reconstruct", "info", "devices", "gradcheck"):
        assert command in front
        assert "Usage: minigen" in succeeds(command, "--help", folder=tmp_path)
    assert "gan" in succeeds("train", folder=tmp_path)
    assert "--hidden-discriminator" in succeeds("train", "gan", "--help", folder=tmp_path, COLUMNS="120")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["sample", "--help"]], ids=" ".join)
def test_help_needs_none_of_what_computes(arguments):
    code = (
        f"import sys; sys.argv = ['minigen', *{arguments}]\n"
        "import minigen.__main__\n"
        "try: minigen.__main__.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'matplotlib', 'safetensors', 'cupy', 'triton', 'tqdm'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr == "set()\n"


# --- errors ---------------------------------------------------------------------------------------

NAMED = "mnist-sample, mnist, mnist-test, fashion-mnist, fashion-mnist-test"
BAD_TRAINING = [
    ("--out=", "'' is no path: name a file or a folder"),
    ("--resume=", "'' is no path: name a file or a folder"),
    ("--data=", f"--data must be a data set ({NAMED}) or a file (FILE.npy"),
    ("--device tpu", "--device must be one of 'auto', 'numpy', 'cpu', 'cuda'"),
    ("--device numpy --precision tf32", "--precision must be one of 'auto', 'ieee' on device 'numpy', not 'tf32'"),
    ("--data nothing.npy", f"--data must be a data set ({NAMED}) or a file (FILE.npy"),
    ("--data cifar", "not 'cifar'"),
    ("--data nan.npy", "--data must be finite"),
    ("--data complex.npy", "--data must be real numbers of shape [N, ...], not complex128"),
    ("--data one.npy", "--data must have at least 2 rows"),
    ("--data none.npy", "--data must have at least 2 rows"),
    ("--data narrow.npy", "--data must have at least one column"),
    ("--data number.npy", "--data must have shape"),
    ("--data junk.npy", "junk.npy"),
    ("--data junk", "junk: not IDX"),
    ("--data wide.npy --output tanh", "--data must lie in [-1, 1] for output='tanh'"),
    ("--out junk", "--out: junk is no folder"),
    ("--epochs -1", "--epochs must be an integer of at least 0, not -1"),
    ("--epochs 1.5", "'1.5' is not an integer"),
    ("--epochs", "--epochs"),
    ("--batch-size 0", "--batch-size must be an integer of at least 1, not 0"),
    ("--batch-size 65", "--batch-size must be at most the 64 rows"),
    ("--latent-dim 0", "--latent-dim must be"),
    ("--hidden 0", "--hidden[0] must be an integer of at least 1, not 0"),
    ("--hidden 12,x", "'12,x' is not a list of layer sizes such as 128 or 256,512"),
    ("--hidden-discriminator 4,-1", "--hidden-discriminator[1] must be"),
    ("--activation swish", "--activation must be one of 'linear', 'relu'"),
    ("--output softmax", "--output must be one of 'auto', 'tanh', 'sigmoid', 'linear'"),
    ("--loss wgan", "--loss must be one of 'non_saturating', 'minimax'"),
    ("--init zeros", "--init must be one of"),
    ("--optimizer adagrad", "--optimizer must be one of 'adam', 'adamw', 'sgd'"),
    ("--learning-rate 0", "--learning-rate must be a finite number in (0, inf), not 0"),
    ("--learning-rate -1", "--learning-rate must be"),
    ("--learning-rate nan", "--learning-rate must be"),
    ("--learning-rate fast", "'fast' is not a number"),
    ("--beta1 1", "--beta1 must be"),
    ("--beta2 -1", "--beta2 must be"),
    ("--eps 0", "--eps must be"),
    ("--momentum 1", "--momentum must be"),
    ("--weight-decay -1", "--weight-decay must be"),
    ("--weight-decay 0.1", "--weight-decay must be 0 with optimizer='adam'"),
    ("--seed -1", "--seed must be an integer from 0 to 4294967295, not -1"),
    ("--seed 4294967296", "--seed must be"),
    ("--preset best", "--preset must be one of 'article', 'quality'"),
    ("--sample-every -1", "--sample-every must be"),
    ("--threads x", "'x' is not an integer"),
    ("--threads 2 --device numpy", "--threads is for the device cpu, not for numpy"),
]


@pytest.fixture
def bad_files(here):
    rng = np.random.default_rng(0)
    np.save("nan.npy", np.full((64, 4), np.nan))
    np.save("complex.npy", rng.random((64, 4)) * 1j)
    np.save("one.npy", rng.random((1, 4)))
    np.save("none.npy", rng.random((0, 4)))
    np.save("narrow.npy", rng.random((64, 0)))
    np.save("number.npy", np.float64(3))
    np.save("wide.npy", 9 * rng.normal(size=(64, 4)))
    Path("junk.npy").write_bytes(b"no array")
    Path("junk").write_bytes(b"no array")
    return here


@pytest.mark.parametrize("command", ["train gan --out out", "train vae --out out", "reconstruct vae"])
def test_an_empty_name_of_data_is_no_data(runs, bad_files, command, capsys, monkeypatch):
    """As in --data "$UNSET": it must not stand for the default."""
    arguments = [str(runs / word) if word == "vae" and "reconstruct" in command else word for word in command.split()]
    where = dict(folder=bad_files, capsys=capsys, monkeypatch=monkeypatch)
    assert "--data must be a data set" in fails_here(*arguments, "--data", "", **where)


@pytest.mark.parametrize("arguments, message", BAD_TRAINING, ids=[arguments for arguments, _ in BAD_TRAINING])
def test_bad_options_of_a_training(bad_files, arguments, message, capsys, monkeypatch):
    train = ["train", "gan", "--data", "digits.npy", "--batch-size", "16", "--epochs", "1", "--out", "out"]
    assert message in fails_here(*train, *arguments.split(), folder=bad_files, capsys=capsys, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--likelihood poisson", "--likelihood must be one of 'bernoulli', 'gaussian'"),
        ("--variance 0", "--variance must be"),
        ("--beta -1", "--beta must be"),
        ("--data wide.npy", "--data must lie in [0, 1] for likelihood='bernoulli'"),
    ],
)
def test_bad_options_of_a_vae(bad_files, arguments, message, capsys, monkeypatch):
    train = ["train", "vae", "--data", "digits.npy", "--batch-size", "16", "--epochs", "1", "--out", "out"]
    assert message in fails_here(*train, *arguments.split(), folder=bad_files, capsys=capsys, monkeypatch=monkeypatch)


def test_an_error_is_one_line_for_the_shell_too(here):
    assert fails(*TRAIN_GAN, "--epochs", "x", folder=here) == "Invalid value for '--epochs': 'x' is not an integer"
    assert fails(*TRAIN_GAN, "--learning-rate", "0", folder=here).startswith("--learning-rate must be")


def test_an_unusable_device_is_a_failure_and_not_bad_use(here):
    if minigen.devices()["cuda"].usable:
        pytest.skip("the device cuda can be used here")
    assert fails(*TRAIN_GAN, "--device", "cuda", folder=here, code=1).startswith("device 'cuda' cannot be used here: ")


def test_data_that_cannot_be_had_are_an_error_with_the_ways_out(here):
    nowhere = {"HOME": str(here), "MINIGEN_CACHE": str(here / "cache"), "HTTPS_PROXY": "http://127.0.0.1:9"}
    unset = {"MINIGEN_DATA": "", "KERAS_HOME": str(here), "NO_PROXY": ""}
    done = minigen_command("train", "vae", "--data", "mnist", folder=here, **nowhere, **unset)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("minigen: error: mnist: ") and "Traceback" not in done.stderr
    assert "--data mnist-sample" in done.stderr
    assert not (here / "runs").exists()


def test_an_unwritable_folder_is_found_before_training(here):
    (here / "file").write_text("in the way")
    error = fails(*TRAIN_GAN, "--epochs", "1000000", "--out", "file/out", folder=here, code=1)
    assert error.startswith(f"--out: cannot write in file{os.sep}out: ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_found_before_training(here):
    (here / "locked").mkdir(mode=0o555)
    assert "Permission denied" in fails(*TRAIN_GAN, "--epochs", "1000000", "--out", "locked", folder=here, code=1)


def test_samples_that_cannot_be_written_are_an_error(runs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in fails("sample", runs / "gan", "--out", "file/g.png", folder=tmp_path, code=1)


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_traceback_is_shown_on_request(here, how):
    arguments = [*TRAIN_GAN, "--learning-rate", "0"]
    if how == "flag":
        done = minigen_command("--traceback", *arguments, folder=here)
    else:
        done = minigen_command(*arguments, folder=here, MINIGEN_TRACEBACK="1")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback") and done.stderr.splitlines()[-1].startswith("minigen: error: ")


def test_the_home_folder_by_its_sign(here, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (here / "digits.npy").rename(home / "digits.NPY")
    train = ["train", "gan", *TRAIN_GAN[4:], "--data=~/digits.NPY", "--out=~/run", "--epochs", "0", "--quiet"]
    done = minigen_command(*train, folder=here, HOME=str(home))
    assert done.returncode == 0, done
    done = minigen_command("sample", "~/run", "--out=~/run/new.npy", folder=here, HOME=str(home))
    assert done.returncode == 0 and (home / "run" / "new.npy").is_file(), done
    assert os.listdir(here) == []


def test_flat_rows_are_reconstructed_as_pictures(here):
    pictures = digits()[:, :6]
    minigen.VAE(epochs=0, hidden=4, latent_dim=2, batch_size=16).fit(pictures).save("model")
    np.save("flat.npy", pictures.reshape(64, 48))
    np.save("pictures.npy", pictures)
    for name in ("flat", "pictures"):
        succeeds("reconstruct", "model", "--data", f"{name}.npy", "--out", f"{name}.png", folder=here)
    assert Path("flat.png").read_bytes() == Path("pictures.png").read_bytes()
