"""What a trace shows: text, graph, table, gradient flow, findings, and the command minigen trace."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen import cli
from minigen.tracing import graph
from minigen.tracing.explain import of_last
from minigen.tracing.run import gradient_flow
from minigen.training.checkpoint import MODEL

ROOT = Path(minigen.__file__).resolve().parent.parent
SMALL = {"latent_dim": 3, "hidden": (4,), "device": "numpy", "batch_size": 8}


@pytest.fixture
def X(rng) -> np.ndarray:
    return rng.standard_normal((24, 5)).astype(np.float32)


@pytest.fixture
def trace(X) -> Any:
    return minigen.trace(minigen.GAN(**SMALL, r1=1.0, clip_norm=0.01), X, steps=2)


def built(model: Any, X: np.ndarray, **weights: float | np.ndarray) -> Any:
    """``model`` with its first weights, of which these, ``generator_0_W=...``, are replaced."""
    model.partial_fit(X, epochs=0, progress=False)
    for net in model.networks_:
        state = net.state()
        for key, value in weights.items():
            if (name := key.replace("_", ".")) in state:
                state[name] = np.broadcast_to(np.asarray(value, np.float32), state[name].shape)
        net.load_state(state)
    model._state = {**model._state, **{f"{net.name}.params": np.array(net.params) for net in model.networks_}}
    return model


def found(trace: Any, subject: str) -> list[Any]:
    return [finding for finding in trace.explain() if finding.subject == subject]


# --- text, table, graph -----------------------------------------------------------------------------------


def test_text_has_every_call(trace):
    text = str(trace)
    for record in trace:
        assert f"{record.number:4}  {record.formula}\n" in text and f"{record.file}:{record.line}" in text
        for name, size in record.norms.items():
            if record.outputs[name].size > 1:
                assert f"{list(record.outputs[name].shape)} |{size:.4g}|" in text
    assert text.count("step 1, generate: Noise and fakes") == text.count("step 2, generate: Noise and fakes") == 1
    assert "generator 0" in repr(trace) and f"{len(trace)} operations" in repr(trace)


def test_values_are_the_numbers(X):
    trace = minigen.trace(minigen.VAE(**{**SMALL, "hidden": (2,), "latent_dim": 1}, likelihood="gaussian"), X)
    text = trace.text(values=True)
    update = trace.find("adam", layer="decoder")[0]
    shown = text[text.index("p = decoder.params, of each parameter:") :]
    (row,) = re.findall(r"decoder\.0\.W \[1, 2\]: \[\[ *(\S+?) +(\S+?) *\]\]", shown)[:1]
    np.testing.assert_allclose([float(x) for x in row], update.inputs["p"][:2], atol=1e-4)
    z = trace.find("latent_forward")[0].outputs["z"]
    first = re.search(r"-> z \[8, 1\]: \[\[ *(\S+?) *\]", text)
    assert first is not None and float(first[1]) == pytest.approx(z[0, 0], abs=1e-4)


class Balanced(HTMLParser):
    """Counts rows and cells, and notices a tag that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_notebook_shows_a_table(trace):
    page = Balanced()
    page.feed(trace._repr_html_())
    assert page.open == [] and page.seen["td"] == 6 * len(trace)
    assert "sum over rows of dz" in trace._repr_html_() and "generator.0.W [3,&nbsp;4]" in trace._repr_html_()


def test_graph_has_an_edge_for_all_that_is_read_from_another(trace):
    """Byte by byte: who wrote it last."""
    records = trace.find(step=1)
    owner: dict[int, int] = {}
    expected = set()
    for record in records:
        for name in record.inputs:
            expected |= {(owner[byte], record.number) for byte in range(*record.spans[name]) if byte in owner}
        for name in record.outputs:
            owner.update(dict.fromkeys(range(*record.spans[name]), record.number))
    assert {(writer.number, reader.number) for writer, reader, _ in graph.edges(records)} == expected
    text = trace.mermaid()
    nodes = re.findall(r'^    (op\d+)\["([^"]*)"\]$', text, re.M)
    assert [name for name, _ in nodes] == [f"op{record.number}" for record in records]
    assert set(re.findall(r'^  (op\d+) -->\|"[^"]*"\| (op\d+)$', text, re.M)) == {
        (f"op{a}", f"op{b}") for a, b in expected
    }
    lines = len(records) + len(expected)
    assert len(text.splitlines()) == 1 + lines + 3 * text.count("subgraph")  # and nothing else


