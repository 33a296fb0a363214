import hashlib
import random

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation import near_duplicates
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.near_duplicates import (
    PERMUTATIONS,
    SHINGLE,
    find_near_duplicates,
    read_dropped,
    write_signatures,
)
from bertjax.data.preparation.prepare import prepare
from bertjax.errors import UserError

pytest.importorskip("rensa")

WORDS = [f"w{n}" for n in range(2000)]


def documents_of(tokens):
    ends = np.cumsum([0, *map(len, tokens)])
    tokens = [np.asarray(own, np.int32) for own in tokens]
    hashes = [hashlib.sha256(own.tobytes()).digest()[:16] for own in tokens]
    digests = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)
    return Documents(
        np.concatenate([np.zeros(0, np.int32), *tokens]), ends, np.arange(len(tokens) + 1), digests
    )


def changed(tokens, count, seed):
    """Replace `count` tokens, no two of them in one 5-gram.

    Of the S 5-grams of the text 5 * count differ then.
    """
    rng = np.random.default_rng(seed)
    tokens = np.array(tokens)
    positions = rng.choice(
        np.arange(SHINGLE, len(tokens) - SHINGLE, SHINGLE + 1), count, replace=False
    )
    tokens[positions] = rng.integers(10**6, 10**9, count)
    return tokens


def grams(tokens):
    return {tuple(tokens[i : i + SHINGLE]) for i in range(len(tokens) - SHINGLE + 1)}


def dropped_of(folder, parts, threshold):
    """Return the digests of the documents dropped from these parts.

    Each part is the documents' tokens of one work unit.
    """
    for number, part in enumerate(parts):
        unit = epath.Path(folder) / ".work" / f"unit{number}"
        unit.mkdir(parents=True)
        write_signatures(unit / "signatures-00000", documents_of(part))
    find_near_duplicates(str(folder), [f"unit{number}" for number in range(len(parts))], threshold)
    return {digest.tobytes() for digest in read_dropped(epath.Path(folder) / ".work")}


def digests_of(tokens):
    return [digest.tobytes() for digest in documents_of(tokens).digests]


@pytest.mark.parametrize("threshold,count,similar", [
    (0.8, 2, True), (0.8, 20, False), (0.5, 10, True), (0.5, 40, False), (0.95, 8, False), (0.3, 25, True),
])  # fmt: skip
def test_what_is_well_above_the_threshold_is_joined_and_what_is_well_below_is_not(
    tmp_path, threshold, count, similar
):
    rng = np.random.default_rng(0)
    pairs = []
    for seed in range(20):
        tokens = rng.integers(5, 30000, 404)
        pairs.append((tokens, changed(tokens, count, seed)))
        a, b = map(grams, pairs[-1])
        jaccard = len(a & b) / len(a | b)
        assert jaccard == (400 - 5 * count) / (400 + 5 * count)
        assert abs(jaccard - threshold) > 0.08
    dropped = dropped_of(tmp_path, [[tokens for pair in pairs for tokens in pair]], threshold)
    for pair in pairs:
        assert dropped & set(digests_of(pair)) == ({max(digests_of(pair))} if similar else set())


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=8),
    st.integers(0, 9),
    st.randoms(),
)
def test_of_each_family_one_stays_however_its_copies_are_spread(
    tmp_path_factory, families, seed, rng
):
    drawn = np.random.default_rng(seed)
    all_tokens, expected = [], set()
    for members, copies in families:
        tokens = drawn.integers(5, 30000, 404)
        own = [tokens, *(changed(tokens, 1, n) for n in range(1, members))]
        all_tokens += own * copies  # copies of one document are no near duplicates of it
        expected |= set(digests_of(own)) - {min(digests_of(own))}
    rng.shuffle(all_tokens)
    cut = rng.randint(0, len(all_tokens))
    parts = [part for part in (all_tokens[:cut], all_tokens[cut:]) if part]
    assert dropped_of(tmp_path_factory.mktemp("near"), parts, 0.8) == expected


def test_short_documents_are_like_their_exact_copies_only(tmp_path):
    short = [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 5], [1, 2, 3, 4], [7]]
    assert dropped_of(tmp_path, [[*short, range(40), [8]]], 0.5) == set()


def test_a_work_unit_without_documents_is_no_hindrance(tmp_path):
    tokens = np.arange(404)
    pair = [tokens, changed(tokens, 2, 0)]
    assert dropped_of(tmp_path / "some", [[], pair, []], 0.8) == {max(digests_of(pair))}
    assert dropped_of(tmp_path / "none", [[]], 0.8) == set()


