"""The metrics of classes by their names in `finetune.metric`: `f1_macro`, `recall:rare`."""

from bertjax.tasks.class_scores import AVERAGED, MEASURES
from bertjax.tasks.metric_table import Metric, Scale

OF_ONE_CLASS = tuple(Metric(name, of_class=True) for name in MEASURES)
OF_SECOND_CLASS = tuple(Metric(name) for name in MEASURES)
"""The metrics of two classes that are those of the second one, which counts as positive."""
OF_ALL_CLASSES = tuple(Metric(name) for name in AVERAGED)
MATTHEWS = Metric("matthews_correlation", Scale.CORRELATION)
