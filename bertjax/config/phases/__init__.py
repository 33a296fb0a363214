"""Phases of a run, as a configuration has them."""
