"""What the supervisor does with the pool: hooks become wishes, the pool's facts become health and metrics."""
