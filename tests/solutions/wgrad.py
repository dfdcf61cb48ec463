def wgrad(x, dz):
    return x.T @ dz, dz.sum(axis=0)
