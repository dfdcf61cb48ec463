"""A GAN's head, D's last layer with the loss and all gradients: one call on the CPU backend, which reads x once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.bench_gan_loss import sigmoid
from bench.conftest import normal

SHAPES = [(128, 128), (128, 1024), (4096, 128)]  # real rows, inputs


@pytest.mark.parametrize(("batch", "n_in"), SHAPES)
def test_discriminator(library: Any, measure: Any, batch: int, n_in: int) -> None:
    """x, W, b; logits, loss, dlogits, dW, db, dx behind a ReLU. At least x is read and dx written."""
    B = 2 * batch
    x, W, b = (library.array(normal(*size)) for size in ((B, n_in), (n_in, 1), (1,)))
    volume = {"bytes": 8 * B * n_in}
    if library.kind == "minigen":
        ops = library.ops
        logits, dlogits, loss, dW, db, dx = (
            library.array(normal(*size)) for size in ((B, 1), (B, 1), (1,), (n_in, 1), (1,), (B, n_in))
        )

        def head() -> None:
            ops.dense_forward(x, W, b, logits)
            ops.gan_loss_discriminator(logits, batch, dlogits, loss)
            ops.dense_wgrad(x, dlogits, dW, db)
            ops.dense_dgrad(dlogits, W, dx, x, "relu")

        measure(head, **volume)
    elif library.kind == "arrays":
        xp = library.xp
        targets = library.array(np.repeat(np.array([[1], [0]], np.float32), batch, axis=0))

        def formula() -> Any:
            s = x @ W + b
            loss = xp.logaddexp(0, -s[:batch]).mean() + xp.logaddexp(0, s[batch:]).mean()
            ds = (sigmoid(xp, s) - targets) / batch
            return loss, x.T @ ds, ds.sum(0), (ds @ W.T) * (x > 0)

        measure(formula, **volume)
    else:
        torch = library.torch
        softplus, parameters = torch.nn.functional.softplus, [t.requires_grad_() for t in (x, W, b)]

        def loss_and_gradients() -> Any:
            s = torch.addmm(b, torch.relu(x), W)
            return torch.autograd.grad(softplus(-s[:batch]).mean() + softplus(s[batch:]).mean(), parameters)

        measure(loss_and_gradients, **volume)
