# %% [markdown]
# # One training step of a variational autoencoder, by hand
#
# The encoder says which latents a picture may come from, the decoder says which pictures a latent may give. This is one
# training step of both in plain NumPy, in the order in which each number is needed. Every number is held against the
# one that minigen computed in a step of its own, which `minigen.trace` gives call by call: a formula that were wrong
# would stop this script.
#
# Run it with `python examples/vae_step.py`, or read it as a notebook: many editors take `# %%` for the beginning of a
# cell, and `jupytext --to ipynb examples/vae_step.py` makes a notebook file of it.

# %%
import numpy as np

import minigen

digits = minigen.datasets.mnist_sample()
model = minigen.VAE(latent_dim=8, hidden=(16,), batch_size=8, epochs=1, seed=7, device="numpy")
calls = iter(minigen.trace(model, digits[:8]))


def next_call(operation):
    """The next call of minigen's step, which must be of this operation."""
    call = next(calls)
    assert call.operation == operation, f"the step goes on with {call.operation}, not with {operation}"
    return call


def same(call, **mine):
    """Stop unless the call wrote these values, of the names that its buffers have."""
    for name, value in mine.items():
        theirs = np.float64(call.outputs[name])
        np.testing.assert_allclose(value, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max(), err_msg=name)
        print(f"{call.operation:>15} {name:<8} {np.shape(value)!s:<10} norm {np.linalg.norm(value):.6g}: the same")


def parameters(call):
    """The weights and the bias of a dense layer, as they are when it is called."""
    return np.float64(call.inputs["W"]), np.float64(call.inputs["b"])


# %% [markdown]
# ## The encoder
#
# Rows of the data, $x$ in $[0, 1]$, and noise $\varepsilon \sim N(0, I)$ are taken from minigen's step, and so are the
# first weights. All else is computed here, in float64. The encoder's last layer gives two numbers for each of the
# $L = 8$ latents, the mean $\mu$ and the logarithm of the variance, of $q(z \mid x) = N(\mu, \sigma^2)$:
#
# $$h = \max(x W_1 + b_1, 0), \qquad [\mu \mid \log\sigma^2] = h W_2 + b_2.$$

# %%
order = next_call("batch_indices").outputs["indices"]
x = np.float64(digits[order].reshape(8, -1)) / 255
B = len(x)
same(next_call("batch_gather"), out=x)
eps = np.float64(next_call("random_normal").outputs["out"])  # [B, L]
L = eps.shape[1]

call = next_call("dense_forward")
W1, b1 = parameters(call)
h = np.maximum(x @ W1 + b1, 0)
same(call, y=h)

call = next_call("dense_forward")
W2, b2 = parameters(call)
heads = h @ W2 + b2
same(call, y=heads)
mu, logvar = heads[:, :L], heads[:, L:]

# %% [markdown]
# ## A latent, drawn so that a gradient can pass
#
# $z = \mu + \sigma \varepsilon$ is a draw from $q$, and a function of $\mu$ and $\sigma$ that has derivatives: the
# chance is all in $\varepsilon$ (Kingma and Welling 2014). The divergence of $q$ from the prior $N(0, I)$ is for each
# row
#
# $$\text{KL} = \tfrac12 \sum_j \left( \mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2 \right),$$
#
# is never negative, and 0 only for $\mu = 0$, $\sigma = 1$.

# %%
sigma = np.exp(logvar / 2)
z = mu + sigma * eps
kl = (mu**2 + sigma**2 - 1 - logvar).sum(axis=1) / 2
same(next_call("latent_forward"), z=z, rows=kl, loss=[kl.mean()])
assert (kl >= 0).all()

# %% [markdown]
# ## The decoder, and what its picture costs
#
# The decoder's last layer gives a logit $l$ for each pixel, with $p = 1 / (1 + e^{-l})$ the pixel's brightness. What
# a row costs is $-\log p(x \mid z)$, the cross entropy
#
# $$-\sum_d \left( x_d \log p_d + (1 - x_d) \log(1 - p_d) \right) = \sum_d \left( \log(1 + e^{l_d}) - x_d l_d \right),$$
#
# whose derivative by $l_d$ is $p_d - x_d$. The loss is a mean over the rows: hence the $1/B$.

# %%
call = next_call("dense_forward")
W3, b3 = parameters(call)
g = np.maximum(z @ W3 + b3, 0)
same(call, y=g)

