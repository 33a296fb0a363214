"""Comparison of a run's score with that of one answer for all examples."""

import logging

from bertjax.finetuning.finetune import Prepared
from bertjax.number_text import number_text

log = logging.getLogger("bertjax")


def warn_of_baseline(prepared: Prepared, score: float | None) -> None:
    """Log a warning if the score of a run is not above the majority-class baseline.

    A sweep counts such runs as failed (`bertjax.finetuning.sweep_grid.summarize`). `score` is None
    if it was not finite.
    """
    if score is not None and score > prepared.baseline:
        return
    shown = "not finite" if score is None else number_text(score, ".4f")
    log.warning(
        "the score is %s, not above %s, which one answer for all validation examples gets:"
        " the run has failed, as a sweep would count it",
        shown,
        number_text(prepared.baseline, ".4f"),
    )
