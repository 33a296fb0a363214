"""Tagged sentences in tables: lists of words, and of tags or their numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.files.row import TableRow
from bertjax.tasks.files.splits import DataLocation, read_rows
from bertjax.tasks.tagging.table_rows import tagged_rows
from tests.tasks.tagging.test_conll import error_of, shown

pytestmark = pytest.mark.quick

NAMES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")


def test_rows_hold_words_and_tags_as_lists():
    rows = [
        TableRow(
            "data/a.jsonl",
            1,
            {"tokens": ["Ada", "Lovelace"], "pos": ["N", "N"], "ner": ["B-PER", "I-PER"]},
        )
    ]
    assert shown(tagged_rows(rows)) == [("a.jsonl:1", ("Ada", "Lovelace"), ("B-PER", "I-PER"))]
    assert shown(tagged_rows(rows, tag_field="pos")) == [
        ("a.jsonl:1", ("Ada", "Lovelace"), ("N", "N"))
    ]
    assert shown(tagged_rows(rows, tags=False)) == [("a.jsonl:1", ("Ada", "Lovelace"), None)]
    assert tagged_rows([TableRow("tfds:a/b, test", 0, {"words": ["a"], "tags": ["B-X"]})])[
        0
    ].words == ("a",)

    def of(values, **options):
        return error_of(lambda: tagged_rows([TableRow("a.jsonl", 7, values)], **options))

    assert (
        of({"text": "a"}) == "a.jsonl, line 7: found the columns text, expected 'tokens' among them"
    )
    assert (
        of({"tokens": ["a"]})
        == "a.jsonl, line 7: found the columns tokens, expected 'ner' among them"
    )
    assert (
        of({"tokens": "a b"}) == "a.jsonl, line 7, tokens: found 'a b', expected a list of strings"
    )
    assert (
        of({"tokens": ["a"], "tags": [None]})
        == "a.jsonl, line 7, tags: found [None], expected a list of strings, or of whole numbers"
    )
    message = of({"tokens": ["a"], "tags": ["O", "O"]})
    assert message == "a.jsonl, line 7: found 2 tags, expected 1, as many as there are words"


def row(**values):
    return TableRow("a.jsonl", 7, values)


def test_numbers_are_tags_by_their_names():
    (example,) = tagged_rows([row(tokens=["EU", "rejects"], ner_tags=[3, 0])], names=NAMES)
    assert example.tags == ("B-ORG", "O")
    # As text, as floats of a table, and names beside numbers.
    (example,) = tagged_rows([row(tokens=["a"] * 4, ner_tags=["3", 0.0, "I-ORG", 4])], names=NAMES)
    assert example.tags == ("B-ORG", "O", "I-ORG", "I-ORG")
    (example,) = tagged_rows(
        [row(tokens=["EU", "rejects"], ner_tags=[3, 0])], numbers_are_tags=True
    )
    assert example.tags == ("3", "0")


@given(st.lists(st.integers(0, 4), min_size=1))
def test_named_numbers_are_the_names_at_their_places(numbers):
    (example,) = tagged_rows(
        [row(words=["w"] * len(numbers), tags=json.loads(json.dumps(numbers)))], names=NAMES
    )
    assert example.tags == tuple(NAMES[number] for number in numbers)


@pytest.mark.parametrize(
    "tags, names, message",
    [
        ([3], (), "found numbers ([3]), expected the names of the tags, or those of the numbers in"
         " finetune.label_names (or finetune.metric accuracy, which needs no names)"),
        ([5], NAMES, "found the tag 5, expected a number from 0 to 4, or one of the names"),
        ([-100], NAMES, "found the tag -100, expected a number from 0 to 4"),
        (["B-LOC"], NAMES, "found the tag B-LOC, expected a number from 0 to 4"),
        ([True], NAMES, "found [True], expected a list of strings, or of whole numbers"),
        ([0.5], NAMES, "found [0.5], expected a list of strings, or of whole numbers"),
        ("O", NAMES, "found 'O', expected a list of strings, or of whole numbers"),
    ],
)  # fmt: skip
def test_numbers_without_a_name_are_refused(tags, names, message):
    error = error_of(lambda: tagged_rows([row(tokens=["a"], ner_tags=tags)], names=names))
    assert error.startswith(f"a.jsonl, line 7, ner_tags: {message}")


def test_the_words_may_be_in_a_field_of_another_name():
    (example,) = tagged_rows([row(sentence=["a"], y=["O"])], token_field="sentence", tag_field="y")
    assert (example.words, example.tags) == (("a",), ("O",))


@pytest.mark.slow  # seconds to import TensorFlow
def test_tfds_sets_have_tokens_and_numbered_tags(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyTagged(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            named = tfds.features.Sequence(tfds.features.ClassLabel(names=["O", "B-PER", "I-PER"]))
            words = tfds.features.Sequence(tfds.features.Text())
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"tokens": words, "ner": named})
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"tokens": ["Ada", "Lovelace", "你"], "ner": [1, 2, 0]}

    tfds.core.add_data_dir(tmp_path)
    TinyTagged(data_dir=tmp_path).download_and_prepare()
    examples = tagged_rows(read_rows(DataLocation("tfds:tiny_tagged"), "train"))
    assert shown(examples) == [
        ("tfds:tiny_tagged, train:0", ("Ada", "Lovelace", "你"), ("B-PER", "I-PER", "O"))
    ]
