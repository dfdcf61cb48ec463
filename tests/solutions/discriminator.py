import numpy as np


def discriminator_loss(real, fake):
    loss = np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean()
    return loss, -sigmoid(-real) / len(real), sigmoid(fake) / len(fake)


def sigmoid(a):
    return np.exp(-np.logaddexp(0, -a))
