"""The file `evaluation.json`: figures, confusion, calibration and worst errors of a checkpoint."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from bertjax.finetuning.evaluate import Assessed
from bertjax.finetuning.signatures import SIGNATURES
from bertjax.storage import write_whole
from bertjax.tasks import registry
from bertjax.tasks.class_scores import text_table
from bertjax.tasks.error_tables import MAX_ANSWER

FILE = "evaluation.json"
CONSTANT = "constant_answer"
"""Field of a split with the answer that the model gives for all of its examples."""

log = logging.getLogger("bertjax")


def write_evaluation(
    run_dir: epath.Path, step: int, assessed: Assessed, figures: dict[str, float]
) -> epath.Path:
    """Write `evaluation.json` of the checkpoint at `step`; return its path.

    The file has all `figures`. For each split it has its own figures and signatures, the tables of
    `bertjax.tasks.kind.Kind.error_tables`, and `constant_answer` if the model answers the same for
    all examples. Figures that are not finite are left out, because JSON has no such numbers. The
    scores of the classes and the constant answer are also logged.
    """
    splits = []
    for task, split, evaluated in assessed:
        kind = registry.kind_of(task)
        about = {
            "task": task.name,
            "split": split.name,
            "metric": task.metric,
            "examples": len(split.examples),
            "figures": _finite(evaluated.figures),
            SIGNATURES: kind.signatures(task, split.examples),
            **kind.error_tables(task, evaluated.predictions, split.examples),
        }
        answer = kind.constant_answer(task, evaluated.predictions, split.examples)
        if answer is not None:
            about[CONSTANT] = answer[:MAX_ANSWER]
        splits.append(about)
        _log(about)
    path = run_dir / FILE
    content = {"step": step, "figures": _finite(figures), "splits": splits}
    # allow_nan=False: a NaN in the tables raises an error here. Written to the file, it would make
    # the file unreadable for other programs. ensure_ascii=False: people can read texts of any
    # script; JSON files are UTF-8 (RFC 8259, section 8.1).
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())
    return path


def _log(about: Mapping[str, Any]) -> None:
    """Log the scores of a split's classes, and warn of a constant answer."""
    name = "-".join(part for part in (about["task"], about["split"]) if part)
    scores = about.get("class_scores")
    if scores is not None:
        log.info("%s: scores of the classes\n%s", name, text_table(scores))
    if CONSTANT in about:
        log.warning(
            "%s: the model gives the same answer, %s, for all %d validation examples:"
            " it does not tell them apart",
            name,
            about[CONSTANT],
            about["examples"],
        )


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}
