"""The pool's promises, measured on real processes: `bench/pool_figures.py` is the command."""
