# %% [markdown]
# # One training step of a GAN, by hand
#
# Two networks with one hidden layer each: the generator makes pictures out of noise, the discriminator tells them from
# real ones. This is one training step of both in plain NumPy, in the order in which each number is needed. Every
# number is held against the one that minigen computed in a step of its own, which `minigen.trace` gives call by call:
# a formula that were wrong would stop this script.
#
# Run it with `python examples/gan_step.py`, or read it as a notebook: many editors take `# %%` for the beginning of a
# cell, and `jupytext --to ipynb examples/gan_step.py` makes a notebook file of it.

# %%
import numpy as np

import minigen

digits = minigen.datasets.mnist_sample()
model = minigen.GAN(latent_dim=4, hidden=(16,), batch_size=8, epochs=1, seed=7, device="numpy")
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
        print(f"{call.operation:>14} {name:<8} {np.shape(value)!s:<10} norm {np.linalg.norm(value):.6g}: the same")


def parameters(call):
    """The weights and the bias of a dense layer, as they are when it is called."""
    return np.float64(call.inputs["W"]), np.float64(call.inputs["b"])


# %% [markdown]
# ## Noise, and pictures made of it
#
# There are $B = 8$ real rows in a batch. The generator makes $2B$ pictures at once: the first $B$ are for the
# discriminator to learn from, the others for the generator itself. With $\text{leaky}(a) = a$ for $a > 0$ and $0.2\,a$
# below,
#
# $$h = \text{leaky}(z W_1 + b_1), \qquad g = \tanh(h W_2 + b_2).$$
#
# Noise, real rows and the first weights are taken from minigen's step. All else is computed here, in float64.


# %%
def leaky(a):
    return np.where(a > 0, a, 0.2 * a)


z = np.float64(next_call("random_normal").outputs["out"])  # [2B, 4]
B = len(z) // 2

call = next_call("dense_forward")
W1, b1 = parameters(call)
h = leaky(z @ W1 + b1)
same(call, y=h)

call = next_call("dense_forward")
W2, b2 = parameters(call)
g = np.tanh(h @ W2 + b2)  # [2B, 784], between -1 and 1
same(call, y=g)

# %% [markdown]
# ## What the discriminator says of real and generated rows
#
# The real pixels, 0 to 255, are brought to the generator's range. Real and generated rows go through the discriminator
# in one batch. It ends in a number for each row, the logit $s$; the probability of being real would be
# $D = 1 / (1 + e^{-s})$, and is never computed.
#
# $$k = \text{leaky}(x V_1 + c_1), \qquad s = k V_2 + c_2.$$

# %%
order = next_call("batch_indices").outputs["indices"]
real = np.float64(digits[order].reshape(B, -1)) / 127.5 - 1
same(next_call("batch_gather"), out=real)
x = np.concatenate([real, g[:B]])

call = next_call("dense_forward")
V1, c1 = parameters(call)
k = leaky(x @ V1 + c1)
same(call, y=k)

call = next_call("dense_forward")
V2, c2 = parameters(call)
s = k @ V2 + c2  # [2B, 1]
same(call, y=s)

# %% [markdown]
# ## The discriminator's loss
#
# It should say 1 of real rows and 0 of generated ones. Its loss is what that costs it (Goodfellow et al. 2014):
#
# $$L_D = -\frac1B \sum_\text{real} \log D - \frac1B \sum_\text{generated} \log(1 - D).$$
#
# As $-\log D = \log(1 + e^{-s})$ and $-\log(1 - D) = \log(1 + e^s)$, the derivatives by $s$ are
# $-1/(1 + e^s) = D - 1$ of a real row and $1/(1 + e^{-s}) = D$ of a generated one, each over $B$: the further a row is
# on the wrong side, the more it pulls.

# %%
loss_D = np.log1p(np.exp(-s[:B])).mean() + np.log1p(np.exp(s[B:])).mean()
ds = np.concatenate([-1 / (1 + np.exp(s[:B])), 1 / (1 + np.exp(-s[B:]))]) / B
same(next_call("gan_loss_discriminator"), loss=[loss_D], dlogits=ds)
print(f"discriminator's loss {loss_D:.4f}; of one that cannot tell them apart it is 2 log 2 = {2 * np.log(2):.4f}")

# %% [markdown]
# ## Its gradients
#
# Write $ds$ for $\partial L/\partial s$, and so on. The chain rule for $s = k V_2 + c_2$ gives
#
# $$dV_2 = k^\top ds, \qquad dc_2 = \sum_\text{rows} ds, \qquad dk = ds\, V_2^\top,$$
#
# and then the activation's derivative, 1 or 0.2. It is read off from $k$, which has the sign of what went into it; so
# nothing before an activation needs to be kept. The generator is no part of this: $x$ is data here, and $dx$ is not
# computed.

