"""From the operations of a step to launches: which kernel does what with which tiles, and what runs side by side.

``lowering`` has what the kernels' modules share when they turn an operation into jobs; ``tiles`` chooses how products
are cut; ``schedule`` orders jobs and groups them; ``codegen`` writes the kernel that runs a group, which is a
``launch``. Nothing here needs a GPU, and nothing but ``codegen`` and the kernels' modules imports Triton.
"""
