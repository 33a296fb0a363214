"""Names and kinds of tasks, and tasks in a checkpoint's words."""

import dataclasses
import json
import re

import pytest
from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks import registry as kinds
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.kind import Entry
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import (
    OpenedTask,
    entry_of,
    from_plain,
    heads_needed,
    kind_of,
    to_plain,
)
from bertjax.tasks.seq2seq.task import make_task
from bertjax.tasks.tagging.task import Tagging
from tests.tasks.tiny import TOKENIZER, config_of, has_good, write_splits, write_table, write_tagged

OPTIONS = FinetuneConfig()
TASKS = {
    "classification": SingleLabel("t", ("a", "b"), ("f1", "accuracy"), 0.1, (0.5, 2.0)),
    "classification of several": MultiLabel("t", ("a",)),
    "classification of a number": Regression("t"),
    "tagging": Tagging("t", ("O", "B-A"), 0.1, (0.25, 4.0)),
    "spans": Spans("t", True, 64, 32, 15, 5, -1.25),
    "choice": Choice("t", 4, 0.1),
    "seq2seq": make_task("t", TOKENIZER, max_target_length=12, beam_size=3, label_smoothing=0.1),
}


@pytest.mark.parametrize("text,name,kind,place", [
    ("rte=data/RTE", "rte", "classification", "data/RTE"),
    ("RTE=data/RTE", "rte", "classification", "data/RTE"),
    ("SST-2=x", "sst2", "classification", "x"),
    ("sts_b=tfds:glue/stsb", "stsb", "classification", "tfds:glue/stsb"),
    ("squad=x", "squad", "spans", "x"),
    ("squad_v2=x", "squad_v2", "spans", "x"),
    ("swag=x", "swag", "choice", "x"),
    ("conll2003=x", "conll2003", "tagging", "x"),
    ("NER=x", "NER", "tagging", "x"),
    ("mine:tagging=x", "mine", "tagging", "x"),
    ("mine:seq2seq=/a=b/c:d", "mine", "seq2seq", "/a=b/c:d"),
    ("rte:tagging=x", "rte", "tagging", "x"),
    ("my-own_task:choice=s3://bucket/x", "my-own_task", "choice", "s3://bucket/x"),
])  # fmt: skip
def test_a_task_is_known_by_its_name_or_its_kind(text, name, kind, place):
    FinetuneConfig(tasks=(text,))
    assert entry_of(text, OPTIONS) == Entry(name, kind, DataLocation(place))


@pytest.mark.parametrize("tasks,expected", [
    (("mine=x",), "finetune.tasks: found mine=x, expected one of the names cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, "
     "wnli, conll2003, wnut17, wikiann, ner, pos, squad, squad_v2, xquad, cmrc2018, drcd, mlqa, korquad, swag, codah; or NAME:KIND=PLACE with a KIND "
     "of classification, tagging, spans, choice, seq2seq"),
    (("mine:parsing=x",), "finetune.tasks: found mine:parsing=x, expected one of the names"),
    (("mine:Tagging=x",), "finetune.tasks: found mine:Tagging=x, expected one of the names"),
    (("rte",), "finetune.tasks: found rte, expected NAME=PLACE or NAME:KIND=PLACE, the name a word"),
    (("rte=",), "finetune.tasks: found rte=, expected NAME=PLACE"),
    (("=x",), "finetune.tasks: found =x, expected NAME=PLACE"),
    (("mine:=x",), "finetune.tasks: found mine:=x, expected NAME=PLACE"),
    (("a/b:tagging=x",), "finetune.tasks: found a/b:tagging=x, expected NAME=PLACE"),
    (("two words:tagging=x",), "finetune.tasks: found two words:tagging=x, expected NAME=PLACE"),
    (("rte=x", "rte=y"), "finetune.tasks: found rte, rte, expected each name once"),
])  # fmt: skip
def test_a_task_that_is_not_known_is_refused_in_one_line(tasks, expected):
    def read():
        return [entry_of(text, OPTIONS) for text in FinetuneConfig(tasks=tasks).tasks]

    with pytest.raises(UserError) as raised:
        read()
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


def test_two_spellings_of_one_task_are_refused(tmp_path):
    write_table(
        tmp_path / "train.tsv", [("a", "b", "entailment")], ["sentence1", "sentence2", "label"]
    )
    (tmp_path / "dev.tsv").write_bytes((tmp_path / "train.tsv").read_bytes())
    with pytest.raises(UserError, match="finetune.tasks"):
        kinds.open_tasks(config_of(f"rte={tmp_path}", f"RTE={tmp_path}"), TOKENIZER)


