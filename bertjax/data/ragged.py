"""Arrays of rows of unequal length: one array of values, and where each row begins in it."""

import numpy as np


def ranges(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return `begins[0]..ends[0]-1, begins[1]..ends[1]-1, …` as one index.

    `begins` and `ends` are integers `[n]`; the result is int64 `[sum(ends - begins)]`. It gathers
    many slices of an array at once, where a loop over the slices would be slow.
    """
    lengths = ends - begins
    starts = np.cumsum(lengths) - lengths
    # Element k of the result belongs to the slice that starts at `starts[i]` in it. It is
    # `begins[i]` plus the distance from there, k - starts[i].
    return np.arange(lengths.sum()) + np.repeat(begins - starts, lengths)
