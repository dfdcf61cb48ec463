#!/bin/sh
# Everything that needs a GPU, in one offline call of under ten minutes: install, tests, compute-sanitizer, timings beside
# PyTorch and JAX. Writes one JSON file, after every stage anew, to $OUT if set, else to bench/results.
#
#   sh bench/gpu.sh                 # all stages
#   sh bench/gpu.sh tests steps     # some of: facts tests steps compare training sanitizer kernels compare-tf32
set -eu
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" bench/gpu.py "$@"
