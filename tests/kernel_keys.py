"""Prints the cache keys of the GAN's and the VAE's kernels: run by test_cuda_tools.py in a process that has compiled
nothing yet. With an argument other kernels' keys are asked for before."""

import sys

import numpy as np

from minigen.cuda.run.build import build_of
from minigen.cuda.tools.report import MODELS, model_launches, planning_backend

ops = planning_backend(90, "tf32x3")
if sys.argv[1:]:
    out, step = ops.empty((10,)), ops.empty((1,), np.uint64)
    first = ops.schedule(lambda: ops.random_uniform(out, 5, 6, step), fuse=False).launches
    assert all(build_of(launch, ops.executor).key for launch in first)
for model in MODELS:
    for launch in model_launches(model, ops):
        print(launch.name, build_of(launch, ops.executor).key)
