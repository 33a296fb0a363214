import sentencepiece as spm

from bertjax.data.tokenizers.sentencepiece_model import (
    BPE,
    UNIGRAM,
    read_model,
    with_exact_scores,
    with_scores,
)
from tests.data.tokenizers.test_tokenizer import TRAINED


def test_a_model_file_is_read_as_sentencepiece_reads_it():
    for kind, algorithm in (("unigram", UNIGRAM), ("bpe", BPE)):
        content = TRAINED[kind]._content
        theirs, ours = spm.SentencePieceProcessor(model_proto=content), read_model(content)
        all_ids = range(theirs.vocab_size())
        assert [(p.name, p.score) for p in ours.pieces] == [
            (theirs.id_to_piece(i), theirs.get_score(i)) for i in all_ids
        ]
        assert [p.type == 3 for p in ours.pieces] == [theirs.is_control(i) for i in all_ids]
        assert (ours.algorithm, ours.unk_id, ours.rule_name) == (algorithm, 1, "nmt_nfkc_cf")
        assert ours.add_dummy_prefix
        assert ours.remove_extra_whitespaces
        assert len(ours.charsmap) > 100_000


def test_with_scores_changes_nothing_else_in_the_file():
    content = TRAINED["unigram"]._content
    other = with_scores(content, lambda piece: piece.score - 1)
    before, after = read_model(content), read_model(other)
    assert [p.score for p in after.pieces] == [p.score - 1 for p in before.pieces]
    assert after._replace(pieces=[]) == before._replace(pieces=[])
    theirs = spm.SentencePieceProcessor(model_proto=other)
    assert [theirs.get_score(i) for i in range(theirs.vocab_size())] == [
        p.score for p in after.pieces
    ]


def test_a_trained_unigram_model_has_scores_whose_sums_are_exact():
    content = TRAINED["unigram"]._content
    assert all((p.score * 1024).is_integer() for p in read_model(content).pieces)
    shifted = with_scores(content, lambda piece: piece.score + 0.0001)
    assert read_model(with_exact_scores(shifted)) == read_model(content)