# --- gradient flow ----------------------------------------------------------------------------------------


def test_flow_is_that_of_the_gradients(trace, tmp_path):
    flow = trace.flow()
    for row in flow.rows():
        net = str(row["layer"]).partition(".")[0]
        step = int(row["step"]) - 1
        clip = trace.find("clip_norm", layer=net, step=step)[0]
        update = trace.find("adam", layer=net, step=step)[0]
        named = next(n for n in trace.model.networks_ if n.name == net).named
        sizes = {
            "gradient": clip.inputs["g"],  # from before it was clipped
            "weights": update.inputs["p"],
            "update": update.outputs["p"] - update.inputs["p"],
        }
        for column, flat in sizes.items():
            parts = [part.ravel() for layer, part in named(flat) if layer == row["layer"]]
            assert row[column] == pytest.approx(np.linalg.norm(np.concatenate(parts).astype(float)), rel=1e-6)
        assert np.linalg.norm(update.inputs["g"]) <= 0.01 * (1 + 1e-5)
    flow.to_csv(tmp_path / "flow.csv")
    with open(tmp_path / "flow.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["step"], row["layer"]) for row in table[:5]] == [
        *(("1", f"{net}.{i}") for net in ("generator", "discriminator") for i in (0, 1)),
        ("2", "generator.0"),
    ]
    assert float(table[3]["gradient"]) == pytest.approx(float(flow.rows()[3]["gradient"]), rel=1e-5)
    assert table[0]["saturated"] == ""  # a leaky rectifier is never flat


def test_flow_without_records_is_the_same(X):
    model = minigen.VAE(**SMALL, likelihood="gaussian")
    kept, streamed = minigen.trace(model, X, steps=3).flow().rows(), gradient_flow(model, X, steps=3).rows()
    for one, other in zip(kept, streamed, strict=True):
        np.testing.assert_equal(one, other)


@pytest.mark.parametrize("steps", [1, 3])
def test_picture_of_the_flow(X, steps):
    pytest.importorskip("matplotlib")
    flow = gradient_flow(minigen.GAN(**SMALL), X, steps=steps)
    (left, right) = flow.plot().figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["generator", "discriminator"]
    drawn = np.array([line.get_ydata() for line in left.lines])
    sizes = [row["gradient"] for row in flow.rows() if str(row["layer"]).startswith("generator")]
    np.testing.assert_allclose(drawn.ravel(), np.array(sizes).reshape(steps, 2).T.ravel() if steps > 1 else sizes)


# --- findings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sign", "verdict"),
    [(1, "discriminator has won"), (0.5, "discriminator is winning"), (-1, "generator is ahead"), (0, "cannot tell")],
)
def test_which_player_is_winning(rng, sign, verdict):
    """A linear discriminator between data at 5 and a generator at 0."""
    X = (5 + 0.1 * rng.standard_normal((32, 2))).astype(np.float32)
    weights = {"generator_0_W": 0.01, "discriminator_0_W": sign, "discriminator_0_b": -5 * sign}
    trace = minigen.trace(built(minigen.GAN(**{**SMALL, "hidden": ()}, standardize=False), X, **weights), X)
    (finding,) = found(trace, "players")
    logits = trace.find("gan_loss_discriminator")[0].inputs["logits"][:, 0].astype(float)
    probabilities = 1 / (1 + np.exp(-logits))
    assert verdict in str(finding)
    assert finding.figures["real"] == pytest.approx(probabilities[:8].mean())
    assert finding.figures["generated"] == pytest.approx(probabilities[8:].mean())
    assert f"{finding.figures['real']:.3f}" in str(finding) and "1.3863" in str(finding)


def test_a_discriminator_that_is_surely_wrong_of_a_few(rng):
    """A linear one with logits of 75 for data at 5 and -75 at 0; one real row lies at -5."""
    X = (5 + 0.1 * rng.standard_normal((8, 2))).astype(np.float32)
    X[0] -= 10
    weights = {"generator_0_W": 0.01, "discriminator_0_W": 15, "discriminator_0_b": -75}
    trace = minigen.trace(built(minigen.GAN(**{**SMALL, "hidden": ()}, standardize=False), X, **weights), X)
    (finding,) = found(trace, "players")
    assert "is winning" in str(finding) and "certain, and wrong" in str(finding)
    assert finding.figures["real"] == pytest.approx(7 / 8) and finding.figures["loss"] > 20


