"""The optimizer of a run, as a configuration has it."""
