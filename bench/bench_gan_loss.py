"""GAN losses with the gradient of the logits: 4 bytes read and 4 written a logit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

BATCHES = [128, 4096, 65536]


def sigmoid(xp: Any, x: Any) -> Any:
    return 1 / (1 + xp.exp(-x))


@pytest.mark.parametrize("batch", BATCHES)
def test_discriminator(library: Any, measure: Any, batch: int) -> None:
    host = normal(2 * batch, 1)
    logits = library.array(host)
    if library.kind == "minigen":
        dlogits, loss = library.array(host), library.array(np.zeros(1, np.float32))
        measure(lambda: library.ops.gan_loss_discriminator(logits, batch, dlogits, loss), bytes=8 * host.size)
    elif library.kind == "arrays":
        xp = library.xp
        targets = library.array(np.repeat(np.array([[1], [0]], np.float32), batch, axis=0))

        def formula() -> Any:
            loss = xp.logaddexp(0, -logits[:batch]).mean() + xp.logaddexp(0, logits[batch:]).mean()
            return loss, (sigmoid(xp, logits) - targets) / batch

        measure(formula, bytes=8 * host.size)
    else:
        softplus, logits = library.torch.nn.functional.softplus, logits.requires_grad_()

        def loss_and_gradient() -> Any:
            loss = softplus(-logits[:batch]).mean() + softplus(logits[batch:]).mean()
            return library.torch.autograd.grad(loss, logits)

        measure(loss_and_gradient, bytes=8 * host.size)


@pytest.mark.parametrize("batch", BATCHES)
def test_generator(library: Any, measure: Any, batch: int) -> None:
    host = normal(batch, 1)
    logits = library.array(host)
    if library.kind == "minigen":
        dlogits, loss = library.array(host), library.array(np.zeros(1, np.float32))
        measure(lambda: library.ops.gan_loss_generator(logits, dlogits, loss), bytes=8 * host.size)
    elif library.kind == "arrays":
        xp = library.xp
        measure(lambda: (xp.logaddexp(0, -logits).mean(), (sigmoid(xp, logits) - 1) / batch), bytes=8 * host.size)
    else:
        softplus, logits = library.torch.nn.functional.softplus, logits.requires_grad_()
        measure(lambda: library.torch.autograd.grad(softplus(-logits).mean(), logits), bytes=8 * host.size)
