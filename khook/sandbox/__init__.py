"""The embedded cluster that demo, tests, simulation and bench share."""
