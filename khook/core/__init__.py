"""Decisions. Pure: no I/O, no clock, no randomness, no asyncio, no logging; `now` and chance are arguments."""
