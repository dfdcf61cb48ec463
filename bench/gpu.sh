#!/bin/sh
# Everything that needs a GPU, in three calls that fit fifteen minutes together; docs/gpu-checklist.md says how to go about it.
# Nothing is installed and nothing fetched. Results go to $OUT if that is set, else to bench/results, as they come.
#
#   python -m bench.gpu_prepare     # beforehand, without a GPU: bench/prepared, which has to travel with the tree
#   sh bench/gpu.sh A               # at most 150 s: does it run, how fast, what do launches and barriers cost
#   sh bench/gpu.sh B               # at most 240 s: beside PyTorch and JAX, the article's training, the tests
#   sh bench/gpu.sh C 380           # what is left, in seconds: the VAE, torch.compile, kernels, tune
#   sh bench/gpu.sh facts smoke     # single stages
set -eu
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" bench/gpu.py "$@"