def test_files_and_columns_that_are_told_are_the_sources():
    options = FinetuneConfig(
        train_files=("a.tsv", "b.tsv"), test_files=("c.tsv",), columns=("text", "label")
    )
    source = entry_of("mine:classification=x", options).location
    assert source.files == {"train": ("a.tsv", "b.tsv"), "test": ("c.tsv",)}
    assert source.columns == ("text", "label")


def test_the_splits_of_mnli_are_two_unless_files_are_named():
    mnli, rte = entry_of("mnli=x", OPTIONS), entry_of("rte=x", OPTIONS)
    assert kinds.validation_splits(mnli) == ("validation_matched", "validation_mismatched")
    assert kinds.test_splits(mnli) == ("test_matched", "test_mismatched")
    assert (kinds.validation_splits(rte), kinds.test_splits(rte)) == (("validation",), ("test",))
    named = entry_of("mnli=x", FinetuneConfig(validation_files=("d.tsv",), test_files=("t.tsv",)))
    assert (kinds.validation_splits(named), kinds.test_splits(named)) == (
        ("validation",),
        ("test",),
    )
    assert kinds.test_splits(entry_of("mnli:tagging=x", OPTIONS)) == ("test",)


@pytest.mark.parametrize("text,options,message", [
    ("own:classification=x", {"metric": ("f2",)}, "found f2, for own, expected one of accuracy, matthews_correlation, f1,"),
    ("own:classification=x", {"metric": ("mse",)}, "found mse, for own, expected one of accuracy,"),
    ("own:classification=x", {"metric": ("accuracy",), "label_type": "number"}, "found accuracy, for own, expected one of "
     "pearson, spearman, mse, mae"),
    ("own:classification=x", {"metric": ("accuracy",), "label_type": "classes"}, "found accuracy, for own, expected one of f1_micro"),
    ("stsb=x", {"metric": ("f1",)}, "found f1, for stsb, expected one of pearson,"),
    ("ner=x", {"metric": ("bleu",)}, "found bleu, for ner, expected one of f1,"),
    ("squad=x", {"metric": ("f1:a",)}, "found f1:a, for squad, expected one of f1, exact_match"),
    ("swag=x", {"metric": ("f1",)}, "found f1, for swag, expected one of accuracy"),
    ("own:seq2seq=x", {"metric": ("accuracy",)}, "found accuracy, for own, expected one of bleu"),
    ("own:classification=x", {"metric": ("other=f1",)}, "found other=f1, for own, expected one of"),
])  # fmt: skip
def test_a_metric_that_the_kind_does_not_have_is_refused_before_any_file_is_read(
    text, options, message
):
    with pytest.raises(UserError) as raised:
        kinds.open_tasks(config_of(text, finetune=options), TOKENIZER)
    assert str(raised.value).startswith(f"finetune.metric: {message}")
    assert "\n" not in str(raised.value)


def test_each_task_gets_the_metric_that_is_chosen_for_it(tmp_path):
    good = write_splits(tmp_path / "good", has_good, train=8, validation=8)
    towns = write_tagged(tmp_path / "towns", train=8, validation=8)
    rows = [("a", "b", label) for label in ("entailment", "not_entailment")]
    for name in ("train", "dev"):
        write_table(tmp_path / "rte" / f"{name}.tsv", rows, ["sentence1", "sentence2", "label"])
    entries = (
        f"good:classification={good}",
        f"towns:tagging={towns}",
        f"RTE={tmp_path / 'rte'}",
    )
    chosen = ("good=f1:yes", "towns=recall", "RTE=f1_macro", "good=f1_macro")
    opened = kinds.open_tasks(config_of(*entries, finetune={"metric": chosen}), TOKENIZER)
    assert [one.task.metric for one in opened] == ["f1:yes", "recall", "f1_macro"]
    assert opened[0].task.metrics == ("f1:yes", "f1_macro", "accuracy")
    # One for all tasks.
    both = config_of(*entries[::2], finetune={"metric": ("f1_macro",)})
    assert [one.task.metric for one in kinds.open_tasks(both, TOKENIZER)] == ["f1_macro"] * 2


@pytest.mark.parametrize("metrics,found,label", [
    (("f1:rare",), "f1:rare", "rare"),
    (("f1_macro", "recall:rare"), "recall:rare", "rare"),
    (("recall",), "recall", "usual"),  # the second of two classes
])  # fmt: skip
def test_a_metric_of_a_class_that_no_validation_example_has_is_refused(
    tmp_path, metrics, found, label
):
    rows = [("the cat", "usual"), ("a dog", "rare")]
    write_table(tmp_path / "train.tsv", rows)
    write_table(tmp_path / "dev.tsv", [row for row in rows if row[1] != label])
    config = config_of(f"own:classification={tmp_path}", finetune={"metric": metrics})
    with pytest.raises(UserError) as raised:
        kinds.open_tasks(config, TOKENIZER)
    assert str(raised.value).startswith(
        f"finetune.metric: found {found}, for own, and no validation example of {label}, expected"
    )