@pytest.mark.parametrize(
    ("loss", "text"), [("hinge", "on their side of 0"), ("least_squares", "0.5"), ("wasserstein", "difference of")]
)
def test_players_of_other_games(X, loss, text):
    (finding,) = found(minigen.trace(minigen.GAN(**SMALL, loss=loss), X), "players")
    assert text in str(finding) and {"real", "generated"} <= set(finding.figures)


def test_a_saturated_loss_is_named(rng):
    X = (5 + 0.1 * rng.standard_normal((32, 2))).astype(np.float32)
    weights = {"generator_0_W": 0.01, "discriminator_0_W": 1, "discriminator_0_b": -5}
    for loss, slope in (("minimax", 1 / (1 + np.exp(5))), ("non_saturating", 1 / (1 + np.exp(-5)))):
        model = minigen.GAN(**{**SMALL, "hidden": ()}, loss=loss, standardize=False, learning_rate=1e-9)
        (finding,) = found(minigen.trace(built(model, X, **weights), X), "generator's signal")
        assert finding.figures["slope"] == pytest.approx(slope, rel=0.1)
        assert ("is saturated" in str(finding)) == (loss == "minimax")


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "vanishes"), (1000.0, "explodes"), (4.0, "keeps its size")])
def test_gradients_that_vanish_or_explode(rng, scale, verdict):
    """Six layers of one sigmoid unit at z = 0, where its slope is 1/4: each weight w is a factor of w / 4."""
    X = rng.standard_normal((8, 1)).astype(np.float32)
    model = minigen.GAN(**{**SMALL, "hidden": (1,) * 6, "hidden_discriminator": (3,)}, activation="sigmoid")
    weights = {f"generator_{i}_W": scale for i in range(1, 7)}
    weights |= {f"generator_{i}_b": -scale / 2 for i in range(1, 7)}
    trace = minigen.trace(built(model, X, generator_0_W=0, **weights), X)
    (finding,) = (finding for finding in found(trace, "gradients") if str(finding).startswith("generator"))
    assert finding.figures["ratio"] == pytest.approx((scale / 4) ** 6, rel=1e-3)
    assert verdict in str(finding)


def test_dead_units_are_counted(X):
    """Of four units two are flat in all rows, one in those where the first column is negative."""
    X[:3, 0] = -5, 5, -5
    W = np.zeros((5, 4), np.float32)
    W[0, 1] = 1
    model = minigen.VAE(**{**SMALL, "batch_size": 24}, activation="relu", likelihood="gaussian", standardize=False)
    model = built(model, X, encoder_0_W=W, encoder_0_b=[-99, 0, -99, 99])
    (finding,) = (finding for finding in found(minigen.trace(model, X), "units") if "encoder" in str(finding))
    assert "2 of 4 units" in str(finding) and "learn nothing" in str(finding)
    share = (2 + float((X[:, 0] < 0).mean())) / 4
    assert finding.figures == {"saturated": pytest.approx(share), "dead": 2, "units": 4}


def test_units_of_self_gated_activations(X):
    model = built(minigen.VAE(**SMALL, activation="silu", likelihood="gaussian"), X, encoder_0_b=[-99, 99, -99, -99])
    (finding,) = (finding for finding in found(minigen.trace(model, X), "units") if "encoder" in str(finding))
    assert finding.figures["dead"] == 3


def test_latents_in_use(X):
    model = minigen.VAE(**SMALL, likelihood="gaussian")
    weights = {"encoder_1_W": 0, "encoder_1_b": [0, 2, 0, 0, 0, 0]}
    (finding,) = found(minigen.trace(built(model, X, **weights), X), "latents")
    assert finding.figures["active"] == 1 and finding.figures["kl"] == pytest.approx(2)  # mu^2 / 2
    assert "1 of 3 latents" in str(finding)
    (finding,) = found(minigen.trace(built(model, X, encoder_1_W=0, encoder_1_b=0), X), "latents")
    assert "collapsed" in str(finding)


def test_updates_by_layer(X):
    slow, fast = (minigen.trace(minigen.VAE(**SMALL, likelihood="gaussian", learning_rate=r), X) for r in (1e-12, 1.0))
    assert "does not learn" in " ".join(map(str, found(slow, "updates")))
    assert "learning rate is high" in " ".join(map(str, found(fast, "updates")))


