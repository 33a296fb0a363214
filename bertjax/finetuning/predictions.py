"""Write predictions to files, in the formats that are usual for each kind of task."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import disk_errors
from bertjax.tasks.kind import Entry, PredictedSplit
from bertjax.tasks.registry import KINDS


def write_predictions(
    folder: epath.Path,
    entry: Entry,
    split: str,
    predictions: Sequence[Any],
    examples: Sequence[Any],
    options: FinetuneConfig,
) -> list[epath.Path]:
    """Write the predictions for a split into `folder`, made if it is absent; return the files.

    `Kind.write_predictions` of each kind of task describes its formats.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    predicted = PredictedSplit(entry, split, examples, predictions)
    return KINDS[entry.kind].write_predictions(folder, predicted, options)
