import dataclasses
import json

import pytest

from bertjax.data.preparation import documents as docs
from bertjax.data.preparation.inputs import pair_survey
from bertjax.data.preparation.inputs.pair_survey import SplitSurvey, survey_split
from bertjax.data.preparation.prepare import prepare
from bertjax.data.preparation.shard_assignment import bound_of, split_word
from bertjax.data.records.pair_counts import describe_pairs
from bertjax.errors import UserError
from tests.data.preparation.corpora import config_of, rows_of
from tests.data.preparation.inputs.tokenized import DATA, digests_of, some_texts, tokenized


def survey_of(corpus, split="train"):
    return survey_split(corpus, corpus.plan.ranges_in(split), DATA)


def test_documents_of_a_split_are_counted_without_copies(tmp_path):
    for count in range(4):
        corpus = tokenized(tmp_path / str(count), [some_texts(count) * 3 + some_texts(count)], 50)
        assert survey_of(corpus) == SplitSurvey(count, count, count)
        assert survey_of(corpus, "validation") == SplitSurvey()


def test_near_duplicates_do_not_count(tmp_path):
    texts = some_texts(12)
    corpus = dataclasses.replace(tokenized(tmp_path, [texts]), near_duplicates_dropped=True)
    dropped = digests_of(texts[1:])
    (tmp_path / ".work" / "near_duplicates").write_bytes(dropped.tobytes())
    survey = survey_of(corpus)
    assert survey == SplitSurvey(1, 1, 1)
    assert not survey.is_enough()


# Rows have place for 61 tokens.
@pytest.mark.parametrize("texts,expected", [
    (["one", "two", "three"], SplitSurvey(3, 0, 0)),
    (["one", "two", "three four"], SplitSurvey(3, 1, 1)),
    (["one", "two", "x" * 62], SplitSurvey(3, 1, 1)),  # longer than a row, and counts as two
    (["one", "two", "x" * 61], SplitSurvey(3, 0, 0)),
    (["one", "two", "x" * 183 + " y"], SplitSurvey(3, 1, 3)),
])  # fmt: skip
def test_next_sentences_are_found_wherever_they_are(tmp_path, texts, expected):
    corpus = tokenized(tmp_path, [[text] for text in texts], shards=90)
    assert survey_of(corpus) == expected


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_a_split_that_has_too_few_next_sentences_is_read_to_its_end(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(pair_survey, "MAX_TOKENS_AT_ONCE", at_once)
    monkeypatch.setattr(pair_survey, "ENOUGH_DOCUMENTS", 20)
    single = [text.split()[0] for text in some_texts(400)]
    single = sorted(set(single))
    corpus = tokenized(tmp_path / "few", [single + some_texts(20, seed=1)], shards=40)
    assert survey_of(corpus) == SplitSurvey(len(single) + 20, 20, 20)
    corpus = tokenized(tmp_path / "all", [some_texts(400)], shards=40)
    survey = survey_of(corpus)
    assert survey.is_enough()
    assert 20 <= survey.documents < 100


@pytest.mark.parametrize("others,enough", [(4, True), (5, False)])
def test_a_fifth_of_the_pairs_must_have_a_next_sentence(tmp_path, others, enough):
    single = [f"{letter * 3}" for letter in "abcdefgh"[:others]]
    corpus = tokenized(tmp_path, [[*single, "two words"]])
    assert survey_of(corpus).is_enough() == enough


def test_one_document_left_of_near_duplicates_gives_no_next_sentences_and_what_to_do_is_said(
    tmp_path,
):
    """That the corpus has one document is said before the work; this is known only after it."""
    pytest.importorskip("rensa")
    sentences = [f"The {n}th sentence is about the number {n * n}." for n in range(60)]
    variants = ["\n".join([f"Variant {n} of the text.", *sentences]) for n in range(3)]
    (tmp_path / "a.txt").write_text("\n\n".join(variants))
    config = config_of(tmp_path / "a.txt", validation_fraction=0.0, near_duplicate_threshold=0.8)
    with pytest.raises(UserError) as raised:
        prepare(config, tmp_path / "out")
    assert str(raised.value) == (
        "split train: found one document, so that no B is from another, "
        "expected two or more (or data.split_documents, which cuts long ones, "
        "or data.sentence_objective sentence_order or none)"
    )


def one_sentence_each(count, others=()):
    return "\n\n".join([*(f"Sentence number {n}." for n in range(count)), *others])


@pytest.mark.parametrize("others,found", [
    ([], "0 of 43"),
    (["Here is one.\nHere are two.\nAnd three.", "There is one.\nThere are two.\nThree."], "2 of 45"),
])  # fmt: skip
def test_documents_of_a_sentence_each_give_no_next_sentences_and_what_to_do_is_said(
    tmp_path, others, found
):
    """All labels, or nearly all, would be the same."""
    (tmp_path / "a.txt").write_text(one_sentence_each(50, others))
    config = config_of(tmp_path / "a.txt")
    with pytest.raises(UserError) as raised:
        prepare(config, tmp_path / "out")
    assert str(raised.value) == (
        f"split train: found two sentences or more in {found} documents, so that nearly every B "
        "is random, expected a next sentence for 20% of the pairs (or data.sentences paragraphs, "
        "if a line has several sentences, or data.sentence_objective sentence_order or none)"
    )
    # The folder takes the other setting at once.
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".work"]
    prepare(config.replace(data={"sentence_objective": "sentence_order"}), tmp_path / "out")


