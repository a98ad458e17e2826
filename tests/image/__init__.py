"""`make image-check`: the Dockerfile's steps without a container engine, and khook started from the result."""
