"""Smaller and faster models, measured: each output is held to a bound on what its figure loses."""
