import numpy as np


def latent_gradients(dz, eps, mu, logvar):
    B = len(dz)
    return dz + mu / B, dz * eps * np.exp(logvar / 2) / 2 + np.expm1(logvar) / 2 / B
