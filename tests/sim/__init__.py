"""Deterministic simulation: whole worlds out of seeds, and what must hold in every one of them.

A seed draws a cluster, its story and its faults (`draw`); the real supervisor and workers live through 30 virtual
minutes of it (`life`); what happened is plain facts (`history`), and `checkers` are functions from those to
violations. `python -m sim --help` runs many, replays one, and proves with `mutants` that the checkers can see.
"""
