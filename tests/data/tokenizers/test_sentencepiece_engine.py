import re

import pytest
import sentencepiece as spm

from bertjax.data.tokenizers.sentencepiece_engine import engine_of, engine_problem
from bertjax.data.tokenizers.sentencepiece_model import (
    UNUSED,
    _piece,
    _with_fields,
    read_model,
    with_exact_scores,
    with_scores,
)
from tests.data.tokenizers.models import PARTS, SYMBOLS, content, texts
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


# Options of SentencePiece's trainer with which models are read.
OPTIONS = {
    "plain": {},
    "folded": {"normalization_rule_name": "nmt_nfkc_cf"},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "identity": {"normalization_rule_name": "identity"},
    "symbols": {"user_defined_symbols": SYMBOLS},
    "folded symbols": {
        "user_defined_symbols": SYMBOLS,
        "normalization_rule_name": "nmt_nfkc_cf",
    },
    "words joined": {"split_by_whitespace": False},
    "no dummy prefix": {"add_dummy_prefix": False},
    "all spaces": {"remove_extra_whitespaces": False, "user_defined_symbols": SYMBOLS},
    "neither": {"remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "pieces of spaces": {
        "allow_whitespace_only_pieces": True,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    },
    "bytes": {"byte_fallback": True, "vocab_size": 700},
    "few bytes": {"byte_fallback": True, "vocab_size": 400},
    "folded bytes": {"byte_fallback": True, "normalization_rule_name": "nmt_nfkc_cf"},
    "digits": {"split_digits": True, "split_by_unicode_script": False},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_ids_are_those_of_sentencepiece_whatever_its_options(kind, name):
    trained = with_exact_scores(content(kind, **OPTIONS[name]))
    theirs, model = spm.SentencePieceProcessor(model_proto=trained), read_model(trained)
    assert engine_problem(model) is None
    engine = engine_of(model)
    drawn = [*texts(300), *PARTS]
    expected = theirs.encode(drawn)
    for text, ours, ids in zip(drawn, engine.encode_batch(drawn), expected, strict=True):
        assert ours.ids == ids, ascii(text)


def retyped(trained, new_type, of):
    """The model in which each piece for which `of` is true has another type."""
    type_field = 3 << 3

    def fields(_, piece):
        return bytes([type_field, new_type]) if of(_piece(piece)) else b""

    return _with_fields(trained, fields)


def test_unused_pieces_never_come_out_of_unigram():
    trained = with_exact_scores(content())
    unused = {p.name for p in read_model(trained).pieces if p.type == 1 and len(p.name) > 3}
    trained = retyped(trained, UNUSED, lambda piece: piece.name in unused)
    theirs, engine = spm.SentencePieceProcessor(model_proto=trained), engine_of(read_model(trained))
    drawn = texts(200)
    assert [e.ids for e in engine.encode_batch(drawn)] == theirs.encode(drawn)
    assert unused.isdisjoint(piece for e in engine.encode_batch(drawn) for piece in e.tokens)


@pytest.mark.parametrize("kind,options,unused,problem", [
    ("word", {}, "", "SentencePiece's algorithm word"),
    ("char", {}, "", "SentencePiece's algorithm char"),
    ("unigram", {"treat_whitespace_as_suffix": True}, "", "treat_whitespace_as_suffix"),
    ("bpe", {"treat_whitespace_as_suffix": True}, "", "treat_whitespace_as_suffix"),
    ("unigram", {}, "e", "the (unused )?piece '.*e.*', but not each of its characters"),
    ("bpe", {}, "▁the", "the unused piece '▁the'"),
    ("bpe", {}, "e", "the unused piece 'e'|the piece '.*e.*', but not each of its characters"),
    ("unigram", {"user_defined_symbols": ["x "]}, "", "the symbol 'x '"),
])  # fmt: skip
def test_what_tokenizers_cannot_express_is_named(kind, options, unused, problem):
    trained = content(kind, **options)
    if unused:
        trained = retyped(trained, UNUSED, lambda piece: piece.name == unused)
    assert re.fullmatch(problem, engine_problem(read_model(trained)))


def test_spaces_that_stay_spaces_are_named():
    model = read_model(content())._replace(escape_whitespaces=False)
    assert engine_problem(model) == "escape_whitespaces false"


def test_pieces_of_equal_scores_are_named_for_bpe():
    equal = with_scores(content("bpe"), lambda piece: -float(len(piece.name)))
    assert re.fullmatch("the pieces .* of equal scores", engine_problem(read_model(equal)))
