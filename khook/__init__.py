"""khook: the KAgent Hook Controller."""