# %%
dV2, dc2 = k.T @ ds, ds.sum(axis=0)
same(next_call("dense_wgrad"), dW=dV2, db=dc2)

dk = ds @ V2.T * np.where(k > 0, 1, 0.2)  # of what went into the activation
same(next_call("dense_dgrad"), dx=dk)

dV1, dc1 = x.T @ dk, dk.sum(axis=0)
same(next_call("dense_wgrad"), dW=dV1, db=dc1)

# %% [markdown]
# ## Adam
#
# Means of the gradient and of its square, which start at 0, and are divided by what that takes from them (Kingma and Ba
# 2015). In the first step this leaves $m = g$ and $v = g^2$: every parameter moves by nearly the learning rate, however
# small its gradient. minigen keeps all parameters of a network in one vector.


# %%
def flat(*arrays):
    return np.concatenate([array.ravel() for array in arrays])


def adam(p, gradient, m, v, t, rate=2e-4, beta1=0.5, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    return p - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


p, m, v = adam(flat(V1, c1, V2, c2), flat(dV1, dc1, dV2, dc2), m=0, v=0, t=1)
call = next_call("adam")
for name, mine in {"p": p, "m": m, "v": v}.items():
    theirs = call.outputs[name][: len(p)]  # there is padding behind the last parameter
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6 * abs(theirs).max(), err_msg=name)

sizes = np.cumsum([V1.size, c1.size, V2.size])
V1, c1, V2, c2 = (part.reshape(old.shape) for part, old in zip(np.split(p, sizes), (V1, c1, V2, c2), strict=True))

# %% [markdown]
# ## The generator's loss
#
# Its own $B$ pictures are judged by the discriminator as it is now. The generator wants to hear 1:
# $L_G = -\frac1B \sum \log D$. (Of the value function it would minimise $\log(1 - D)$, whose derivative $-D$ is
# nothing where the discriminator is sure; that of $-\log D$ is $D - 1$, which is largest there.)

# %%
mine = g[B:]
k = leaky(mine @ V1 + c1)
same(next_call("dense_forward"), y=k)
s = k @ V2 + c2
same(next_call("dense_forward"), y=s)
loss_G = np.log1p(np.exp(-s)).mean()
ds = -1 / (1 + np.exp(s)) / B
same(next_call("gan_loss_generator"), loss=[loss_G], dlogits=ds)

# %% [markdown]
# ## Through the discriminator into the generator
#
# The gradient runs back through the discriminator to its input, the picture: $dx = dk\, V_1^\top$ says how each pixel
# would have to change. The discriminator itself stays as it is, so $dV$ and $dc$ are not computed. The picture is the
# generator's output $g = \tanh(a)$, and $\tanh' = 1 - g^2$, again from the output alone.

# %%
dk = ds @ V2.T * np.where(k > 0, 1, 0.2)
same(next_call("dense_dgrad"), dx=dk)

da = dk @ V1.T * (1 - mine**2)  # [B, 784]
same(next_call("dense_dgrad"), dx=da)

# %% [markdown]
# From here it is a dense network like any other.

# %%
h, z = h[B:], z[B:]
dW2, db2 = h.T @ da, da.sum(axis=0)
same(next_call("dense_wgrad"), dW=dW2, db=db2)

dh = da @ W2.T * np.where(h > 0, 1, 0.2)
same(next_call("dense_dgrad"), dx=dh)

dW1, db1 = z.T @ dh, dh.sum(axis=0)
same(next_call("dense_wgrad"), dW=dW1, db=db1)

p, m, v = adam(flat(W1, b1, W2, b2), flat(dW1, db1, dW2, db2), m=0, v=0, t=1)
same(next_call("adam"), p=p, m=m, v=v)
assert next_call("advance") and next(calls, None) is None  # it counts the step, and that was all

# %% [markdown]
# ## Without minigen
#
# The same gradient without any rule: move one weight of the generator a little to each side, and see what the loss
# does.


# %%
def loss_of_generator(W1):
    picture = np.tanh(leaky(z @ W1 + b1) @ W2 + b2)
    return np.log1p(np.exp(-(leaky(picture @ V1 + c1) @ V2 + c2))).mean()


little = np.zeros_like(W1)
little[2, 5] = 1e-5
slope = (loss_of_generator(W1 + little) - loss_of_generator(W1 - little)) / 2e-5
print(f"dL_G/dW1[2, 5]: {dW1[2, 5]:.9f} by the chain rule, {slope:.9f} by the difference")
np.testing.assert_allclose(dW1[2, 5], slope, rtol=1e-5)
