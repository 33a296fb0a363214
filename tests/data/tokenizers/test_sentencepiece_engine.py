import sentencepiece as spm

from bertjax.data.tokenizers.sentencepiece_engine import engine_of
from bertjax.data.tokenizers.sentencepiece_model import read_model, with_scores
from tests.data.tokenizers.test_tokenizer import TEXTS, TRAINED


def test_merges_follow_the_scores_and_not_the_ids():
    known = {p.name: i for i, p in enumerate(read_model(TRAINED["bpe"]._content).pieces)}
    content = with_scores(
        TRAINED["bpe"]._content, lambda piece: -float(known[piece.name] * 79 % 211)
    )
    theirs, ours = spm.SentencePieceProcessor(model_proto=content), engine_of(read_model(content))
    for text in TEXTS[:5]:
        assert ours.encode(text).ids == theirs.encode(text)
    assert theirs.encode(TEXTS[0]) != TRAINED["bpe"].encode_batch(TEXTS[:1])[0].tolist()