def test_a_finished_search_is_not_done_again(tmp_path):
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "near_duplicates").write_bytes(b"x" * 16)
    find_near_duplicates(str(tmp_path), ["no such unit"], 0.8)
    assert (tmp_path / ".work" / "near_duplicates").read_bytes() == b"x" * 16


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=6))
def test_the_shingles_are_each_documents_own_5_grams(texts):
    hashes, offsets = near_duplicates._shingles(documents_of(texts))
    assert offsets[-1] == len(hashes)
    of_hash = {}
    for number, own in enumerate(texts):
        own_hashes = hashes[int(offsets[number]) : int(offsets[number + 1])].tolist()
        expected = [tuple(own[i : i + SHINGLE]) for i in range(len(own) - SHINGLE + 1)] or [
            ("short", *own)
        ]
        assert len(own_hashes) == len(expected)
        for hash_, gram in zip(own_hashes, expected, strict=True):
            assert of_hash.setdefault(hash_, gram) == gram
    assert len(set(of_hash.values())) == len(of_hash)


@given(st.floats(0.05, 1.0))
def test_a_pair_at_the_threshold_shares_a_band_in_99_cases_of_100(threshold):
    size = near_duplicates._band_size(threshold)
    assert PERMUTATIONS % size == 0
    recall = 1 - (1 - threshold**size) ** (PERMUTATIONS // size)
    assert recall >= 0.99 or size == 1
    recall_of_larger = 1 - (1 - threshold ** (2 * size)) ** (PERMUTATIONS // (2 * size))
    assert recall_of_larger < 0.99 or size == 32


def texts_of(tmp_path, folder, documents):
    (tmp_path / folder).mkdir()
    for name, own in documents.items():
        text = "\n\n".join(
            "\n".join(" ".join(words[i : i + 8]) for i in range(0, len(words), 8)) for words in own
        )
        (tmp_path / folder / f"{name}.txt").write_text(text + "\n")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return str(vocabulary)


def shards_and_counts(tmp_path, name, folder, vocabulary, **data):
    defaults = {
        "corpus": (str(tmp_path / folder),), "max_seq_length": 64, "max_predictions_per_seq": 10, "dupe_factor": 1,
        "num_shards": 2, "validation_fraction": 0.2, "workers": 1, "near_duplicate_threshold": 0.8,
    }  # fmt: skip
    config = Config(
        data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(vocab_file=vocabulary)
    )
    manifest = prepare(config, tmp_path / name)
    return [shard.sha256 for shard in manifest.shards], manifest.counts


def test_a_preparation_drops_all_but_one_whatever_the_order_of_files_and_the_workers(tmp_path):
    rng = random.Random(0)
    unrelated = [rng.choices(WORDS, k=160) for _ in range(40)]
    altered = []
    for words in unrelated[:6]:  # each thrice: itself, and two with two words changed
        for _ in range(2):
            altered.append(list(words))
            for place in rng.sample(range(160), 2):
                altered[-1][place] = rng.choice(WORDS)
    documents = {
        "a": unrelated,
        "b": altered[:7],
        "c": [*altered[7:], *unrelated[20:25]],
    }  # and five exact copies
    vocabulary = texts_of(tmp_path, "one", documents)
    texts_of(
        tmp_path, "two", {"x": documents["c"][::-1], "y": documents["a"], "z": documents["b"][::-1]}
    )

    shards, counts = shards_and_counts(tmp_path, "out", "one", vocabulary)
    assert counts["near_duplicate_documents"] == 12
    assert counts["duplicate_documents"] == 5
    assert counts["train_documents"] + counts["validation_documents"] == 40
    for name, folder, workers in (("workers", "one", 2), ("order", "two", 1)):
        assert shards_and_counts(tmp_path, name, folder, vocabulary, workers=workers)[0] == shards

    _, without = shards_and_counts(
        tmp_path, "without", "one", vocabulary, near_duplicate_threshold=0.0
    )
    assert without["near_duplicate_documents"] == 0
    assert without["train_documents"] + without["validation_documents"] == 52


def test_a_split_that_only_near_duplicates_would_fill_is_refused_and_names_them(tmp_path):
    words = random.Random(0).choices(WORDS, k=160)
    altered = [[*words[:-1], last] for last in WORDS[:12]]
    vocabulary = texts_of(tmp_path, "alike", {"a": altered})
    with pytest.raises(
        UserError, match=r"split \w+, of 1 documents, 11 near-duplicates dropped: found no instance"
    ):
        shards_and_counts(tmp_path, "out", "alike", vocabulary, sentence_objective="none")
