"""Signatures: how metrics are computed, where a metric's name alone does not say it."""

import logging
from collections.abc import Mapping, Sequence

from bertjax.finetuning.evaluate import Split, figure_name
from bertjax.tasks.registry import OpenedTask, kind_of

SIGNATURES = "signatures"
"""Field of `result.json` and of a split in `evaluation.json`: a signature by the figure's name."""

log = logging.getLogger("bertjax")


def signatures_of(opened: Sequence[OpenedTask], splits: Sequence[Split]) -> dict[str, str]:
    """Return the signatures of the figures of validation splits, by the figures' names."""
    tasks = {each.task.name: each.task for each in opened}
    named = {}
    for split in splits:
        task = tasks[split.task]
        for metric, signature in kind_of(task).signatures(task, split.examples).items():
            named[figure_name(metric, split.task, split.name, len(tasks) > 1)] = signature
    return named


def log_signatures(signatures: Mapping[str, str]) -> None:
    """Log the signature of each figure that has one."""
    for name, signature in signatures.items():
        log.info("%s is computed by %s", name, signature)
