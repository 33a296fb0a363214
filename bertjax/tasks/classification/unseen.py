"""Labels that only the examples to predict have: standard data sets contain some, as ATIS does."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from bertjax.errors import check
from bertjax.tasks.classification.label_values import check_spelling
from bertjax.tasks.classification.labels import classes_of
from bertjax.tasks.examples import TextExample

MAX_LISTED_LABELS = 20
"""Maximum number of labels that a message lists."""

log = logging.getLogger("bertjax")


def check_classes(task: str, labels: Sequence[str], examples: Sequence[TextExample]) -> None:
    """Say how many examples have classes that the task, whose classes are `labels`, has not.

    No model can predict them, so they count as wrong in the figures. They are left out of the loss,
    which would be infinite. Raises `UserError` if none of the examples' classes is one of the
    task's, or if one is the same number in another spelling: the labels are then of another kind.
    It is also raised if the examples have places or columns for other classes.
    """
    if not labels:
        return
    declared = next((example.classes for example in examples if example.classes), ())
    check(
        not declared or set(declared) == set(labels),
        where=f"task {task}",
        found=f"{len(declared)} places or columns of labels ({_listed(declared)})",
        expected=f"those of training: {_listed(labels)}",
    )
    known = set(labels)
    unseen: Counter[str] = Counter()
    affected = some_known = 0
    for example in examples:
        classes = classes_of(example)
        new = [name for name in classes if name not in known]
        unseen.update(new)
        affected += bool(new)
        some_known += len(new) < len(classes)
    if not unseen:
        return
    check_spelling(unseen, labels, f"task {task}")
    check(
        some_known,
        where=f"task {task}",
        found=f"the labels {_listed(unseen)} alone",
        expected=f"labels of training: {_listed(labels)}",
    )
    log.warning(
        "%s: examples with a label that training does not have: %d of %d (%s);"
        " it counts as wrong, and is left out of the loss",
        task,
        affected,
        len(examples),
        _listed(f"{name}: {count}" for name, count in unseen.most_common()),
    )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = ", ..." if len(shown) > MAX_LISTED_LABELS else ""
    return ", ".join(shown[:MAX_LISTED_LABELS]) + more
