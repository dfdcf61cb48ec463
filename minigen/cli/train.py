"""The commands ``minigen train gan`` and ``minigen train vae``; :mod:`.training` does their work."""

from __future__ import annotations

from typing import Any

from minigen.cli.application import Command, command, train_group
from minigen.cli.options import TrainingOptions


class TrainCommand(Command):
    """A training of the model that the function of the command returns. Its options are made when they are needed: to
    import a model takes a moment, which ``minigen --help`` has no use for."""

    def get_params(self, ctx: Any) -> Any:
        if not self.params:
            made = training_of(self.callback())  # type: ignore[misc]
            self.params, self.callback = made.params, made.callback
        return super().get_params(ctx)


def training_of(family: Any) -> Any:
    """The command that trains models of ``family``, with the options of every training and its hyper-parameters."""
    from minigen.cli.many import train_many
    from minigen.cli.settings import command_of
    from minigen.cli.training import train

    def act(family: Any, options: TrainingOptions, settings: dict[str, Any]) -> None:
        several = options.seeds is not None or options.grid
        (train_many if several else train)(family, options, settings)

    return command_of(family, TrainingOptions, act)


@command(train_group, TrainCommand)
def gan() -> Any:
    """Train a generative adversarial network.

    Writes into DIR: model.safetensors, report.html (a page on the run, refreshed on the way), history.csv, losses.png,
    samples.png, and on the way samples-epoch-0010.png and so on, from the same noise each time. Data that are no
    pictures give .csv or .npy files instead. Ctrl-C ends the training and keeps what was learnt.

    The losses tell which player is ahead, not how good the samples are: 1.39 for the discriminator and 0.69 for the
    generator is where it cannot tell real from generated.

    Examples:

      minigen train gan --preset quality

      minigen train gan --preset quality --data mnist --epochs 25 --out runs/digits

      minigen train gan --data table.csv

      minigen train gan --resume runs/gan --epochs 50

      minigen train gan --seeds 0-9 --grid learning_rate=1e-4,2e-4

    The first draws digits that can be read, in about four minutes of one core's time (AVX2); the second takes about 12,
    and with all the preset's 120 epochs about an hour. The last trains twenty models into folders of their own in
    runs/gan-many, beside a table, runs.csv, and samples and losses of all.
    """
    from minigen import GAN

    return GAN


@command(train_group, TrainCommand)
def vae() -> Any:
    """Train a variational autoencoder.

    Writes into DIR: model.safetensors, report.html (a page on the run, refreshed on the way), history.csv, losses.png,
    samples.png, reconstructions.png (originals beside their reconstructions), and on the way samples-epoch-0001.png and
    so on, from the same noise each time. Data that are no pictures give .csv or .npy files instead. Ctrl-C ends the
    training and keeps what was learnt.

    Examples:

      minigen train vae --preset quality

      minigen train vae --data table.csv --likelihood gaussian --latent-dim 3 --hidden 64,32

      minigen train vae --resume runs/vae --epochs 5
    """
    from minigen import VAE

    return VAE
