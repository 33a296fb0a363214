"""The file `evaluation.json`: figures, confusion, calibration and worst errors of a checkpoint."""

import json
import math

from etils import epath

from bertjax.finetuning.evaluate import Assessed
from bertjax.storage import write_whole
from bertjax.tasks import registry

FILE = "evaluation.json"


def write_evaluation(
    run_dir: epath.Path, step: int, assessed: Assessed, figures: dict[str, float]
) -> epath.Path:
    """Write `evaluation.json` of the checkpoint at `step`; return its path.

    The file has all `figures`. For each split it has the split's own figures and the tables of
    `bertjax.tasks.kind.Kind.error_tables`. Figures that are not finite are left out, because JSON
    has no such numbers.
    """
    splits = []
    for task, split, evaluated in assessed:
        kind = registry.kind_of(task)
        splits.append(
            {
                "task": task.name,
                "split": split.name,
                "metric": task.metric,
                "examples": len(split.examples),
                "figures": _finite(evaluated.figures),
                **kind.error_tables(task, evaluated.predictions, split.examples),
            }
        )
    path = run_dir / FILE
    content = {"step": step, "figures": _finite(figures), "splits": splits}
    # allow_nan=False: a NaN in the tables raises an error here. Written to the file, it would make
    # the file unreadable for other programs. ensure_ascii=False: people can read texts of any
    # script; JSON files are UTF-8 (RFC 8259, section 8.1).
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())
    return path


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}