call = next_call("dense_forward")
W4, b4 = parameters(call)
l = g @ W4 + b4  # noqa: E741
same(call, y=l)

nats = (np.log1p(np.exp(l)) - x * l).sum(axis=1)
dl = (1 / (1 + np.exp(-l)) - x) / B
same(next_call("vae_loss"), rows=nats, loss=[nats.mean()], doutput=dl)
print(f"loss {nats.mean() + kl.mean():.2f} nats: reconstruction {nats.mean():.2f}, KL {kl.mean():.3f}")

# %% [markdown]
# ## Back through the decoder
#
# For $l = g W_4 + b_4$ the chain rule gives $dW_4 = g^\top dl$, $db_4 = \sum_\text{rows} dl$ and
# $dg = dl\, W_4^\top$. The rectifier lets pass what belongs to a positive $g$. At the end $dz$ says how the latents
# would have to change.

# %%
dW4, db4 = g.T @ dl, dl.sum(axis=0)
same(next_call("dense_wgrad"), dW=dW4, db=db4)

dg = dl @ W4.T * (g > 0)
same(next_call("dense_dgrad"), dx=dg)

dW3, db3 = z.T @ dg, dg.sum(axis=0)
same(next_call("dense_wgrad"), dW=dW3, db=db3)

dz = dg @ W3.T
same(next_call("dense_dgrad"), dx=dz)

# %% [markdown]
# ## Through the draw, where the KL joins
#
# $z = \mu + e^{\log\sigma^2 / 2} \varepsilon$ has the derivatives $\partial z / \partial \mu = 1$ and
# $\partial z / \partial \log\sigma^2 = \sigma \varepsilon / 2$. The KL's own are $\mu$ and $(\sigma^2 - 1) / 2$: they
# pull towards the prior, where the decoder pulls towards a latent that it can use.

# %%
dmu = dz + mu / B
dlogvar = dz * sigma * eps / 2 + (sigma**2 - 1) / 2 / B
dheads = np.concatenate([dmu, dlogvar], axis=1)
same(next_call("latent_backward"), dheads=dheads)

# %% [markdown]
# ## Back through the encoder, and Adam
#
# The gradient of the data is not needed, so the encoder's first layer only has that of its weights. Then both networks
# take a step of Adam (Kingma and Ba 2015). minigen keeps all parameters of a network in one vector.

# %%
dW2, db2 = h.T @ dheads, dheads.sum(axis=0)
same(next_call("dense_wgrad"), dW=dW2, db=db2)

dh = dheads @ W2.T * (h > 0)
same(next_call("dense_dgrad"), dx=dh)

dW1, db1 = x.T @ dh, dh.sum(axis=0)
same(next_call("dense_wgrad"), dW=dW1, db=db1)


def adam(arrays, gradients, t=1, rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    """The new parameters, from means that start at 0."""
    p, gradient = (np.concatenate([array.ravel() for array in part]) for part in (arrays, gradients))
    m, v = (1 - beta1) * gradient, (1 - beta2) * gradient**2
    return p - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


for arrays, gradients in (((W1, b1, W2, b2), (dW1, db1, dW2, db2)), ((W3, b3, W4, b4), (dW3, db3, dW4, db4))):
    p = adam(arrays, gradients)
    np.testing.assert_allclose(p, next_call("adam").outputs["p"][: len(p)], rtol=1e-4, atol=1e-6)
assert next_call("advance") and next(calls, None) is None  # it counts the step, and that was all

# %% [markdown]
# ## Without minigen
#
# The same gradient without any rule: move one of the encoder's weights a little to each side, with the same
# $\varepsilon$, and see what the loss does.


# %%
def loss_of(W2):
    heads = h @ W2 + b2
    mu, logvar = heads[:, :L], heads[:, L:]
    l = np.maximum((mu + np.exp(logvar / 2) * eps) @ W3 + b3, 0) @ W4 + b4  # noqa: E741
    kl = (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1) / 2
    return ((np.log1p(np.exp(l)) - x * l).sum(axis=1) + kl).mean()


little = np.zeros_like(W2)
little[3, L + 1] = 1e-5
slope = (loss_of(W2 + little) - loss_of(W2 - little)) / 2e-5
print(f"dL/dW2[3, {L + 1}]: {dW2[3, L + 1]:.9f} by the chain rule, {slope:.9f} by the difference")
np.testing.assert_allclose(dW2[3, L + 1], slope, rtol=1e-5)
