"""PyTorch: torch.func's vmap over several models, and the fused Adam, in a CUDA graph captured by hand."""

from bench.peers import many_torch, torch_graph


class Contender(torch_graph.Contender, many_torch.Contender):
    """The graph's steps, each of all models: see both."""
