from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from tests.data.tokenizers.declared.folders import byte_bpe, put, sequence, word_piece


def losses_of(tokenizer, *texts):
    return tuple(tokenizer.encode_counted(texts)[2])


def test_letters_are_what_the_normalizer_makes_of_them(tmp_path):
    cases = {
        "none": (None, (False, False)),
        "lower": ({"type": "Lowercase"}, (True, False)),
        "strip": (sequence("normalizers", "NFD", "StripAccents"), (False, True)),
        "composed": ({"type": "StripAccents"}, (False, False)),
        "both": (sequence("normalizers", "NFKD", "Lowercase", "StripAccents"), (True, True)),
    }
    for name, (normalizer, expected) in cases.items():
        engine = word_piece()
        engine["normalizer"] = normalizer
        tokenizer = read_tokenizer_folder(put(tmp_path / name, engine))
        assert (tokenizer.lowercase, tokenizer.strip_accents) == expected


def test_characters_in_unknown_tokens_and_lost_marks_are_counted(tmp_path):
    engine = word_piece()
    engine["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    tokenizer = read_tokenizer_folder(put(tmp_path / "x", engine))
    assert losses_of(tokenizer, "the", "\u2603\u2603 the \u2603") == (3, 0)
    assert losses_of(tokenizer, "th\u00e9 the") == (0, 1)


def test_bytes_that_the_vocabulary_lacks_are_counted(tmp_path):
    engine = byte_bpe()
    vocab = engine["model"]["vocab"]
    # The byte of "!" becomes another entry, which no text has.
    vocab["unused"] = vocab.pop("!")
    engine["model"]["merges"] = [m for m in engine["model"]["merges"] if "!" not in "".join(m)]
    engine["normalizer"] = {"type": "NFC"}
    tokenizer = read_tokenizer_folder(put(tmp_path / "x", engine))
    assert losses_of(tokenizer, "a! the!", " ") == (2, 0)
