import numpy as np


def gradient_through_discriminator(g, V1, c1, V2, c2):
    k = np.maximum(g @ V1 + c1, 0)
    s = k @ V2 + c2
    ds = -1 / (1 + np.exp(s)) / len(g)
    dk = ds @ V2.T * (k > 0)
    return dk @ V1.T * (1 - g**2)