def test_weights_that_grow_are_named(X):
    """After some steps at a high rate an update is a small part of the weights again."""
    fast = gradient_flow(minigen.GAN(**SMALL, learning_rate=0.5), X, steps=40)
    grown = {str(f): f.figures["grown"] for f in of_last(fast.steps) if "grown" in f.figures}
    assert grown and all(f"{part:.3g}-fold in 40 steps" in text for text, part in grown.items())
    slow = gradient_flow(minigen.GAN(**SMALL), X, steps=40)
    assert not any("grown" in f.figures for f in of_last(slow.steps)) and of_last([]) == []


def test_log_variances_at_zero_are_no_weights(X):
    trace = minigen.trace(minigen.VAE(**SMALL, likelihood="gaussian", variance="learned"), X, steps=2)
    assert "learning rate is high" not in " ".join(map(str, trace.explain()))
    assert "noise" not in " ".join(map(str, found(trace, "updates")))


def test_where_a_nan_begins(X):
    trace = minigen.trace(built(minigen.GAN(**SMALL), X, generator_1_b=np.nan), X)
    (finding,) = found(trace, "numbers")
    assert trace[int(finding.figures["number"])].layer == "generator.1" and "generator.1" in str(finding)


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> str:
        assert cli.run(["trace", *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_command_on_tiny_networks(command, kind):
    shown = command(kind, "--tiny", "--values")
    assert "y = " in shown and f"{'generator' if kind == 'gan' else 'decoder'}.0.W" in shown
    assert " W = " + ("generator.0.W [2, 3]" if kind == "gan" else "encoder.0.W [2, 3]") in shown
    smallest = command(kind, "--tiny", "--hidden", "1")
    assert "[1, 1]" in smallest and "[2, 3]" not in smallest
    assert re.search(r"^(generator|loss): -?\d", smallest, re.M)
    assert "keeps its size" in shown


def test_readme_shows_what_it_prints(command):
    section = (ROOT / "README.md").read_text().partition("## Watch a step")[2]
    shown = section.partition("```text\n")[2].partition("```")[0].splitlines()
    (arguments,) = re.findall(r"`minigen trace (gan --tiny .*?)`", section)
    printed = iter(re.sub(r"\.py:\d+", ".py", line) for line in command(*arguments.split()).splitlines())
    assert len(shown) > 10 and all(line in printed for line in shown if line != "...")  # in this order


def test_command_draws_a_graph_and_nothing_else(command):
    graph = command("gan", "--tiny", "--mermaid", "--r1", "1")
    assert graph.startswith("flowchart TD\n") and "gradient_penalty" in graph and "winning" not in graph


def test_command_writes_the_flow(command, tmp_path):
    np.save("x.npy", np.random.default_rng(0).random((40, 6), np.float32))
    shown = command(
        "vae", "--data", "x.npy", "--batch-size", "8", "--hidden", "5,4", "--csv", "flow.csv", "--steps", "3"
    )
    table = list(csv.DictReader((tmp_path / "flow.csv").read_text().splitlines()))
    assert len(table) == 3 * 6 and "flow.csv" in shown and "latents" in shown and "dense_forward" not in shown
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_command_goes_on_with_a_trained_model(command, tmp_path):
    np.save("x.npy", np.random.default_rng(0).random((40, 6), np.float32))
    model = minigen.GAN(**{**SMALL, "device": "cpu"}, epochs=1).fit(np.load("x.npy"), progress=False)
    model.source_ = "x.npy"
    model.save(MODEL)
    assert "step 6, generate" in command("gan", "--model", MODEL)  # 40 / 8 are done
    assert "MODEL must be a vae" in command("vae", "--model", MODEL, code=2)
    assert "--hidden cannot be given with --model" in command("gan", "--model", MODEL, "--hidden", "3", code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps must be"),
        (("--csv", "flow.txt"), "ending of csv"),
        (("--csv", "flow.csv", "--mermaid"), "without --mermaid"),
        (("--tiny", "--data", "x.npy"), "--tiny cannot be given with --data"),
        (("--tiny", "--hidden", "0"), "--hidden"),
    ],
)
def test_command_refuses(command, arguments, message):
    assert message in command("gan", *arguments, code=2)
