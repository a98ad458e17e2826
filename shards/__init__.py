"""Own keys with N processes: consistent hashing, hand-over with acknowledgement, supervision.

Knows nothing of Kubernetes or of what a key is for.
"""
