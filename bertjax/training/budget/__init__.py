"""A wall-clock budget: the time of a run, and what its schedules take from it."""
