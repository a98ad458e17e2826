"""One file a command; the only place that wires real objects together for a person."""
