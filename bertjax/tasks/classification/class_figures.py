"""The metrics of classes by their names in `finetune.metric`: `f1_macro`, `recall:rare`."""

from collections.abc import Sequence

from bertjax.tasks.class_scores import AVERAGES, MEASURES, ClassCounts, average, measure
from bertjax.tasks.metric_table import Metric, Scale

AVERAGED = {f"{name}_{kind}": (name, kind) for name in MEASURES for kind in AVERAGES}
"""The measure and the average of each averaged metric, such as `f1_macro`."""
OF_ONE_CLASS = tuple(Metric(name, of_class=True) for name in MEASURES)
OF_SECOND_CLASS = tuple(Metric(name) for name in MEASURES)
"""The metrics of two classes that are those of the second one, which counts as positive."""
OF_ALL_CLASSES = tuple(Metric(name) for name in AVERAGED)
MATTHEWS = Metric("matthews_correlation", Scale.CORRELATION)


def class_figure(
    name: str, labels: Sequence[str], counts: ClassCounts, averaged: ClassCounts
) -> float:
    """Return the metric `name` from the counts of the classes `labels`.

    `averaged` are the counts that averages are over. A measure without a class is that of the
    second class.
    """
    if name in AVERAGED:
        return average(*AVERAGED[name], averaged)
    base, colon, label = name.partition(":")
    index = list(labels).index(label) if colon else 1
    return float(measure(base, counts.of(index)))
