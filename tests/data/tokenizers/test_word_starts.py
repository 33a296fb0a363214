import json

import numpy as np
import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import (
    load_tokenizer,
    mask_vocabulary,
    open_vocabulary,
    train_tokenizer,
)
from bertjax.data.tokenizers.word_starts import (
    FIRST_RULE,
    WORD_RULE,
    begins_unspaced,
    bytes_begin_unspaced,
)
from bertjax.errors import UserError

WITHOUT_SPACES = "กລကខཀកらラㄅ中㐀𠀀ꀀꦄᬅ\U00030000ｱ"
WITH_SPACES = "aéяक한אا1.،ᏸ"
# Marks of Thai, Khmer, Burmese, Tibetan.
MARKS = "\u0e34\u17b6\u102d\u0f72"
THAI = ["ฉันไปโรงเรียนกับเพื่อน และเล่นฟุตบอล", "เด็กกินข้าว ที่โรงเรียนไทย", "go to school"] * 20


def test_letters_of_scripts_without_spaces_begin_words_and_their_marks_do_not():
    assert all(map(begins_unspaced, WITHOUT_SPACES))
    assert not any(map(begins_unspaced, WITH_SPACES + MARKS))
    assert not begins_unspaced("")


@pytest.mark.parametrize("letter", WITHOUT_SPACES + WITH_SPACES + MARKS)
def test_pieces_of_bytes_are_as_their_letters(letter):
    encoded = letter.encode()
    assert bytes_begin_unspaced(encoded) == begins_unspaced(letter)
    assert bytes_begin_unspaced(encoded + b"\xe0") == begins_unspaced(letter)
    # The rest of a letter belongs to its first bytes.
    if len(encoded) > 1:
        assert not bytes_begin_unspaced(encoded[1:])


def test_the_first_bytes_of_a_letter_begin_a_word_where_all_that_follow_are_such_letters():
    assert [bytes_begin_unspaced("中".encode()[:n]) for n in range(4)] == [False, True, True, True]
    assert [bytes_begin_unspaced("ก".encode()[:n]) for n in range(4)] == [False, False, True, True]
    assert not bytes_begin_unspaced("क".encode()[:2])


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe", "byte_bpe"])
def test_a_tokenizer_saved_before_there_were_rules_keeps_the_first_one(kind, tmp_path):
    sizes = {"byte_bpe": 275, "unigram": 60}
    config = TokenizerConfig(
        kind=kind, vocab_size=sizes.get(kind, 90), lowercase=kind != "byte_bpe"
    )
    tokenizer = train_tokenizer(config, THAI)
    tokenizer.save(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    values = json.loads(settings.read_text())
    assert values.pop("word_rule") == tokenizer.word_rule == WORD_RULE
    settings.write_text(json.dumps(values))

    earlier = load_tokenizer(tmp_path)
    assert earlier.word_rule == FIRST_RULE
    assert earlier.fingerprint == tokenizer.fingerprint
    assert mask_vocabulary(earlier).max_word_pieces == 0
    ids, _ = tokenizer.encode_batch(["เด็กกินข้าว"])
    # SentencePiece knew Thai before.
    knew = kind in ("unigram", "bpe")
    assert earlier.starts_word[ids].sum() == (len(ids) if knew else kind == "wordpiece")
    assert tokenizer.starts_word[ids].sum() > 1

    # A run saves the tokenizer of its data: it keeps the rule.
    earlier.save(tmp_path / "run")
    assert load_tokenizer(tmp_path / "run").word_rule == FIRST_RULE
    # A new preparation makes new masks.
    opened = open_vocabulary(TokenizerConfig(kind=kind, vocab_file=str(tmp_path)))
    assert opened.word_rule == WORD_RULE
    assert np.array_equal(opened.starts_word, tokenizer.starts_word)


@pytest.mark.parametrize("rule", [0, WORD_RULE + 1, "2", True, None])
def test_an_unknown_rule_is_refused(rule, tmp_path):
    train_tokenizer(TokenizerConfig(vocab_size=100), THAI).save(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"word_rule": rule}))
    with pytest.raises(UserError, match=r"tokenizer_config\.json: word_rule: found .*, expected 1"):
        load_tokenizer(tmp_path)