def test_a_line_a_document_of_one_long_sentence_gives_no_next_sentences(tmp_path):
    """Of twelve lines one is longer than a row, so one A had a next sentence."""
    lines = [f"The line {n} is short." for n in range(11)] + ["and so on " * 12]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    config = config_of(tmp_path / "a.txt", format="line", validation_fraction=0.0)
    with pytest.raises(UserError, match=r"two sentences or more in 1 of 12 documents"):
        prepare(config, tmp_path / "out")


def test_settings_that_other_formats_do_not_have_are_not_advised(tmp_path):
    lines = [json.dumps({"text": f"Sentence number {n}."}) for n in range(50)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError) as raised:
        prepare(config_of(tmp_path / "a.jsonl"), tmp_path / "out")
    assert str(raised.value).endswith(
        "for 20% of the pairs (or data.sentence_objective sentence_order or none)"
    )


@pytest.mark.parametrize("held_out,trained", [(True, False), (False, True)])
def test_documents_of_one_token_cannot_be_swapped_and_that_is_told_before_rows_are_made(
    tmp_path, held_out, trained
):
    # A token each in every WordPiece vocabulary that has them.
    words = [chr(0x4E00 + number) for number in range(120)]
    fraction = 0.1
    short = [
        word for word in words if (split_word(docs.digest([word])) < bound_of(fraction)) == held_out
    ]
    long = [f"{word} and {word} too." for word in words]
    long = [
        text for text in long if (split_word(docs.digest([text])) < bound_of(fraction)) != held_out
    ]
    (tmp_path / "a.txt").write_text("\n\n".join(short[:8] + long[:40]))
    config = config_of(tmp_path / "a.txt", validation_fraction=fraction)
    config = config.replace(
        data={"sentence_objective": "sentence_order"}, tokenizer={"vocab_size": 400}
    )
    if trained:
        with pytest.raises(UserError, match="split train: found no document of two tokens or more"):
            prepare(config, tmp_path / "out")
        return
    manifest = prepare(config, tmp_path / "out")
    assert describe_pairs(manifest, "validation") == (
        "sentence order: no pairs, for no document of the split has two tokens"
    )
    assert "sentence_order" not in str(manifest.schemas["validation"])


@pytest.mark.parametrize("fraction", [0.02, 0.1])
def test_held_out_documents_of_a_sentence_each_are_written_without_pairs(tmp_path, fraction):
    """Each label of them would be 1."""

    def is_held_out(document):
        return split_word(docs.digest(document)) < bound_of(fraction)

    single = [[f"Sentence number {n}."] for n in range(400)]
    several = [[f"Here is {n}.", f"There is {n * n}.", f"And {n}."] for n in range(60)]
    held_out = [document for document in single if is_held_out(document)][:4]
    documents = held_out + [document for document in several if not is_held_out(document)]
    (tmp_path / "a.txt").write_text("\n\n".join("\n".join(lines) for lines in documents))
    manifest = prepare(
        config_of(tmp_path / "a.txt", validation_fraction=fraction), tmp_path / "out"
    )
    assert manifest.counts["validation_documents"] == 4
    assert describe_pairs(manifest, "validation") == (
        "next sentence: no pairs, for nearly all documents of the split have one sentence"
    )
    assert "next_sentence_labels" not in rows_of(tmp_path / "out", manifest, "validation")
    labels = rows_of(tmp_path / "out", manifest, "train")["next_sentence_labels"]
    assert set(labels.ravel().tolist()) == {0, 1}
