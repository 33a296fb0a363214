"""What is known of a teacher that was imported from a folder of `sentence-transformers`."""

import logging
import re

from bertjax.compression.static.options import POOLINGS
from bertjax.errors import mismatch
from bertjax.inference.embed import Pooling
from bertjax.training.saved_model import TrainedModel

# Of what `import` leaves of a model of sentence-transformers, what changes nothing in a table.
_HARMLESS = ("normalization", "max_seq_length", "prompts")

log = logging.getLogger("bertjax")


def pooling_of(model: TrainedModel, asked: str) -> Pooling:
    """Return how the model pools: as asked, as the imported model says, or by the mean."""
    named = ""
    for part in model.not_taken:
        match = re.fullmatch(r"pooling (.+?)(?: \(.*\))?", part)
        named = match[1] if match else named
    chosen = asked or named or "mean"
    for pooling in POOLINGS:
        if pooling == chosen:
            return pooling
    raise mismatch(
        where="pooling",
        found=f"{named}, as {model.run_dir} was imported",
        expected=f"one of {', '.join(POOLINGS)}, which is asked for",
    )


def say_what_is_missing(model: TrainedModel) -> None:
    """Warn of what changes the vectors of the teacher where it comes from, and not here."""
    parts = [part for part in model.not_taken if not part.startswith(("pooling ", *_HARMLESS))]
    if parts:
        log.warning(
            "%s: vectors without what sentence-transformers does in this model: %s",
            model.run_dir,
            ", ".join(parts),
        )
