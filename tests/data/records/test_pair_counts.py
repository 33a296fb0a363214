import pytest

from bertjax.config import DataConfig, to_dict
from bertjax.data.records.manifest import Manifest
from bertjax.data.records.pair_counts import describe_pairs
from bertjax.data.records.record_format import Schema, ShardInfo


def manifest_of(counts, objective="next_sentence", sentences=1):
    data = to_dict(DataConfig(sentence_objective=objective))
    return Manifest(
        schemas={split: Schema(128, 20, sentences) for split in ("train", "validation")},
        tokenizer_fingerprint="",
        vocab_size=100,
        settings={"data": data},
        sources={},
        shards=(ShardInfo("train-00000-of-00001.tfrecord", "train", 9, 900, "", 9),),
        validation_unigram_entropy=0.0,
        counts=counts,
    )


@pytest.mark.parametrize("counts,objective,expected", [
    ({"train_pairs_with_next": 200, "train_random_next": 101, "train_pairs_without_next": 50}, "next_sentence",
     "next sentence: 50.5% random of the pairs with a next sentence, 20.0% of all pairs have none"),
    # Documents of a sentence each.
    ({"train_pairs_with_next": 0, "train_random_next": 0, "train_pairs_without_next": 5}, "next_sentence",
     "next sentence: 0.0% random of the pairs with a next sentence, 100.0% of all pairs have none"),
    ({"train_pairs": 300, "train_swapped_pairs": 150, "train_unmade_pairs": 100}, "sentence_order",
     "sentence order: 50.0% of the pairs swapped, 25.0% of all not made, of one token"),
    ({}, "none", ""),
    ({"train_documents": 7}, "next_sentence", ""),  # of an earlier version
])  # fmt: skip
def test_the_shares_follow_from_the_counts(counts, objective, expected):
    manifest = manifest_of(counts, objective, 0 if objective == "none" else 1)
    assert describe_pairs(manifest, "train") == expected


def test_a_split_without_pairs_says_so_and_one_without_shards_nothing():
    manifest = manifest_of({"train_documents": 1}, sentences=0)
    assert describe_pairs(manifest, "train") == (
        "next sentence: no pairs, for the split has one document"
    )
    manifest = manifest_of({"train_documents": 30}, sentences=0)
    assert describe_pairs(manifest, "train") == (
        "next sentence: no pairs, for nearly all documents of the split have one sentence"
    )
    assert describe_pairs(manifest, "validation") == ""
