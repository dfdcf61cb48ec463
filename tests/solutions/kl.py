import numpy as np


def kl(mu, logvar):
    return (mu**2 + np.expm1(logvar) - logvar).sum(axis=1) / 2