@pytest.mark.parametrize("name", TASKS)
def test_a_task_with_a_chosen_metric_comes_back_from_a_checkpoints_json(name):
    kind = kind_of(TASKS[name])
    metric = kind.task_metrics(TASKS[name])[0]
    task = kind.with_metrics(TASKS[name], (metric.name,))
    restored = from_plain(json.loads(json.dumps(to_plain(task))), "meta")
    assert (restored, hash(restored)) == (task, hash(task))
    assert (restored.metric, restored.metric_scale) == (metric.name, metric.scale)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_comes_back_from_a_checkpoints_json_as_it_was(name):
    task = TASKS[name]
    plain = json.loads(json.dumps(to_plain(task)))
    restored = from_plain(plain, "meta")
    assert restored == task
    # Equal and of one hash: what is compiled for one serves the other.
    assert hash(restored) == hash(task)
    assert kind_of(restored).name == name.split(" ")[0]


# As checkpoints of earlier versions have them, character by character.
OLD_META = {
    "classification": '{"kind": "classification", "name": "t", "labels": ["a", "b"], "label_type": "class", '
    '"metrics": ["f1", "accuracy"], "label_smoothing": 0.1, "class_weights": [0.5, 2.0]}',
    "classification of several": '{"kind": "classification", "name": "t", "labels": ["a"], "label_type": "classes", '
    '"metrics": [], "label_smoothing": 0.0, "class_weights": []}',
    "classification of a number": '{"kind": "classification", "name": "t", "labels": [], "label_type": "number", '
    '"metrics": [], "label_smoothing": 0.0, "class_weights": []}',
    "tagging": '{"kind": "tagging", "name": "t", "labels": ["O", "B-A"], "label_smoothing": 0.1, '
    '"class_weights": [0.25, 4.0]}',
    "spans": '{"kind": "spans", "name": "t", "version_2": true, "doc_stride": 64, "max_query_length": 32, '
    '"max_answer_length": 15, "n_best_size": 5, "null_threshold": -1.25}',
    "choice": '{"kind": "choice", "name": "t", "choices": 4, "label_smoothing": 0.1}',
    "seq2seq": '{"kind": "seq2seq", "name": "t", "search": {"cls_id": 2, "sep_id": 3, "pad_id": 0, "vocab_size": 19, '
    '"max_target_length": 12, "beam_size": 3, "length_penalty": 0.6}, "label_smoothing": 0.1, "lowercase": true}',
}


@pytest.mark.parametrize("name", TASKS)
def test_tasks_of_old_checkpoints_open_and_new_ones_are_written_alike(name):
    assert from_plain(json.loads(OLD_META[name]), "meta") == TASKS[name]
    assert json.dumps(to_plain(TASKS[name])) == OLD_META[name]


def test_every_kind_has_a_task_here():
    assert {name.split(" ")[0] for name in TASKS} == set(kinds.KINDS)
    classes = {task_class for kind in kinds.KINDS.values() for task_class in kind.task_classes}
    assert {type(task) for task in TASKS.values()} == classes
    for name, task in TASKS.items():
        assert type(task) in kinds.KINDS[name.split(" ")[0]].task_classes


def test_what_is_no_task_is_of_no_kind():
    with pytest.raises(TypeError, match="str is of no kind of task"):
        kind_of("t")


def test_a_type_of_label_that_we_have_not_is_refused():
    values = json.loads(OLD_META["classification"]) | {"label_type": "tag"}
    expected = "task t: label_type: found tag, expected one of class, classes, number"
    with pytest.raises(UserError, match=expected):
        from_plain(values, "there/meta")


def test_a_kind_that_a_checkpoint_names_and_we_have_not_is_refused():
    with pytest.raises(
        UserError,
        match=r"there/meta: found the kind of task 'parsing', expected one of classification",
    ):
        from_plain({"kind": "parsing", "name": "t"}, "there/meta")
    with pytest.raises(UserError, match="found the kind of task ''"):
        from_plain({}, "there/meta")


