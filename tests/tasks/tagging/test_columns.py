"""Columns of CoNLL files: found in the file, and changed by options."""

import json

import pytest

from bertjax.config import FinetuneConfig
from bertjax.tasks.registry import entry_of
from bertjax.tasks.tagging.columns import CONLL_U, NUMBERED, Columns, chosen_columns, columns_of
from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.kind import TaggingKind
from tests.tasks.tagging.test_conll import UNIVERSAL, error_of, shown
from tests.tasks.tagging.test_task import TOKENIZER

pytestmark = pytest.mark.quick

GERMEVAL = """\
#\thttp://de.wikipedia.org/wiki/Schartau
1\tAufgrund\tO\tO
2\tder\tO\tO
3\tRom-Tour\tB-OTHERpart\tB-LOC

#\thttp://de.wikipedia.org
1\tParis\tB-LOC\tO
"""
NO_COLUMN_NUMBERS = [
    "1 O\n2 O\n",  # words that are numbers
    "1 CD O\nRome NNP B-LOC\n",
    "Rome NNP B-LOC\n",
    "3 CD O\n" * 8 + "a DT O\n" * 10 + "3 CD O\n" * 90,  # the first lines decide
    "",
]


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.conll"):
        path = tmp_path / name
        path.write_text(content, "utf-8", newline="")
        return path

    return write


def options(**values):
    return FinetuneConfig(**values)


def test_a_column_of_the_tag_changes_nothing_else_of_conll_u(write):
    path = write(UNIVERSAL.replace("\tVERB\t_", "\tVERB\tVV"), "es.conllu")
    expected = [("Vamos", "nos", "Nueva York"), ("#",)]
    for name, tags in (
        ("", ("VERB", "PRON", "PROPN")),
        ("3", ("VERB", "PRON", "PROPN")),
        ("upos", ("VERB", "PRON", "PROPN")),
        ("XPOS", ("VV", "_", "_")),
        ("7", ("root", "obj", "obl")),
        ("deprel", ("root", "obj", "obl")),
    ):
        columns = chosen_columns(path, options(label_column=name), tags=True)
        examples = read_conll(path, columns=columns)
        assert [example.words for example in examples] == expected
        assert examples[0].tags == tags
    columns = chosen_columns(path, options(text_columns=("lemma",)), tags=True)
    assert read_conll(path, columns=columns)[0].words == ("ir", "nosotros", "_")


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a"])
def test_conll_u_is_known_without_its_ending(write, name):
    path = write(UNIVERSAL, name)
    assert columns_of(path) == CONLL_U
    assert shown(read_conll(path))[0][1:] == (
        ("Vamos", "nos", "Nueva York"),
        ("VERB", "PRON", "PROPN"),
    )


def test_the_words_numbers_of_other_files_are_no_words(write):
    path = write(GERMEVAL, "NER-de-train.tsv")
    assert columns_of(path) == NUMBERED
    assert shown(read_conll(path)) == [
        ("NER-de-train.tsv:2", ("Aufgrund", "der", "Rom-Tour"), ("O", "O", "B-LOC")),
        ("NER-de-train.tsv:7", ("Paris",), ("O",)),
    ]
    columns = chosen_columns(path, options(label_column="2"), tags=True)
    assert read_conll(path, columns=columns)[0].tags == ("O", "O", "B-OTHERpart")
    # Counted over the whole file, from 0, and without tags.
    assert columns_of(write("0 EU B-ORG\n1 is O\n\n2 Rome B-LOC\n")) == NUMBERED
    unlabelled = write("1 EU\n2 is\n")
    assert columns_of(unlabelled, tags=False) == NUMBERED
    assert read_conll(unlabelled, tags=False)[0].words == ("EU", "is")


@pytest.mark.parametrize("content", NO_COLUMN_NUMBERS)
def test_words_that_are_numbers_stay_words(write, content):
    assert columns_of(write(content)) == Columns()


SENTENCES = "".join(f"1\tthe\tO\n2\tking{number}\tB-PER\n\n" for number in range(60))


