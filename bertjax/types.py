"""Types that rooms on every floor share."""

from typing import Any

import numpy as np

Batch = dict[str, Any]
"""Arrays of one batch by feature name, `[B, ...]` each.

They are NumPy arrays on the host and JAX arrays inside a step. `docs/data_format.md` lists the
features of pretraining. Features of a fine-tuning task have its name before them, `TASK/labels`, so
that the batch alone tells which task it is of.
"""

RowIndices = slice | np.ndarray
"""Indices along the batch axis: the rows of a global batch that a process holds.

A slice where they follow on one another, else int64 `[n]`, ascending (`hosts.process_rows`).
"""
