"""Arrays of rows of unequal length: one array of values, and where each row begins in it."""

import numpy as np


def ranges(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """`begins[0]..ends[0]-1, begins[1]..ends[1]-1, …` as one index."""
    lengths = ends - begins
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(begins - starts, lengths)