@pytest.mark.parametrize("of,result,needed", [
    (["classification"], ("pooler", "mlm", "nsp"), ("pooler",)),
    (["classification"], (), ("pooler",)),
    (["choice"], (), ("pooler",)),
    (["tagging"], ("pooler", "mlm"), ()),
    (["spans"], ("pooler",), ()),
    (["seq2seq"], ("pooler", "mlm", "nsp"), ("mlm",)),
    (["seq2seq"], ("pooler",), ()),
    (["tagging", "choice"], ("mlm",), ("pooler",)),
    (["seq2seq", "classification"], ("mlm", "nsp"), ("pooler", "mlm")),
])  # fmt: skip
def test_heads_of_the_model_are_those_that_a_task_uses(of, result, needed):
    opened = [OpenedTask(Entry("t", kind, DataLocation("x")), TASKS[kind], {}) for kind in of]
    assert heads_needed(opened, result) == needed


@pytest.mark.parametrize("kind,needed", [("tagging", ("pooler",)), ("spans", ("pooler",)), ("seq2seq", ())])  # fmt: skip
def test_heads_on_tokens_need_the_pooler_that_they_read(kind, needed):
    opened = [OpenedTask(Entry("t", kind, DataLocation("x")), TASKS[kind], {})]
    assert heads_needed(opened, (), token_pooler=True) == needed


# Each kind opened from its files.


def opened(folder, kind, **options):
    (one,) = kinds.open_tasks(config_of(f"own:{kind}={folder}", finetune=options), TOKENIZER)
    return one


def test_text_is_opened_with_its_labels_and_options(tmp_path):
    write_splits(tmp_path, has_good, train=20, validation=5)
    one = opened(tmp_path, "classification", label_smoothing=0.1)
    assert one.task == SingleLabel("own", ("no", "yes"), label_smoothing=0.1)
    assert [len(examples) for examples in one.splits.values()] == [20, 5]
    assert list(one.splits) == ["train", "validation"]


def test_numbers_have_no_labels(tmp_path):
    write_splits(tmp_path, len, train=20, validation=5)
    assert opened(tmp_path, "classification", label_type="number").task == Regression("own")


def test_a_task_of_glue_has_its_own_labels_whatever_occurs(tmp_path):
    for name in ("train", "dev"):
        write_table(
            tmp_path / f"{name}.tsv",
            [("a", "b", "entailment")],
            ["sentence1", "sentence2", "label"],
        )
    (one,) = kinds.open_tasks(
        config_of(f"rte={tmp_path}", finetune={"label_type": "number"}), TOKENIZER
    )
    assert one.task.labels == ("entailment", "not_entailment")
    assert (one.task.name, one.task.label_type) == ("rte", "class")


def test_tags_are_read_from_conll_files_and_from_json(tmp_path):
    write_tagged(tmp_path / "conll", train=20, validation=5)
    one = opened(tmp_path / "conll", "tagging")
    assert one.task == Tagging("own", ("O", "B-LOC"), scheme="IOB2", columns=(0, -1))
    line = (
        json.dumps({"tokens": ["rome"], "places": ["B-LOC"]})
        + "\n"
        + json.dumps({"tokens": ["a"], "places": ["O"]})
    )
    (tmp_path / "json").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "json" / f"{name}.jsonl").write_text(line)
    assert opened(tmp_path / "json", "tagging", label_column="places").task == dataclasses.replace(
        one.task, columns=()
    )


def test_questions_without_an_answer_make_the_task_version_2(tmp_path):
    question = {"id": "1", "question": "where?", "answers": [{"text": "rome", "answer_start": 3}]}
    for name, answers in (("squad", question["answers"]), ("v2", [])):
        both = [question, question | {"id": "2", "answers": answers, "is_impossible": not answers}]
        content = {
            "version": "1",
            "data": [{"title": "t", "paragraphs": [{"context": "in rome", "qas": both}]}],
        }
        for split in ("train", "dev"):
            epath.Path(tmp_path / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / f"{split}.json").write_text(json.dumps(content))
    options = {"doc_stride": 7, "max_query_length": 6, "max_answer_length": 5, "n_best_size": 4}
    assert opened(tmp_path / "squad", "spans", **options).task == Spans("own", False, 7, 6, 5, 4)
    assert opened(tmp_path / "v2", "spans").task.version_2


