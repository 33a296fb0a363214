import json
from dataclasses import replace

import pytest

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.question_answering.kind import SpansKind
from bertjax.tasks.registry import entry_of, from_plain, to_plain
from tests.tasks.question_answering.test_task import TASK, answered, asked
from tests.tasks.tiny import TOKENIZER


def test_mistakes_are_answers_without_a_right_word_the_worse_the_surer():
    examples = [asked(0, "dog"), asked(1, "cat ran"), asked(2), asked(3, "ran"), asked(4, "x")]
    predictions = [
        answered("cat", probability=0.3),
        answered("ran", probability=0.9),
        answered("z", probability=0.8),
        answered("", probability=0.7),
        answered("x", probability=1.0),
    ]
    mistakes = SpansKind().mistakes(TASK, predictions, examples)
    assert [(mistake.expected, mistake.predicted, mistake.severity) for mistake in mistakes] == [
        ("dog", "cat", 0.3),
        ("no answer", "z", 0.8),
        ("ran", "", 0.7),
    ]


@pytest.mark.parametrize("name,rule,refused", [
    ("mlqa_zh", "auto", False),
    ("MLQA-de-en", "auto", False),
    ("mlqa-zh-zh", "auto", False),
    ("my_mlqa_de", "auto", False),
    ("mlqa", "mlqa_es", False),
    ("cmrc2018", "squad", False),
    ("mlqa", "auto", True),
    ("mlqa_fr", "auto", True),
])  # fmt: skip
def test_mlqa_without_its_language_is_refused_before_any_file_is_read(name, rule, refused):
    options = FinetuneConfig(tasks=(f"{name}=nowhere",), answer_rule=rule)
    entry = entry_of(options.tasks[0], options)
    assert entry.kind == "spans"
    if not refused:
        SpansKind().check_options(entry, options)
        return
    with pytest.raises(UserError) as error:
        SpansKind().check_options(entry, options)
    assert str(error.value) == (
        f"finetune.tasks: found {name}, expected the language of the answers, as mlqa_ar, mlqa_de,"
        " mlqa_en, mlqa_es, mlqa_hi, mlqa_vi, mlqa_zh; or finetune.answer_rule"
    )


def test_an_evaluation_may_say_that_questions_may_have_no_answer():
    options = FinetuneConfig(tasks=("mine:spans=x",), unanswerable=True)
    assert SpansKind().for_evaluation(TASK, options) == replace(TASK, version_2=True)


def test_the_rule_of_the_option_is_kept_with_the_task_and_gives_its_figures():
    options = FinetuneConfig(tasks=("mine:spans=x",), answer_rule="cmrc2018")
    task = SpansKind().make_task("mine", [asked(0, "人民大会堂")], options, TOKENIZER)
    assert from_plain(to_plain(task), "meta") == task
    assert "answer_rule" not in to_plain(TASK)
    figures = task.figures([answered("人民大会")], [asked(0, "《人民大会堂》")])
    assert figures == {"exact_match": 0.0, "f1": pytest.approx(800 / 9)}
    assert SpansKind().signatures(task, [asked(0)]) == {"exact_match": "cmrc2018", "f1": "cmrc2018"}


def test_questions_to_predict_have_their_ids_once_in_all_files(tmp_path):
    for language, context in (("en", "The city."), ("zh", "北京市。")):
        line = {"id": "q", "question": "?", "context": context, "answers": None}
        (tmp_path / f"{language}.jsonl").write_text(json.dumps(line))
    files = ("en.jsonl", "zh.jsonl")
    options = FinetuneConfig(tasks=(f"xquad={tmp_path}",), validation_files=files, test_files=files)
    entry = entry_of(options.tasks[0], options)
    # Their figures need no ids.
    assert len(SpansKind().read_split(entry, "validation", options, labelled=True)) == 2
    with pytest.raises(UserError, match="zh.jsonl, line 1: found the id q again, after .*en.jsonl"):
        SpansKind().read_split(entry, "test", options, labelled=False)


def test_an_evaluation_may_ask_for_another_rule():
    options = FinetuneConfig(tasks=("mine:spans=x",))
    assert SpansKind().for_evaluation(TASK, options) is TASK
    asked_for = replace(options, answer_rule="korquad")
    assert SpansKind().for_evaluation(TASK, asked_for) == replace(TASK, answer_rule="korquad")
