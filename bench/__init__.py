"""The load run of `make bench-smoke`: what `khook run` does in a second, and what it costs. Run from a clone."""
