"""What a run says of a score that one answer for all examples gets too."""

import logging

import pytest

from bertjax.finetuning.baseline import warn_of_baseline
from bertjax.finetuning.evaluate import Split
from bertjax.finetuning.finetune import Prepared
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kind import Entry
from bertjax.tasks.registry import OpenedTask

EXAMPLES = [TextExample(str(n), "text", label=label) for n, label in enumerate("aaab")]
TASK = SingleLabel("t", ("a", "b"))
PREPARED = Prepared(
    (OpenedTask(Entry("t", "classification", None), TASK, {}),),
    {},
    (Split("t", "", EXAMPLES, None),),
)
pytestmark = pytest.mark.quick


@pytest.mark.parametrize("score,said", [
    (0.8, ""),
    (0.75, "the score is 0.7500, not above 0.7500, which"),
    (0.5, "the score is 0.5000, not above 0.7500, which"),
    (None, "the score is not finite, not above 0.7500, which"),
])  # fmt: skip
def test_a_score_that_is_not_above_the_baseline_is_said(caplog, score, said):
    with caplog.at_level(logging.WARNING, "bertjax"):
        warn_of_baseline(PREPARED, score)
    assert len(caplog.messages) == bool(said)
    assert "".join(caplog.messages).startswith(said)
