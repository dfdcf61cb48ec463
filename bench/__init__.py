"""Benchmarks: training steps side by side with other frameworks, and each kernel beside the machine's limit.

``python -m bench.compare`` measures, ``python -m bench.report`` writes the tables and the plots from the measured
files in ``bench/results``, ``pytest bench --benchmark-only`` runs the kernels one by one. ``bench/README.md`` says
how to measure, ``bench/RESULTS.md`` what was measured.
"""
