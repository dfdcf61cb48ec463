"""A dense layer, ``y[B,O] = x[B,I] W[I,O] + b[O]``, from three loops to the tensor cores: see ``README.md`` here."""
