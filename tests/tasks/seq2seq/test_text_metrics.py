"""Metrics of generated texts: the figures and signatures of sacrebleu."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.seq2seq.text_metrics import (
    ALL_METRICS,
    TextMetric,
    check_installed,
    metrics_of,
    tokenizer_for,
)

WORDS = [
    "The",
    "the",
    "cat",
    "Cat",
    "sat",
    ",",
    ".",
    "on,",
    "Österreich",
    "österreich",
    "don't",
    "北京",
    "是",
    "。",
    "3,000",
    "&",
    "&amp;",
    "\u3000",
    "İ",
]


def drawn(number):
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(4, 9))) for _ in range(number)]
    changed = [
        text.swapcase() if rng.random() < 0.2 else text[rng.randint(0, 9) :] for text in texts
    ]
    return changed, texts


@pytest.mark.parametrize(
    "metric", [one for one in ALL_METRICS if one.tokenizer], ids=lambda one: one.name
)
def test_bleu_and_its_signature_are_those_of_sacrebleu(metric):
    sacrebleu = pytest.importorskip("sacrebleu")
    predicted, right = drawn(300)
    theirs = sacrebleu.corpus_bleu(
        predicted, [right], lowercase=metric.lowercase, tokenize=metric.tokenizer
    )
    assert metric.value(predicted, right) == theirs.score
    assert 1 < theirs.score < 99
    case = "lc" if metric.lowercase else "mixed"
    version = sacrebleu.__version__
    assert metric.signature == (
        f"nrefs:1|case:{case}|eff:no|tok:{metric.tokenizer}|smooth:exp|version:{version}"
    )


def test_names_say_where_a_metric_differs_from_sacrebleus_default():
    names = [metric.name for metric in metrics_of("13a")]
    assert names == ["bleu", "bleu_lc", "exact_match", "exact_match_lc"]
    assert [metric.name for metric in metrics_of("zh")][:2] == ["bleu_zh", "bleu_zh_lc"]
    assert TextMetric(None, True).signature == "case:lc|words"
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS) == 10


def test_exact_match_is_of_words_and_counts_case_unless_its_name_says_otherwise():
    predicted, right = ["a  B\n", "a b", "A", "ab"], ["a B", "A b", "A", "a b"]
    assert TextMetric(None, False).value(predicted, right) == 0.5
    assert TextMetric(None, True).value(predicted, right) == 0.75


@given(st.lists(st.text(max_size=9), min_size=1, max_size=4))
def test_a_text_equals_itself(texts):
    assert [TextMetric(None, case).value(texts, texts) for case in (False, True)] == [1, 1]


@pytest.mark.parametrize("targets,tokenizer", [
    ([], "13a"),
    (["Ein Hund läuft.", "Die 北京-Oper"], "13a"),
    (["北京是首都。", "NBA"], "zh"),
    (["東京は首都である。"], "char"),
    (["กรุงเทพมหานคร"], "char"),
    (["서울은 수도이다."], "13a"),
])  # fmt: skip
def test_the_script_of_the_targets_chooses_the_words_of_bleu(targets, tokenizer):
    assert tokenizer_for(targets) == tokenizer


def test_without_sacrebleu_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    for use in (check_installed, lambda: TextMetric("13a", False).value(["a"], ["a"])):
        with pytest.raises(
            UserError, match="bleu: found no package sacrebleu, expected it: pip install sacrebleu"
        ):
            use()
