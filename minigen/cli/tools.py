"""Commands about the machine and the gradients: ``devices``, ``gradcheck``, ``explain`` and ``tune``."""

from __future__ import annotations

from typing import Annotated

import typer

from minigen.cli.application import app, command
from minigen.cli.exits import FAILED
from minigen.cli.options import RUN, option


@command(app)
def devices() -> None:
    """List the devices, whether each can be used here, and if not, why and what to install."""
    from minigen.device import devices, get_backend

    for state in devices().values():
        print(f"{state.name:5}  {'usable' if state.usable else 'not usable'}: {state.detail}")
    print(f"auto is {get_backend('auto').name}")


@command(app)
def gradcheck(
    device: Annotated[
        str | None, option(RUN, "NAME", "Check this device. Default: every one that can be used here.", "--device")
    ] = None,
    seed: Annotated[int | None, option(RUN, "INT", "Of the random points. Default: a fresh one.")] = None,
) -> None:
    """Compare the gradients derived by hand with finite differences, and each device with the reference.

    Each operation, and whole steps of the GAN and the VAE, at random points; the error is relative. The exit code is 1
    if any check fails.
    """
    import secrets

    from minigen import checks
    from minigen.device import devices, get_backend
    from minigen.gradcheck import run

    names = [state.name for state in devices().values() if state.usable] if device is None else [device]
    seed = secrets.randbits(32) if seed is None else checks.seed("seed", seed)
    rows = run([get_backend(name) for name in names], seed)
    widths = [max(len(getattr(row, name)) for row in rows) for name in ("operation", "device", "check")]
    line = "{{:{}}}  {{:{}}}  {{:{}}}  {{:>8}}  {{:>8}}  {{}}".format(*widths).format
    print(line("operation", "device", "check", "error", "allowed", "result"))
    for row in rows:
        result = "pass" if row.passed else "FAIL"
        print(line(row.operation, row.device, row.check, f"{row.error:.1e}", f"{row.tolerance:.0e}", result))
    failed = sum(not row.passed for row in rows)
    for formula in dict.fromkeys(row.formula for row in rows if row.formula and not row.passed):
        print(f"wrong: {formula}")
    print(f"{len(rows)} checks, {failed} failed; repeat with --seed {seed}")
    if failed:
        raise typer.Exit(FAILED)


CudaPrecision = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Of matrix products: ieee, tf32x3, bf16x6, bf16x3, tf32 or bf16.", rich_help_panel=RUN
    ),
]
CudaDevice = Annotated[str, typer.Option(metavar="NAME", help="cuda or cuda:1.", rich_help_panel=RUN)]


@command(app)
def explain(
    model: Annotated[str, typer.Argument(metavar="gan|vae", help="Whose default training step.")],
    device: CudaDevice = "cuda",
    precision: CudaPrecision = "tf32x3",
) -> None:
    """List the launches of one training step on a GPU: what each fuses, FLOPs, bytes, the least time they take.

    Where there is no GPU, the plan for an H100 is shown, without times.
    """
    from minigen.cuda.tools.explain import explain

    print(explain(model, device=device, precision=precision))


@command(app)
def tune(device: CudaDevice = "cuda", precision: CudaPrecision = "tf32x3") -> None:
    """Measure the tiles of the GPU's matrix kernels on this card, and keep the best for later runs."""
    from minigen.cuda.tools.tune import tune

    print(f"tiles kept in {tune(device, precision)}")
