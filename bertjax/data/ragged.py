"""Index arrays for rows of unequal length that are stored one after another in a flat array."""

import numpy as np


def ranges(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return `begins[0]..ends[0]-1, begins[1]..ends[1]-1, …` as one index array.

    `begins` and `ends` are integers `[n]`; the result is int64 `[sum(ends - begins)]`. An array
    indexed with it gives many slices at once, which is faster than a loop over the slices.
    """
    lengths = ends - begins
    starts = np.cumsum(lengths) - lengths
    # Element k of the result belongs to the slice that starts at `starts[i]` in it. It is
    # `begins[i]` plus the distance from there, k - starts[i].
    return np.arange(lengths.sum()) + np.repeat(begins - starts, lengths)
