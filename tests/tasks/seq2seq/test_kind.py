"""The kind of sequence to sequence: what its options and data choose."""

from dataclasses import replace

import pytest

from bertjax.config import FinetuneConfig
from bertjax.tasks.examples import PairExample
from bertjax.tasks.registry import from_plain, to_plain
from bertjax.tasks.seq2seq.kind import Seq2SeqKind
from tests.tasks.tiny import TOKENIZER

KIND = Seq2SeqKind()
OPTIONS = FinetuneConfig(tasks=("mine:seq2seq=x",))
CHINESE = [PairExample("1", "a", "北京是首都。")]


@pytest.mark.parametrize("option,target,metric", [
    ("auto", "The city.", "bleu_lc"),
    ("auto", "北京是首都。", "bleu_zh_lc"),
    ("auto", "東京は首都である。", "bleu_char_lc"),
    ("13a", "北京是首都。", "bleu_lc"),
    ("intl", "The city.", "bleu_intl_lc"),
])  # fmt: skip
def test_the_words_of_bleu_are_those_of_the_option_or_of_the_targets_script(option, target, metric):
    options = replace(OPTIONS, bleu_tokenizer=option)
    task = KIND.make_task("mine", [PairExample("1", "a", target)], options, TOKENIZER)
    assert task.metric == metric
    assert metric in {one.name for one in KIND.task_metrics(task)}
    assert metric in KIND.metrics
    assert from_plain(to_plain(task), "meta") == task
    assert (
        KIND.signatures(task, []).keys()
        == task.figures([target], [PairExample("1", "a", target)]).keys()
    )


def test_an_evaluation_may_ask_for_other_words():
    task = replace(KIND.make_task("mine", CHINESE, OPTIONS, TOKENIZER), metrics=("bleu_zh",))
    assert KIND.for_evaluation(task, OPTIONS) is task
    other = KIND.for_evaluation(task, replace(OPTIONS, bleu_tokenizer="char"))
    assert other.metric == "bleu_char_lc"


def test_a_mistake_of_an_uncased_tokenizer_is_one_of_words():
    task = KIND.make_task("mine", CHINESE, OPTIONS, TOKENIZER)
    examples = [PairExample("1", "x", "The  cat"), PairExample("2", "y", "A dog")]
    texts = ["the cat", "the dog"]
    assert [mistake.text for mistake in KIND.mistakes(task, texts, examples)] == ["y"]
    cased = replace(task, lowercase=False)
    assert [mistake.text for mistake in KIND.mistakes(cased, texts, examples)] == ["x", "y"]
