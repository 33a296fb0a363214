"""Remarks follow from the manifest alone, so manifests are written here by hand."""

import pytest

from bertjax.data.records.manifest import Manifest
from bertjax.data.records.record_format import ShardInfo
from bertjax.data.records.remarks import remarks
from bertjax.errors import UserError

COUNTS = {
    "train_documents": 950, "train_tokens": 95_000, "train_largest_document_tokens": 900,
    "validation_documents": 50, "validation_tokens": 5_000, "validation_largest_document_tokens": 800,
    "train_moved_documents": 0, "validation_moved_documents": 0,
}  # fmt: skip
SHARES = {"train": {"Latin": 900, "Han": 100}, "validation": {"Latin": 90, "Han": 10}}


def manifest(fraction=0.05, scripts=SHARES, **counts):
    splits = ("train", "validation") if fraction else ("train",)
    shards = tuple(
        ShardInfo(name=s, split=s, records=9, bytes=9, sha256="", max_id=1) for s in splits
    )
    return Manifest(
        schemas={}, tokenizer_fingerprint="", vocab_size=9,
        settings={"data": {"validation_fraction": fraction}}, sources={}, shards=shards,
        validation_unigram_entropy=0.0, counts=COUNTS | counts, scripts=scripts,
    )  # fmt: skip


def test_there_is_nothing_to_say_of_an_even_corpus_or_of_an_earlier_folder():
    assert remarks(manifest()) == []
    old = {name: count for name, count in COUNTS.items() if "largest" not in name}
    old = {name: count for name, count in old.items() if "moved" not in name}
    made = manifest(scripts={})
    made.counts.clear()
    made.counts.update(old)
    assert remarks(made) == []


@pytest.mark.parametrize("counts,line", [
    ({"validation_moved_documents": 2, "train_documents": 58, "validation_documents": 2, "validation_tokens": 4000},
     "few documents: 2 of 60 moved to split validation, which had too few"),
    ({"train_moved_documents": 1, "train_documents": 1, "validation_documents": 2},
     "few documents: 1 of 3 moved to split train"),
    ({"long_document_cuts": 1_002}, "documents of more than about a million characters were cut in 1,002 places;"),
    ({"train_largest_document_tokens": 80_000}, "one of 950 documents has 84% of the tokens of split train"),
    ({"validation_largest_document_tokens": 2_501}, "one of 50 documents has 50% of the tokens of split validation"),
    ({"validation_tokens": 1_900}, "held-out documents have 2.0% of the tokens, where data.validation_fraction is 5.0%"),
    ({"validation_tokens": 19_000}, "held-out documents have 16.7% of the tokens"),
])  # fmt: skip
def test_what_makes_held_out_losses_say_less_is_one_line(counts, line):
    (found,) = remarks(manifest(**counts))
    assert found.startswith(line)


def test_one_of_two_documents_outweighs_the_other_from_three_quarters_on():
    two = {"train_documents": 2, "train_tokens": 100_000}
    assert remarks(manifest(**two, train_largest_document_tokens=74_000)) == []
    assert len(remarks(manifest(**two, train_largest_document_tokens=76_000))) == 1
    assert remarks(manifest(train_documents=1, train_largest_document_tokens=95_000)) == []


@pytest.mark.parametrize("train,validation,said", [
    ({"Latin": 900, "Han": 100}, {"Latin": 100}, "Han letters are 10.0% of split train and 0.0% of split validation"),
    ({"Latin": 900, "Han": 100}, {"Latin": 999, "Han": 1}, "Han letters are 10.0% of split train and 0.1%"),
    ({"Latin": 100}, {"Latin": 50, "Thai": 50}, "Thai letters are 50.0% of split validation and 0.0% of split train"),
    ({"Latin": 900, "Han": 100}, {"Latin": 980, "Han": 20}, None),  # few, but there
    ({"Latin": 995, "Greek": 5}, {"Latin": 100}, None),  # names and formulas
    ({}, {}, None),
])  # fmt: skip
def test_a_script_that_one_split_lacks_is_named(train, validation, said):
    found = remarks(manifest(scripts={"train": train, "validation": validation}))
    assert len(found) == (said is not None)
    if said:
        assert found[0].startswith(said)


def test_without_held_out_documents_only_the_training_split_is_spoken_of():
    found = remarks(
        manifest(
            fraction=0,
            validation_tokens=0,
            validation_documents=0,
            validation_largest_document_tokens=0,
            scripts={"train": {"Latin": 9}, "validation": {}},
            train_largest_document_tokens=80_000,
        )
    )
    assert len(found) == 1
    assert "84% of the tokens of split train" in found[0]


def test_a_count_that_is_not_there_is_named():
    """A flipped bit may change a name."""
    made = manifest()
    del made.counts["train_tokens"]
    with pytest.raises(UserError, match=r"manifest\.json: counts: found no train_tokens, expected"):
        remarks(made)
