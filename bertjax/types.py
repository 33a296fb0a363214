"""Types that rooms on every floor share."""

from typing import Any

import numpy as np

Batch = dict[str, Any]
"""The arrays of one batch by feature name, `[B, ...]` each: numpy arrays on the host, JAX arrays
inside a step.

`docs/data_format.md` lists the features of pretraining. Features of a fine-tuning task have its
name before them, `TASK/labels`, so that a batch says whose it is.
"""

RowIndices = slice | np.ndarray
"""Indices along the batch axis: the rows of a global batch that a process holds.

A slice where they follow on one another, else int64 `[n]`, ascending (`hosts.process_rows`).
"""