@pytest.mark.parametrize(
    "content, line, found",
    [
        (SENTENCES.replace("2\tking50", "3\tking50"), 152, "'3' at the beginning of a line after the"
         " number 1"),
        (SENTENCES.replace("1\tthe", "2\tthe", 1), 1, "'2' at the beginning of the first word"),
        (SENTENCES.replace("king1\tB-PER\n\n", "king1\tB-PER\n"), 6, "'1' at the beginning of a"
         " line after the number 2"),
        (SENTENCES.replace("2\tking7", "two\tking7", 1), 23, "'two' at the beginning of a line"),
        (UNIVERSAL.replace("\n3\tNueva", "\n4\tNueva"), None, "'4' at the beginning of a line"),
        ("7 CD O\n8 CD O\n", 1, "'7' at the beginning of the first word's line"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_count_the_words_are_refused(write, content, line, found):
    path = write(content)
    error = error_of(lambda: chosen_columns(path, options(), tags=True))
    assert error.startswith(f"{path}, line {line or ''}")
    assert f"found {found}" in error
    assert "--finetune.text-columns" in error
    # With the option the file is read, without its ranges and comments.
    chosen = options(text_columns=("1",))
    columns = chosen_columns(path, chosen, tags=True)
    assert (columns.word, columns.numbered) == (1, True)
    assert chosen_columns(path, options(text_columns=("0",)), tags=True) == Columns()


def test_sentences_of_one_word_have_numbers_too(write):
    path = write("1\tjohn\tO\n\n1\tmary\tO\n")
    assert [example.words for example in read_conll(path)] == [("john",), ("mary",)]


def test_other_columns_than_those_of_training_are_refused(write):
    def read(content, **values):
        path = write(content, "train.conll")
        entry = entry_of("ner:tagging=" + str(path.parent), options(**values))
        return TaggingKind().read_split(entry, "train", options(**values), True)

    numbered, plain = read(SENTENCES), read("the O\nking B-PER\n")
    task = TaggingKind().make_task("ner", numbered, options(), TOKENIZER)
    assert task.columns == (1, -1)
    kind = TaggingKind()
    assert kind.from_dict(json.loads(json.dumps(kind.to_dict(task))), "meta") == task
    message = error_of(lambda: task.encode(plain, TOKENIZER, 16, targets=False))
    assert message == (
        "ner: sentence train.conll:1: found the words in column 0 from 0, expected column 1 from 0,"
        " as in the training files (or the column, from 0, in --finetune.text-columns)"
    )
    conll_u = read(UNIVERSAL)
    assert "tags in column 3 from 0" in error_of(
        lambda: task.encode(conll_u, TOKENIZER, 16, targets=False)
    )
    # A given column is no surprise, and other sources have no columns.
    for examples in (numbered, read("the O\nking B-PER\n", text_columns=("0",))):
        assert task.encode(examples, TOKENIZER, 16, targets=False).items == len(examples)


def test_columns_are_chosen_by_number_or_by_a_given_name(write):
    path = write("B-LOC NNP Rome\n")
    for word, tag, names in (("2", "0", ()), ("word", "ner", ("ner", "pos", "word"))):
        chosen = options(text_columns=(word,), label_column=tag, columns=names)
        (example,) = read_conll(path, columns=chosen_columns(path, chosen, tags=True))
        assert (example.words, example.tags) == (("Rome",), ("B-LOC",))
    # Of several tasks, another one has the columns of texts.
    shared = options(text_columns=("a", "b"), tasks=("x:tagging=x", "y:classification=y"))
    assert chosen_columns(path, shared, tags=True) == Columns()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"label_column": "ner"}, "finetune.label_column: found ner, expected the number of a CoNLL"
         " file's column, from 0"),
        ({"label_column": "upos", "columns": ("word", "tag")},
         "finetune.label_column: found upos, expected one of word, tag, or the number"),
        ({"label_column": "0"}, "finetune.label_column: found 0, expected another column than the"
         " word's, which is number 0 from 0 (finetune.text_columns)"),
        ({"text_columns": ("0", "1")}, "finetune.text_columns: found 0, 1, expected one column"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_are_refused(write, values, message):
    path = write("Rome B-LOC\n")
    error = error_of(lambda: chosen_columns(path, options(**values), tags=True))
    assert error.startswith(message)


def test_words_of_thousands_of_digits_are_words(write):
    assert columns_of(write("9" * 5000 + " CD O\n" + "8" * 5000 + " CD O\n")) == Columns()
    path = write("1 a O\n" + "9" * 5000 + " b O\n")
    assert columns_of(path) == Columns()


@pytest.mark.parametrize("content", ["1\tCD\tO\n\n#\tSYM\tO\n", "# SYM O\n\n1 CD O\n"])
def test_words_that_could_be_a_number_and_a_comment_are_refused(write, content):
    error = error_of(lambda: chosen_columns(write(content), options(), tags=True))
    assert "found '#' at the beginning of a line with as many columns as words have" in error
    assert "--finetune.text-columns" in error
    columns = chosen_columns(write(content), options(text_columns=("0",)), tags=True)
    assert {example.words for example in read_conll(write(content), columns=columns)} == {
        ("1",),
        ("#",),
    }
    # A sentence of two words shows that the file counts them.
    assert columns_of(write(content + "\n1\ta\tO\n2\tb\tO\n".replace("\t", content[1]))) == NUMBERED