@pytest.mark.parametrize("form", ["squad", "table"])
def test_a_validation_question_without_an_answer_needs_the_option_if_training_has_none(
    tmp_path, form
):
    answered = {"text": ["rome"], "answer_start": [3]}
    rows = [{"id": "1", "question": "where?", "context": "in rome", "answers": answered}]
    rows.append(rows[0] | {"id": "2", "answers": {"text": [], "answer_start": []}})
    for name, kept in (("train.json", rows[:1]), ("dev.json", rows)):
        content = kept
        if form == "squad":
            questions = [{**row, "context": "x"} for row in kept]
            content = {"data": [{"paragraphs": [{"context": "in rome", "qas": questions}]}]}
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        opened(tmp_path, "spans")
    assert str(caught.value) == (
        f"{tmp_path}/dev.json: question 2: found no answer (1 of 2 questions have none), expected"
        " one, as all training questions have; or finetune.unanswerable, to count these as in"
        " SQuAD 2.0"
    )
    assert opened(tmp_path, "spans", unanswerable=True).task.version_2


def test_choices_have_as_many_endings_as_the_first_example(tmp_path):
    rows = [("the cat", "sees", "hears", "no", 1), ("the dog", "sees", "hears", "no", 0)]
    for name in ("train", "val"):
        write_table(
            tmp_path / f"{name}.tsv", rows, ["context", "ending0", "ending1", "ending2", "label"]
        )
    one = opened(tmp_path, "choice", label_smoothing=0.1)
    assert one.task == Choice("own", 3, 0.1)


def test_codahs_one_file_is_cut_into_splits_where_it_has_no_other(tmp_path):
    lines = [f"c\tthe cat {n} sees\ta\tb\tc\td\t{n % 4}\n" for n in range(50)]
    (tmp_path / "full_data.tsv").write_text("".join(lines))
    (one,) = kinds.open_tasks(config_of(f"codah={tmp_path}"), TOKENIZER)
    parts = [{example.context for example in examples} for examples in one.splits.values()]
    assert len(parts[0]) > 20
    assert parts[1]
    assert not parts[0] & parts[1]


def test_pairs_are_opened_with_their_options(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.src").write_text("the cat\n")
        (tmp_path / f"{name}.tgt").write_text("the dog\n")
    one = opened(tmp_path, "seq2seq", max_target_length=9, beam_size=2, label_smoothing=0.1)
    assert one.task == make_task(
        "own", TOKENIZER, max_target_length=9, beam_size=2, label_smoothing=0.1
    )
    with pytest.raises(
        UserError, match=re.escape("finetune.text_columns: found ('a',), expected two")
    ):
        opened(tmp_path, "seq2seq", text_columns=("a",))


def test_a_broken_sequence_of_tags_is_refused_in_training_and_scored_in_validation(tmp_path):
    write_tagged(tmp_path, train=20, validation=5)
    good = (tmp_path / "train.txt").read_text() + "\nrome\tB-LOC\nparis\tI-LOC\n"
    (tmp_path / "train.txt").write_text(good)
    (tmp_path / "dev.txt").write_text("the\tO\nrome\tI-LOC\n")
    assert opened(tmp_path, "tagging").splits["validation"][0].tags == ("O", "I-LOC")
    (tmp_path / "train.txt").write_text(good + "\nthe\tO\nrome\tI-LOC\n")
    with pytest.raises(
        UserError, match=r"sentence train.txt:\d+, word 2 'rome': found I-LOC after O"
    ):
        opened(tmp_path, "tagging")


def test_files_by_name_are_for_one_task_only(tmp_path):
    config = config_of(
        f"a:classification={tmp_path}",
        f"b:classification={tmp_path}",
        finetune={"test_files": ("x.tsv",)},
    )
    with pytest.raises(
        UserError,
        match="finetune.train_files: found .*x.tsv.*, expected none where there are several",
    ):
        kinds.open_tasks(config, TOKENIZER)


def test_the_plain_words_of_a_task_are_its_fields():
    task = TASKS["choice"]
    assert to_plain(task) == {"kind": "choice", **dataclasses.asdict(task)}


@pytest.mark.parametrize("change,message", [
    ({"labels": 3}, "there/meta: labels: found 3, expected a list"),
    ({"labels": ["no", 1]}, "there/meta: labels[1]: found 1"),
    ({"class_weights": ["x"]}, "there/meta: class_weights[0]: found 'x'"),
    ({"label_smoothing": None}, "there/meta: label_smoothing: found None"),
    ({"label": []}, "there/meta: found the field 'label', expected one of"),
    ({"kind": []}, "there/meta: found the kind of task a list of 0"),
])  # fmt: skip
def test_a_task_of_other_fields_is_refused(change, message):
    values = json.loads(OLD_META["classification"]) | change
    with pytest.raises(UserError) as refused:
        from_plain(values, "there/meta")
    assert str(refused.value).startswith(message)


def test_what_is_no_task_is_refused():
    for values in ([], 1, None, "x"):
        with pytest.raises(UserError, match="there/meta: found .*, expected a task"):
            from_plain(values, "there/meta")
