"""Signatures of figures in `result.json` and the log."""

import logging

from bertjax.finetuning.evaluate import Split
from bertjax.finetuning.signatures import log_signatures, signatures_of
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import PairExample, QuestionExample
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import OpenedTask
from bertjax.tasks.seq2seq.task import make_task
from tests.tasks.tiny import TOKENIZER

CHINESE = QuestionExample("1", "?", "北京是中国的首都。", (("北京", 0),))
ENGLISH = QuestionExample("2", "?", "The capital.", (("capital", 4),))
PAIR = PairExample("1", "a", "b")


def opened(task):
    return OpenedTask(None, task, {})


def test_the_figures_of_one_task_are_named_as_in_its_result():
    task = make_task("pairs", TOKENIZER)
    found = signatures_of([opened(task)], [Split("pairs", "", [PAIR], None)])
    assert found["exact_match_lc"] == "case:lc|words"
    assert found["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found["bleu_lc"] == found["bleu"].replace("mixed", "lc")
    assert len(found) == 4


def test_of_several_tasks_each_split_has_its_own_and_classes_need_none(caplog):
    tasks = [opened(Spans("qa")), opened(SingleLabel("rte", ("a", "b")))]
    splits = [
        Split("qa", "", [CHINESE], None),
        Split("qa", "mixed", [CHINESE, ENGLISH], None),
        Split("rte", "", [], None),
    ]
    mixed = "mlqa_zh (1 of 2 questions), squad (1 of 2 questions)"
    expected = {
        "exact_match/qa": "mlqa_zh",
        "f1/qa": "mlqa_zh",
        "exact_match/qa-mixed": mixed,
        "f1/qa-mixed": mixed,
    }
    assert signatures_of(tasks, splits) == expected
    with caplog.at_level(logging.INFO, logger="bertjax"):
        log_signatures(signatures_of(tasks, splits))
    assert caplog.messages[0] == "exact_match/qa is computed by mlqa_zh"
    assert len(caplog.messages) == 4
