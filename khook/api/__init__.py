"""The Hook as its users write it."""
